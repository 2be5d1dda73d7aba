"""What libraries may say on stderr: what happened, never what it happened to."""

import logging
import sys

_MAX = 300


class _Quiet(logging.Formatter):
    """One line, without traceback: pydantic, for one, quotes the message that it could not read."""

    def format(self, record: logging.LogRecord) -> str:
        """`broker: mcp.server.sse: Failed to parse message (ValidationError)`."""
        line = record.getMessage()[:_MAX]
        # The client's words may be in it: no escape sequence reaches a terminal.
        line = "".join(character if character.isprintable() else "?" for character in line)
        why = record.exc_info[0] if record.exc_info else None
        return f"broker: {record.name}: {line}" + (f" ({why.__name__})" if why is not None else "")


def quiet_logs() -> None:
    """Warnings and worse, one line each."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_Quiet())
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(logging.WARNING)


def where(error: BaseException) -> str:
    """`KeyError in broker/policy.py:12`: enough to find the fault, and nothing of what was being handled."""
    place = error.__traceback__
    while place is not None and place.tb_next is not None:
        place = place.tb_next
    if place is None:
        return type(error).__name__
    file = "/".join(place.tb_frame.f_code.co_filename.rsplit("/", 2)[-2:])
    return f"{type(error).__name__} in {file}:{place.tb_lineno}"
