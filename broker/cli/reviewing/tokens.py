"""Call tokens that somebody kept, as a file: one, itself or its claims; or the claims of many."""

import json
from base64 import urlsafe_b64decode
from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

from broker.cli.reviewing.elsewhere import read_text
from broker.errors import Usage
from broker.kept_token import KeptToken

_MAX_BYTES = 256 * 1024


def read_token(path: Path) -> KeptToken:
    """What is kept of the token in a file.

    Its signature is not looked at: what is asked is whether the log has a record of these very claims, and a
    token that nobody signed has none.

    Raises:
        Usage: it cannot be read, or is no call token.
    """
    try:
        with path.open("rb") as file:
            text = file.read(_MAX_BYTES).decode("utf-8").strip()
    except OSError as error:
        raise Usage(f"cannot read the token in {path}: {error.strerror}") from error
    except ValueError as error:
        raise Usage(f"{path} is no call token, nor the claims of one") from error
    try:
        return KeptToken.of(_claims(text))
    except (ValueError, RecursionError) as error:
        # No word of what stands there: it may be a credential.
        raise Usage(f"{path} is no call token with a `log` claim, nor the claims of one") from error


def read_tokens(path: Path | None) -> list[KeptToken]:
    """JSON lines, as `broker log list --everything --json` prints them of a backend's own file of spends,
    or the claims of tokens. Lines without a place in the log say nothing of it."""
    if path is None:
        return []
    found: list[KeptToken] = []
    for number, line in enumerate(read_text(path, "tokens").split("\n"), 1):
        if not line.strip():
            continue
        try:
            parsed: object = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise Usage(f"line {number} of {path} is not JSON") from error
        claims = cast("Mapping[str, Any]", parsed if isinstance(parsed, dict) else {})
        if claims.get("log") is None:
            continue
        try:
            found.append(KeptToken.of(claims))
        except ValueError as error:
            raise Usage(f"line {number} of {path} is not what a backend keeps of a token") from error
    if not found:
        raise Usage(f"{path} names no place in a log")
    return found


def _claims(text: str) -> Mapping[str, Any]:
    if not text.startswith("{"):
        _, payload, _ = text.split(".")
        text = urlsafe_b64decode(payload + "=" * (-len(payload) % 4)).decode("utf-8")
    found: object = json.loads(text)
    return cast("Mapping[str, Any]", found if isinstance(found, dict) else {})
