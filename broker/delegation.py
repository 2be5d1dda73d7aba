"""What of a session's rights another one may be given: only ever less, and only where that is allowed."""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from fnmatch import fnmatchcase

from broker.canonical import Json, canonical_json
from broker.catalog import Catalog, Client, Delegate, Impersonation, Tool
from broker.chain import Chain, Principal
from broker.errors import Code, Rejected
from broker.limit import Limit
from broker.plain_text import plain
from broker.policy import Refused, fits, roles_for, strange_argument, visible
from broker.schema import Schema, SchemaMistake
from broker.session import Session

TOOL = "delegate"
"""The built-in tool by which an agent hands on; no name for a tool of a catalog."""

MAX_CONDITIONS = 4 * 1024
"""Bytes of the conditions of all steps, as canonical JSON. Each call of the child is held against them, and
each child is kept with all of them."""

MAX_STEPS = 32
"""From the first session to the last. A session that narrows itself adds no actor, so that the bound of those
would not hold here; and each call is held against every step."""

SELF = "self"
"""The rule where a session is made narrower for the agent that has it: nobody has to allow that."""

MAY_ACT = "may_act"
"""The rule where the subject's issuer has named the actor (RFC 8693 §4.4)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Wish:
    """What the child shall have, as somebody asks for it.

    Attributes:
        tools: by name; None: all that the parent may hand on.
        arguments: what the arguments of a tool must fit besides (JSON Schema), by the tool's name.
        scope: the actions whose tools are kept (RFC 8693 §2.1); None: all.
        expires_in: seconds, at most; None: as long as it may.
    """

    tools: tuple[str, ...] | None = None
    arguments: Mapping[str, Mapping[str, Json]] = field(default_factory=dict[str, Mapping[str, Json]])
    scope: tuple[str, ...] | None = None
    expires_in: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Narrowed:
    """The child that may be made.

    Attributes:
        chain: the parent's, with the new actor in front of it where there is one.
        limit: what this step leaves.
        rule: what allowed it: `roles.lead.delegate[0]`, `clients.rs08.impersonate[0]`, `MAY_ACT` or `SELF`.
        impersonator: a client for whom it is made, and whom `chain` does not name.
    """

    parent: Session
    chain: Chain
    limit: Limit
    expires_s: int
    rule: str
    impersonator: Principal | None = None

    def child(self, *, sid: str, opened_ms: int, jkt: str | None) -> Session:
        """The child: tenant, roles, assurance and allowances are the parent's, and so is the chain.

        Not so `may_act` once somebody acts: it was said of the parent's actor (OAuth Actor Profile: not
        propagated). As long as nobody joined it holds: a part of a session is no way around it.
        """
        parent = self.parent
        return Session(
            sid=sid,
            kind="child",
            issuer=parent.issuer,
            chain=self.chain,
            roles=parent.roles,
            assertions=parent.assertions,
            opened_ms=opened_ms,
            expires_s=self.expires_s,
            acr=parent.acr,
            amr=parent.amr,
            auth_time=parent.auth_time,
            parent=parent.sid,
            limits=(*parent.limits, self.limit),
            tenant=parent.tenant,
            jkt=jkt,
            allowance=parent.allowance or parent.chain.agent,
            may_act=parent.may_act if self.chain == parent.chain else None,
            acr_claim=parent.acr_claim,
            root=parent.root or parent.sid,
            vouchers=parent.vouchers,
            impersonator=self.impersonator or parent.impersonator,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class _Right:
    """Something that lets a session hand on.

    Attributes:
        tools: patterns. for_s: how long the child may live, or None: as long as the parent.
    """

    rule: str
    tools: tuple[str, ...] = ("*",)
    for_s: int | None = None
    impersonator: Principal | None = None


def narrow(
    parent: Session,
    wish: Wish,
    *,
    catalog: Catalog,
    actor: Principal | None,
    now_s: int,
    client: Client | None = None,
) -> Narrowed | Refused:
    """The child that a session may have, or why it may not. Pure: equal inputs give equal answers.

    What must hold:

    1. The parent has not ended; and there are not too many steps behind it.
    2. Whoever will act is not in the chain yet, and with them the chain is not too long: a longer one is
       refused, and never cut (OAuth Actor Profile), for a cut one names the wrong agent.
    3. Something lets them: for an actor a `delegate` of the parent's roles, or the `may_act` of its subject's
       issuer; for a client that is not in the chain a rule by name (impersonation). Where there is a
       `may_act`, it is for nobody else, whatever a rule says. The same agent may always have less.
    4. Each tool is one that the parent may call now, and that the rule lets it hand on. There is one.
    5. A condition can be held against arguments, soon, and is on a tool and an argument that there are.
       Whatever it says: the parent's own conditions stay, so that it only takes away.
    6. It ends no later than the parent, the rule and the wish say.

    Everything else is the parent's: see `Narrowed.child`.

    Args:
        actor: who will act, proved by a credential of its own or named to redeem an offer; None: the agent
            that has the parent, or `client`.
        client: who asks, where it proved who it is.
    """
    # 1. Alive.
    if now_s >= parent.expires_s:
        return _no(Code.SESSION_EXPIRED, "the session has ended; open a new one")
    if len(parent.limits) >= MAX_STEPS:
        return _no(Code.DELEGATION_TOO_DEEP, f"the session is {MAX_STEPS} steps from the first one already")
    # 2. A chain.
    chain = _longer(parent.chain, actor, catalog.broker.max_actors)
    if isinstance(chain, Refused):
        return chain
    # 3. Let.
    rights = tuple(_rights(parent, catalog, actor, client))
    if not rights:
        return _not_let(actor, client)
    nearest: Refused | None = None
    for right in rights:
        # 4. Tools.
        tools = _tools(parent, wish, catalog, right, now_s)
        if isinstance(tools, Refused):
            nearest = nearest or tools
            continue
        # 5. Conditions.
        unfit = _unfit(parent, wish, tools, right)
        if unfit is not None:
            return unfit
        # 6. An end.
        expires_s = _end(parent, wish, right, now_s)
        if isinstance(expires_s, Refused):
            return expires_s
        return Narrowed(
            parent=parent,
            chain=chain,
            limit=Limit.of(tools, wish.arguments),
            expires_s=expires_s,
            rule=right.rule,
            impersonator=right.impersonator,
        )
    return nearest or _not_let(actor, client)


def actors_named(parent: Session, catalog: Catalog, name: str) -> tuple[Principal, ...]:
    """Who is meant by an agent's name: in the order of the rules that let the session hand on to one."""
    found = [
        Principal(iss, name)
        for rule in _delegates(parent, catalog)
        if (iss := _namespace(rule, catalog)) is not None and _is_named(rule, name)
    ]
    if parent.may_act is not None:
        # Nobody else may, whatever a rule says.
        found = [parent.may_act] if parent.may_act.sub == name else []
    return tuple(dict.fromkeys(found))


def may_delegate(parent: Session, catalog: Catalog) -> bool:
    """Whether there is anybody to whom the session may hand on."""
    return bool(agents_of(parent, catalog))


def agents_of(parent: Session, catalog: Catalog) -> tuple[str, ...]:
    """The names, and patterns of names, to which the session may hand on, each once."""
    if len(parent.chain.actors) >= catalog.broker.max_actors or len(parent.limits) >= MAX_STEPS:
        return ()
    named = [
        Principal(iss, name)
        for rule in _delegates(parent, catalog)
        if (iss := _namespace(rule, catalog)) is not None
        for name in rule.to
    ]
    if parent.may_act is not None:
        named = [parent.may_act]
    there = (parent.chain.subject, *parent.chain.actors)
    return tuple(dict.fromkeys(each.sub for each in named if each not in there))


def _longer(chain: Chain, actor: Principal | None, most: int) -> Chain | Refused:
    if actor is None:
        return chain
    if actor in (chain.subject, *chain.actors):
        return _no(Code.DELEGATION_ACTOR, "whoever would act is in the chain already")
    if len(chain.actors) + 1 > most:
        return _no(Code.DELEGATION_TOO_DEEP, f"more than {most} would act for each other")
    return Chain(chain.subject, (actor, *chain.actors))


def _rights(
    parent: Session, catalog: Catalog, actor: Principal | None, client: Client | None
) -> Iterator[_Right]:
    if actor is None:
        named = parent.chain.agent if client is None else Principal(catalog.broker.issuer, client.name)
        if client is None or named == parent.chain.agent:
            yield _Right(rule=SELF)
            return
        # By what the catalog of now says of it: it may have waited for its turn since it proved who it is.
        declared = catalog.clients.get(client.name)
        if declared is None or parent.may_act not in (None, named):
            return
        for each in declared.impersonate:
            if _is_subject(each, parent):
                yield _Right(rule=each.rule, impersonator=named)
        return
    if parent.may_act not in (None, actor):
        return
    for rule in _delegates(parent, catalog):
        if _namespace(rule, catalog) == actor.iss and _is_named(rule, actor.sub):
            yield _Right(rule=rule.rule, tools=rule.tools, for_s=rule.for_s)
    if parent.may_act == actor:
        yield _Right(rule=MAY_ACT)


def _not_let(actor: Principal | None, client: Client | None) -> Refused:
    if actor is None and client is not None:
        return _no(
            Code.DELEGATION_IMPERSONATION,
            f"the client {client.name} is not the session's agent: it needs an actor_token of its own, or a "
            "rule that names it for this very subject",
        )
    return _no(Code.DELEGATION_NOT_GRANTED, "no rule lets the session hand on to that agent")


def _delegates(parent: Session, catalog: Catalog) -> Iterator[Delegate]:
    for role in roles_for(parent, catalog):
        yield from role.delegates


def _namespace(rule: Delegate, catalog: Catalog) -> str | None:
    """The `iss` in which the rule's names stand."""
    return _iss(rule.issuer, catalog)


def _iss(issuer: str, catalog: Catalog) -> str | None:
    if issuer == "broker":
        return catalog.broker.issuer
    declared = catalog.issuers.get(issuer)
    return None if declared is None else declared.issuer


def _is_named(rule: Delegate, name: str) -> bool:
    # `*` is the only wild character, and a name may hold the others that fnmatch knows.
    return any(
        pattern == name
        or ("*" in pattern and fnmatchcase(name, pattern.replace("[", "[[]").replace("?", "[?]")))
        for pattern in rule.to
    )


def _is_subject(rule: Impersonation, parent: Session) -> bool:
    # By the issuer that vouched and not by `iss` alone: two entries of a catalog could share it.
    return rule.issuer == parent.issuer and rule.sub == parent.chain.subject.sub


def _tools(
    parent: Session, wish: Wish, catalog: Catalog, right: _Right, now_s: int
) -> dict[str, Tool] | Refused:
    """The tools that the child has, at least one."""
    own = {tool.name: tool for tool in visible(parent, catalog, now_s=now_s)}
    tools = {name: tool for name, tool in own.items() if fits(right.tools, name)}
    if wish.tools is not None:
        for name in wish.tools:
            if name not in own:
                # As in a call: what does not exist and what is for others is the same.
                sentence = f"No tool named {plain(name, 64)!r} is available to this session."
                return _no(Code.DELEGATION_WIDER, sentence, right.rule)
            if name not in tools:
                sentence = f"{right.rule} does not let the session hand {name} on."
                return _no(Code.DELEGATION_WIDER, sentence, right.rule)
        tools = {name: tool for name, tool in tools.items() if name in wish.tools}
    if wish.scope is not None:
        actions = {tool.action for tool in tools.values()}
        for action in wish.scope:
            if action not in actions:
                sentence = f"No tool with the action {plain(action, 64)!r} can be handed on."
                return _no(Code.EXCHANGE_SCOPE, sentence, right.rule)
        tools = {name: tool for name, tool in tools.items() if tool.action in wish.scope}
    return tools or _no(Code.DELEGATION_WIDER, "no tool would be left", right.rule)


def _unfit(parent: Session, wish: Wish, tools: Mapping[str, Tool], right: _Right) -> Refused | None:
    """Why the conditions cannot be held against arguments, if they cannot."""
    documents: dict[str, Json] = {name: dict(document) for name, document in wish.arguments.items()}
    try:
        # As deep in other things as it is kept.
        kept = canonical_json({"limits": [{"arguments": documents}]})
        size = sum(limit.size for limit in parent.limits) + len(kept)
        if size <= MAX_CONDITIONS:
            # And as it is read again from there: 1e16 comes back as a whole number, and is too large for one.
            canonical_json(json.loads(kept))
    except Rejected as rejected:
        return _no(Code.EXCHANGE_DETAILS, f"the conditions are not JSON: {rejected.message}", right.rule)
    if size > MAX_CONDITIONS:
        sentence = f"the conditions of all steps have {size} bytes; at most {MAX_CONDITIONS} are taken"
        return _no(Code.EXCHANGE_DETAILS, sentence, right.rule)
    for name, document in wish.arguments.items():
        if name not in tools:
            sentence = f"a condition is on {plain(name, 64)!r}, which is none of the tools"
            return _no(Code.EXCHANGE_DETAILS, sentence, right.rule)
        try:
            Schema(document)
        except SchemaMistake as mistake:
            at = "/".join(str(part) for part in mistake.problems[0].path)
            sentence = f"the condition on {name} cannot be used"
            return _told(sentence, f"{sentence}: {at}: {mistake.problems[0].problem}", right.rule)
        strange = strange_argument(document, tools[name].input.document)
        if strange is not None:
            # It would limit nothing, and whoever wrote it would not know.
            sentence = f"a condition on {name} is on an argument that it does not have"
            return _told(sentence, f"{sentence}: {strange!r}", right.rule)
    return None


def _end(parent: Session, wish: Wish, right: _Right, now_s: int) -> int | Refused:
    expires_s = parent.expires_s
    if right.for_s is not None:
        expires_s = min(expires_s, now_s + right.for_s)
    if wish.expires_in is not None:
        if wish.expires_in <= 0:
            return _no(Code.EXCHANGE_MALFORMED, "expires_in is a number of seconds, from 1 on", right.rule)
        expires_s = min(expires_s, now_s + wish.expires_in)
    return expires_s


def _no(code: Code, sentence: str, rule: str | None = None) -> Refused:
    return Refused(code=code, reason=sentence, shown_code=code, shown=sentence, rule=rule)


def _told(reason: str, shown: str, rule: str) -> Refused:
    """Of a condition the log gets no word: it is an argument, and holds values."""
    return Refused(
        code=Code.EXCHANGE_DETAILS,
        reason=reason,
        shown_code=Code.EXCHANGE_DETAILS,
        shown=plain(shown, 400),
        rule=rule,
    )
