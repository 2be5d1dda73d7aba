"""What a token that got into other hands could have done, and what was done with it."""

from broker.errors import Usage
from broker.plain_text import sought
from broker.review.answers import Leak
from broker.review.calls import call_of, calls_of
from broker.review.index import ReviewIndex

MAX_MEANWHILE = 200


def leaked(index: ReviewIndex, jti: str) -> Leak:
    """The call that the token was minted for, everything that the log has of it, and what else its session
    did while it was good. Its claims are in the record of the call. Raises Usage where there is none."""
    ask = index.connection.execute
    jti = jti.encode(errors="replace").decode()
    row = ask("SELECT min(idx) FROM call WHERE jti = ? AND outcome < 6", (jti,)).fetchone()
    call = None if row[0] is None else call_of(index.connection, row[0])
    if call is None:
        raise unknown(jti)
    events = {call.idx, *(each for each in (call.end_idx, call.spent_idx) if each is not None)}
    events |= {idx for (idx,) in ask("SELECT idx FROM call WHERE jti = ?", (jti,)).fetchall()}
    events |= {idx for (idx,) in ask("SELECT idx FROM event WHERE about = ?", (jti,)).fetchall()}
    meanwhile = ask(
        "SELECT c.idx FROM call b JOIN call c INDEXED BY call_session ON c.session = b.session"
        " AND c.session <> 0 WHERE b.idx = ? AND c.idx <> b.idx AND c.time_ms >= b.time_ms"
        " AND c.time_ms <= b.exp * 1000 AND c.jti IS NOT b.jti ORDER BY c.idx LIMIT ?",
        (call.idx, MAX_MEANWHILE),
    ).fetchall()
    reports = ask(
        "SELECT 1 FROM reporter r JOIN name n ON n.id = r.backend WHERE n.text = ?", (call.backend,)
    ).fetchone()
    return Leak(
        call=call,
        events=tuple(sorted(events)),
        meanwhile=calls_of(index.connection, (idx for (idx,) in meanwhile)),
        reports=reports is not None,
    )


def unknown(jti: str) -> Usage:
    """That there is none; said in the same words of one that somebody may not see."""
    return Usage(f"the log has no token {sought(jti)}; `jti` stands in the token, and in a backend's own log")
