"""The broker's own parts under a clock that the story moves: what they decide and write is real, but for
the time, the ids, and backends that live in this process."""

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from uuid import UUID

from story import Step

from broker.authenticate import Authenticator
from broker.backends.protocols import Answer
from broker.call import Caller
from broker.catalog import Catalog, Tool
from broker.chain import Chain, Principal
from broker.delegate import Delegator, Offered, Opened
from broker.errors import BackendFailed, Code
from broker.introspection import Told
from broker.issue import Ask, Issuer
from broker.keys import KeyRing
from broker.mint import TokenMinter
from broker.places import log_origin
from broker.record import Record
from broker.request import PlannedRequest
from broker.revocation import Revocation
from broker.server.signing import Signing
from broker.session import Assertion, Session, opened_record, revoked_record
from broker.session_signer import SessionSigner
from broker.spend import Presented, Spender
from broker.store.protocols import Entry
from broker.store.sqlite import Store
from broker.tools_toml import load


@dataclass(slots=True)
class Clock:
    """Stands still until it is moved."""

    ms: int = 0

    def now_ms(self) -> int:
        return self.ms

    def now_s(self) -> int:
        return self.ms // 1000

    def seconds(self) -> float:
        return self.ms / 1000


@asynccontextmanager
async def signed(store: Store, keys: KeyRing, catalog: Catalog, clock: Clock) -> AsyncGenerator[Signing]:
    """What signs the log when the story says so, with the anchors of its tools.toml."""
    made = Signing.of(
        store, lambda: keys.log_key, anchors=lambda: catalog.anchors, every_s=60, now_ms=clock.now_ms
    )
    async with made.telling():
        yield made


@dataclass(slots=True, kw_only=True)
class DayBackends:
    """Backends that spend their tokens at the broker, and answer what the step says."""

    clock: Clock
    spender: Spender
    dice: Random
    step: Step | None = None
    last: tuple[Tool, str] | None = None

    async def send(
        self, tool: Tool, request: PlannedRequest, token: str, *, txn_token: str | None = None
    ) -> Answer:
        """As `backends.protocols.Backends` has it."""
        del request, txn_token
        assert self.step is not None  # noqa: S101 - a call is a step of the story
        self.clock.ms += self.dice.randrange(4, 40)
        if self.step.status == 0:
            self.clock.ms += 30_000
            raise BackendFailed(Code.BACKEND_TIMEOUT, f"The backend {tool.backend.name} did not answer.")
        if not self.step.unspent:
            self.last = (tool, token)
            await self.show(tool, token)
        self.clock.ms += self.dice.randrange(8, 160)
        return Answer(
            text="",
            structured=None,
            failed=self.step.status >= 400,
            status=self.step.status,
            bytes=self.dice.randrange(80, 900),
        )

    async def show(self, tool: Tool, token: str) -> None:
        """What a backend does with a token, whoever brought it."""
        await self.spender.spend(
            Presented(
                token=token, client=tool.backend.name, backend=tool.backend, via="introspect", told=Told()
            )
        )


@dataclass(slots=True, kw_only=True)
class Day:
    """Plays the steps of a story, one after the other."""

    clock: Clock
    dice: Random
    catalog: Catalog
    store: Store
    issuer: Issuer
    caller: Caller
    backends: DayBackends
    delegator: Delegator
    signer: SessionSigner
    signing: Signing
    sessions: dict[str, Session] = field(default_factory=dict[str, Session])
    credentials: dict[str, str] = field(default_factory=dict[str, str])

    @classmethod
    @asynccontextmanager
    async def begin(cls, folder: Path, begins_ms: int) -> "AsyncGenerator[Day]":
        """All parts, over a new store in that folder."""
        catalog = load(folder / "tools.toml")
        clock, dice = Clock(begins_ms), Random("ids")  # noqa: S311 - the story's ids, the same each time
        keys = KeyRing.open(Path(catalog.broker.keys), now_s=clock.now_s())
        origin = log_origin(catalog.broker.issuer)
        async with (
            Store.open(Path(catalog.broker.store), origin=origin, now_ms=clock.now_ms) as store,
            signed(store, keys, catalog, clock) as signing,
        ):

            def new_id() -> str:
                return f"{dice.getrandbits(128):032x}"[:22]

            def new_salt() -> bytes:
                return dice.randbytes(16)

            def new_txn() -> str:
                text = f"{clock.ms << 16 | 0x7000 | dice.getrandbits(12):016x}"
                return str(UUID(text + f"{0b10 << 62 | dice.getrandbits(62):016x}"))

            authenticate = Authenticator(catalog=lambda: catalog, keys=keys, sessions=store)
            issuer = Issuer(
                catalog=lambda: catalog,
                authenticate=authenticate,
                log=store,
                minter=TokenMinter(lambda: keys.active),
                now_ms=clock.now_ms,
                new_jti=new_id,
                new_salt=new_salt,
                new_txn=new_txn,
            )
            spender = Spender(catalog=lambda: catalog, keys=keys, log=store, now_ms=clock.now_ms)
            backends = DayBackends(clock=clock, spender=spender, dice=dice)
            signer = SessionSigner(keys=keys)
            yield cls(
                clock=clock,
                dice=dice,
                catalog=catalog,
                store=store,
                issuer=issuer,
                caller=Caller(
                    issuer=issuer,
                    backends=backends,
                    log=store,
                    now_ms=clock.now_ms,
                    monotonic=clock.seconds,
                ),
                backends=backends,
                delegator=Delegator(
                    catalog=lambda: catalog,
                    authenticate=authenticate,
                    sessions=store,
                    offers=store,
                    log=store,
                    sign=signer,
                    now_ms=clock.now_ms,
                    new_txn=new_txn,
                    new_sid=new_id,
                    new_code=new_id,
                    new_salt=new_salt,
                ),
                signer=signer,
                signing=signing,
            )

    async def start(self) -> None:
        """The broker's own first record: which rules hold."""
        loaded = Record(
            event="catalog.loaded", time_ms=self.clock.ms, fields={"catalog": self.catalog.digest}
        )
        await self.store.append(Entry(record=loaded))

    async def play(self, step: Step) -> None:
        """Move the clock to the step's time, and do it."""
        self.clock.ms = max(self.clock.ms, step.at_ms)
        self.backends.step = step
        match step.verb:
            case "open":
                await self._open(step)
            case "call":
                await self.caller.call(self._ask(step))
            case "crash":
                # Issued and never used: what is left of a broker that was killed right then.
                await self.issuer.issue(self._ask(step))
            case "replay":
                assert self.backends.last is not None  # noqa: S101 - the story has a call before it
                await self.backends.show(*self.backends.last)
            case "hand on":
                await self._hand_on(step)
            case "revoke":
                await self._revoke(self.sessions[step.who])
            case "checkpoint":
                await self.signing.checkpoint()

    def _ask(self, step: Step) -> Ask:
        return Ask(credential=self.credentials[step.who], tool=step.tool, arguments=step.arguments)

    async def _open(self, step: Step) -> None:
        issuer = self.catalog.broker.issuer
        session = Session(
            sid=f"{self.dice.getrandbits(128):032x}"[:22],
            kind="broker",
            issuer="broker",
            chain=Chain(
                Principal(issuer, step.subject), (Principal(issuer, step.agent),) if step.agent else ()
            ),
            roles=(step.role,) if step.role else (),
            assertions=(Assertion(role=step.role, because="given by `broker session open`"),)
            if step.role
            else (),
            opened_ms=self.clock.ms,
            expires_s=self.clock.now_s() + step.lasts_s,
        )
        await self.store.open_session(session, opened_record(session, catalog=self.catalog.digest))
        self.sessions[step.who] = session
        self.credentials[step.who] = await self.signer(session, iss=issuer)

    async def _hand_on(self, step: Step) -> None:
        """To an agent that opens its own session first, and proves itself with it."""
        day = step.who.partition(" ")[2]
        itself = Step(
            at_ms=self.clock.ms, verb="open", who=f"{step.agent} itself", subject=step.agent, lasts_s=3600
        )
        await self._open(itself)
        offered = await self.delegator.offer(
            self.credentials[step.who], arguments={"agent": step.agent, "tools": ["stock_get"]}
        )
        assert isinstance(offered, Offered), offered  # noqa: S101 - the story's own rules allow it
        opened = await self.delegator.redeem(offered.code, actor_credential=self.credentials[itself.who])
        assert isinstance(opened, Opened), opened  # noqa: S101 - as above
        self.sessions[f"{step.agent} {day}"] = opened.session
        self.credentials[f"{step.agent} {day}"] = opened.credential

    async def _revoke(self, session: Session) -> None:
        await self.store.revoke(
            Revocation(kind="session", name=session.sid),
            now_ms=self.clock.ms,
            record=lambda sessions: revoked_record(session, now_ms=self.clock.ms, sessions=sessions),
        )
