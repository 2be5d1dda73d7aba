"""How one session's rights come into the hands of another: offered and redeemed, or exchanged."""

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Protocol, TypeVar

import anyio.to_thread

from broker.canonical import Json, digest
from broker.catalog import Catalog, Client
from broker.chain import Chain, Principal
from broker.delegate_arguments import asked
from broker.delegation import TOOL, Narrowed, Wish, actors_named, narrow
from broker.errors import Code, LogUnavailable, Rejected
from broker.issue import Authenticate, Denied
from broker.plain_text import plain
from broker.policy import Refused, refused
from broker.record import Record
from broker.session import Session, joined, limit_told, opened_record
from broker.store.protocols import ClaimFault, Entry, Log, NotRedeemed, Offer, Offers, Sessions, Unmet
from broker.store.refusals import rejection

T = TypeVar("T")

CLAIM_S = 60
"""How long a claim code may be redeemed."""


class SignSession(Protocol):
    """`session_signer.SessionSigner`, as this module needs it: the key is published as long as what it signs
    lives."""

    async def __call__(self, session: Session, *, iss: str) -> str:
        """The compact JWS. Raises KeysUnsafe: that could not be seen to, and nothing was signed."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Offered:
    """A claim code. It is shown once, and kept nowhere.

    Attributes:
        agent: who alone may redeem it.
        until_s: and until when (Unix time).
        child: the session that it stands for.
        rule: what allowed it.
    """

    code: str = field(repr=False)
    agent: Principal
    until_s: int
    child: Session
    rule: str
    txn: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Opened:
    """A child session, and its credential. It is shown once, and kept nowhere.

    Attributes:
        rule: what allowed it; None where that stands in the record of its offer.
    """

    credential: str = field(repr=False)
    session: Session
    txn: str
    rule: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class _Occasion:
    """What holds for one story from its beginning to its end: one catalog, one moment, one id.

    Attributes:
        facts: what its records say besides: who is meant, which client asks.
    """

    catalog: Catalog
    now_ms: int
    txn: str
    facts: Mapping[str, Json]

    def knowing(self, **more: Json) -> "_Occasion":
        return replace(self, facts={**self.facts, **more})


@dataclass(frozen=True, slots=True, kw_only=True)
class Delegator:
    """The three stories. Everything that varies is an argument.

    In each, `jkt` is the thumbprint of the key whose possession was proved with the request, if one was.

    Attributes:
        catalog: the catalog that holds now; asked once a story, so that one story sees one.
        sessions, offers, log: the same file; what an append decides about a session it decides there.
        now_ms: Unix time in milliseconds.
        new_txn: an id that grows with time.
        new_sid: an id of a session, at least 128 random bits.
        new_salt: 128 random bits, for what of a record can be erased.
        new_code: a claim code, at least 128 random bits; 256 for whoever makes a new one.
    """

    catalog: Callable[[], Catalog]
    authenticate: Authenticate
    sessions: Sessions
    offers: Offers
    log: Log
    sign: SignSession
    now_ms: Callable[[], int]
    new_txn: Callable[[], str]
    new_sid: Callable[[], str]
    new_code: Callable[[], str]
    new_salt: Callable[[], bytes]

    async def offer(
        self, credential: str, *, arguments: Mapping[str, Json], jkt: str | None = None
    ) -> Offered | Denied:
        """The tool `delegate`: keep a part of a session's rights for another agent, under a claim code.

        What must hold before there is a code:

        1. The credential is good, and its session stands.
        2. The arguments are what the tool takes.
        3. A rule lets the session hand this on to that agent: see `delegation.narrow`. Where the agent's
           name is one in several namespaces, the first rule that allows says which agent is meant.
        4. The offer and its record `delegated` are durable, in one transaction, that has found the session
           standing. Of the code only the digest is kept.

        Raises:
            LogUnavailable: nothing was offered.
        """
        at = self._occasion(tool=TOOL)
        return await self._whole(at, self._offer(at, credential, arguments, jkt))

    async def _offer(
        self, at: _Occasion, credential: str, arguments: Mapping[str, Json], jkt: str | None
    ) -> Offered | Denied:
        # 1. Who.
        try:
            parent = await self.authenticate(credential, now_ms=at.now_ms, jkt=jkt)
        except Rejected as rejected:
            return await self._deny(at, refused(rejected))
        # 2. What.
        wanted = asked(arguments, max_bytes=at.catalog.broker.max_arguments_bytes)
        if isinstance(wanted, Refused):
            return await self._deny(at, wanted, parent.chain, parent.sid, parent.tenant)
        at = at.knowing(to=plain(wanted.agent, 128))
        # 3. Narrow.
        narrowed: Narrowed | Refused = _UNNAMED
        for actor in actors_named(parent, at.catalog, wanted.agent):
            tried = await _narrow(parent, wanted.wish, at, actor=actor)
            if isinstance(tried, Narrowed) or narrowed is _UNNAMED:
                narrowed = tried
            if isinstance(tried, Narrowed):
                break
        if isinstance(narrowed, Refused):
            return await self._deny(at, narrowed, parent.chain, parent.sid, parent.tenant)
        # 4. Keep.
        code = self.new_code()
        # Nothing of a bound session becomes a bearer's: whoever redeems it puts a key in this one's place.
        child = narrowed.child(sid=self.new_sid(), opened_ms=at.now_ms, jkt=parent.jkt)
        until_s = min(at.now_ms // 1000 + CLAIM_S, child.expires_s)
        actor = child.chain.agent
        limit, private = limit_told(narrowed.limit, self.new_salt)
        record = Record(
            event="delegated",
            time_ms=at.now_ms,
            txn=at.txn,
            chain=parent.chain,
            fields={
                **at.facts,
                "sid": parent.sid,
                "tenant": parent.tenant,
                "child": child.sid,
                "to": actor.sub,
                "to_iss": actor.iss,
                "limit": limit,
                "exp": child.expires_s,
                "redeem_until": until_s,
                "rule": narrowed.rule,
                "catalog": at.catalog.digest,
            },
            private=private,
        )
        offer = Offer(code_sha256=_code_sha256(code), session=child, agent=actor, expires_s=until_s)
        unmet = await self.offers.offer(offer, record)
        if unmet is not None:
            return await self._deny(at, _gone(unmet, narrowed.rule), parent.chain, parent.sid, parent.tenant)
        return Offered(code=code, agent=actor, until_s=until_s, child=child, rule=narrowed.rule, txn=at.txn)

    async def redeem(self, code: str, *, actor_credential: str, jkt: str | None = None) -> Opened | Denied:
        """The child session that a claim code stands for, for the agent that it names; or why not.

        What must hold before there is a credential:

        1. The agent proves itself: its credential is good, and speaks for nobody else. Two authorities must
           not mix.
        2. In one transaction with the record `session.opened`: the code is known, not over, not used, and
           for this very agent, who is no other tenant's, and who proved a key where the parent is bound to
           one; what it is a part of stands, and so does the session by which the agent proved itself. Of many
           who show it at once, one gets here; whoever does not has not used it up.
        3. The credential is signed after that, by a key that is published as long as it lives. It is bound
           to the key that the agent proved to have, if it did.

        Raises:
            LogUnavailable: nothing was opened.
        """
        at = self._occasion()
        return await self._whole(at, self._redeem(at, code, actor_credential, jkt))

    async def _redeem(
        self, at: _Occasion, code: str, actor_credential: str, jkt: str | None
    ) -> Opened | Denied:
        # 1. The agent itself.
        actor = await self._itself(at, actor_credential, jkt)
        if isinstance(actor, Denied):
            return actor
        # 2. The code.
        redeemed = await self.offers.redeem(
            _code_sha256(code),
            actor=actor,
            now_ms=at.now_ms,
            record=partial(_opened_record, at, new_salt=self.new_salt),
            jkt=jkt,
        )
        if isinstance(redeemed, NotRedeemed):
            refusal = _TOLD.get(redeemed.fault) if redeemed.fault else None
            refusal = refusal or _gone(redeemed.unmet, None)
            if redeemed.fault is not None:
                refusal = replace(refusal, reason=redeemed.fault.value)
            sid = None if redeemed.offered is None else redeemed.offered.sid
            return await self._deny(at, refusal, actor.chain, sid)
        # 3. Sign.
        child = redeemed.session
        return Opened(
            credential=await self.sign(child, iss=at.catalog.broker.issuer), session=child, txn=at.txn
        )

    async def exchange(
        self,
        subject_credential: str,
        *,
        wish: Wish,
        actor_credential: str | None = None,
        client: Client | None = None,
        jkt: str | None = None,
    ) -> Opened | Denied:
        """A narrower session for one that is shown, at once (RFC 8693); or why not.

        What must hold before there is a credential:

        1. The subject's credential is good, and its session stands.
        2. The actor's, if there is one, proves the actor itself, and nobody for whom it acts.
        3. Something allows it: see `delegation.narrow`.
        4. The child and its record `session.opened` are durable, in one transaction, that has found the
           parent standing, and the session by which the actor proved itself.
        5. The credential is signed after that, by a key that is published as long as it lives. It is bound
           to the key that was proved with this request, if one was.

        Args:
            client: who asks, where it proved who it is.

        Raises:
            LogUnavailable: nothing was opened.
        """
        at = self._occasion(client=None if client is None else client.name)
        story = self._exchange(at, subject_credential, actor_credential, wish, client=client, jkt=jkt)
        return await self._whole(at, story)

    async def _exchange(
        self,
        at: _Occasion,
        subject_credential: str,
        actor_credential: str | None,
        wish: Wish,
        *,
        client: Client | None,
        jkt: str | None,
    ) -> Opened | Denied:
        # 1. The subject.
        try:
            parent = await self.authenticate(subject_credential, now_ms=at.now_ms, jkt=jkt)
        except Rejected as rejected:
            return await self._deny(at, refused(rejected))
        # 2. The actor.
        actor: Principal | None = None
        itself: Session | None = None
        if actor_credential is not None:
            proved = await self._itself(at, actor_credential, jkt, parent)
            if isinstance(proved, Denied):
                return proved
            itself = proved
            actor = itself.chain.subject
            at = at.knowing(to=actor.sub, to_iss=actor.iss)
        # 3. Narrow.
        narrowed = await _narrow(parent, wish, at, actor=actor, client=client)
        if isinstance(narrowed, Refused):
            return await self._deny(at, narrowed, parent.chain, parent.sid, parent.tenant)
        # 4. Keep.
        child = narrowed.child(sid=self.new_sid(), opened_ms=at.now_ms, jkt=jkt)
        if itself is not None:
            child = joined(child, itself)
        opened = at.knowing(
            rule=narrowed.rule, impersonation=narrowed.rule if narrowed.impersonator else None
        )
        kept = await self.sessions.open_session(
            child,
            _opened_record(opened, child, new_salt=self.new_salt),
            actor=None if itself is None else itself.sid,
        )
        if isinstance(kept, Unmet):
            return await self._deny(at, _gone(kept, narrowed.rule), parent.chain, parent.sid, parent.tenant)
        # 5. Sign.
        return Opened(
            credential=await self.sign(child, iss=at.catalog.broker.issuer),
            session=child,
            txn=at.txn,
            rule=narrowed.rule,
        )

    async def _itself(
        self, at: _Occasion, credential: str, jkt: str | None, parent: Session | None = None
    ) -> Session | Denied:
        """The session of an agent that proves itself, and speaks for nobody else."""
        sid, chain, tenant = (None,) * 3 if parent is None else (parent.sid, parent.chain, parent.tenant)
        try:
            actor = await self.authenticate(credential, now_ms=at.now_ms, jkt=jkt)
        except Rejected as rejected:
            denial = refused(rejected)
            reason = f"the actor's credential: {denial.reason}"
            return await self._deny(at, replace(denial, reason=reason), chain, sid, tenant)
        # A part of its own rights may have been given to somebody who is not the agent.
        if actor.chain.actors or actor.parent is not None:
            sentence = "The actor's credential acts for somebody else, or is a part of another one."
            refusal = _refusal(Code.DELEGATION_ACTOR, sentence)
            return await self._deny(at, refusal, chain or actor.chain, sid, tenant)
        if parent is not None and actor.tenant not in (None, parent.tenant):
            return await self._deny(at, _OTHER_TENANT, chain, sid, tenant)
        return actor

    def _occasion(self, **facts: Json) -> _Occasion:
        return _Occasion(catalog=self.catalog(), now_ms=self.now_ms(), txn=self.new_txn(), facts=facts)

    async def _whole(self, at: _Occasion, story: Awaitable[T]) -> T:
        """The story; and where it fails for a defect of ours, a record of that."""
        try:
            return await story
        except LogUnavailable:
            raise
        except Exception:
            await self._deny(at, _BROKEN)
            raise

    async def _deny(
        self,
        at: _Occasion,
        refusal: Refused,
        chain: Chain | None = None,
        sid: str | None = None,
        tenant: str | None = None,
    ) -> Denied:
        """A refusal is a record too, and durable before the caller hears of it."""
        fields: dict[str, Json] = {
            **at.facts,
            "sid": sid,
            "tenant": tenant,
            "rule": refusal.rule,
            "catalog": at.catalog.digest,
            "code": refusal.code,
            "reason": refusal.reason,
        }
        record = Record(event="refused", time_ms=at.now_ms, txn=at.txn, chain=chain, fields=fields)
        await self.log.append(Entry(record=record))
        return Denied(refused=refusal, txn=at.txn)


async def _narrow(
    parent: Session, wish: Wish, at: _Occasion, *, actor: Principal | None, client: Client | None = None
) -> Narrowed | Refused:
    question = partial(
        narrow,
        parent,
        wish,
        catalog=at.catalog,
        actor=actor,
        client=client,
        now_s=at.now_ms // 1000,
    )
    # Schemas of a stranger take long to judge: beside the loop, so that nobody else waits.
    return await anyio.to_thread.run_sync(question) if wish.arguments else question()


def _opened_record(at: _Occasion, child: Session, *, new_salt: Callable[[], bytes]) -> Record:
    """`session.opened`, with what allowed it. Of a redeemed one that stands in the record `delegated`."""
    record = opened_record(child, catalog=at.catalog.digest, new_salt=new_salt)
    return replace(record, txn=at.txn, fields={**record.fields, **at.facts})


def _code_sha256(code: str) -> str:
    return digest(code.encode(errors="replace"))


def _gone(unmet: Unmet, rule: str | None) -> Refused:
    return replace(refused(rejection(unmet)), rule=rule)


def _refusal(code: Code, sentence: str) -> Refused:
    return Refused(code=code, reason=sentence, shown_code=code, shown=sentence)


_BROKEN = _refusal(Code.INTERNAL, "The broker failed before there was a session.")
_UNNAMED = _refusal(Code.DELEGATION_NOT_GRANTED, "No rule lets the session hand on to an agent of that name.")
_OTHER_TENANT = _refusal(Code.DELEGATION_ACTOR, "The actor is another tenant's.")
_UNPROVED = _refusal(
    Code.CREDENTIAL_PROOF,
    "The session that was handed on is bound to a key; prove to have one of your own with a DPoP header.",
)
_TOLD = {ClaimFault.OTHER_TENANT: _OTHER_TENANT, ClaimFault.UNPROVED: _UNPROVED}
"""What the right agent may hear of a code."""
