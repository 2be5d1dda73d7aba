"""An anchor that is a URL: each note is the body of a POST."""

from pathlib import Path

from anyio.to_thread import run_sync

from broker.anchoring import WebAnchor
from broker.anchors.post import post
from broker.checkpoint import SignedCheckpoint
from broker.errors import AnchorFailed

_MAX_SECRET = 4096
_KEPT = range(200, 300)


class WebPlace:
    """Any answer of 200 to 299 means kept."""

    def __init__(self, anchor: WebAnchor) -> None:
        self._anchor = anchor

    async def held(self) -> None:
        """It cannot be asked."""

    async def tell(self, signed: SignedCheckpoint) -> str:
        headers = {"Content-Type": "text/plain; charset=utf-8"}
        if self._anchor.authorization_file is not None:
            headers["Authorization"] = await run_sync(_secret, Path(self._anchor.authorization_file))
        answer = await post(self._anchor.url, signed.note.encode(), headers, ca_file=self._anchor.ca_file)
        if answer.status not in _KEPT:
            raise AnchorFailed(f"answered with status {answer.status}")
        return ""


def _secret(file: Path) -> str:
    """The header's value: the one line that the file has. No error quotes it."""
    try:
        with file.open("rb") as opened:
            text = opened.read(_MAX_SECRET + 1).decode("ascii").strip()
    except OSError as error:
        raise AnchorFailed(f"{file} cannot be read: {error.strerror}") from error
    except UnicodeDecodeError:
        text = ""
    if not text or len(text) > _MAX_SECRET or not text.isprintable():
        raise AnchorFailed(f"{file} does not hold one line for the header Authorization")
    return text
