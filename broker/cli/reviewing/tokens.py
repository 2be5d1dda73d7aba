"""A call token that somebody kept, as a file: the token itself, or its claims."""

import json
from base64 import urlsafe_b64decode
from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

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


def _claims(text: str) -> Mapping[str, Any]:
    if not text.startswith("{"):
        _, payload, _ = text.split(".")
        text = urlsafe_b64decode(payload + "=" * (-len(payload) % 4)).decode("utf-8")
    found: object = json.loads(text)
    return cast("Mapping[str, Any]", found if isinstance(found, dict) else {})
