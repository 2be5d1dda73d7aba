"""One POST to a place elsewhere: bounded in size and time, and to nowhere else."""

import ssl
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial

import aiohttp
from anyio.to_thread import run_sync

from broker.errors import AnchorFailed

POST_S = 10.0
"""How long the whole exchange may take."""

MAX_ANSWER = 64 * 1024
"""Bytes of the answer: some cosignatures."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Posted:
    """What was answered.

    Attributes:
        media_type: of the content, without parameters, in lower case.
    """

    status: int
    media_type: str
    body: str


async def post(url: str, body: bytes, headers: Mapping[str, str], *, ca_file: str | None) -> Posted:
    """One request: no proxy, no redirect, no cookie.

    Raises:
        AnchorFailed: no answer, or a longer one than is read.
    """
    timeout = aiohttp.ClientTimeout(total=POST_S)
    try:
        # Loading authorities reads files.
        trusted = await run_sync(partial(ssl.create_default_context, cafile=ca_file))
        async with (
            aiohttp.TCPConnector(ssl=trusted, force_close=True) as connector,
            aiohttp.ClientSession(
                connector=connector, timeout=timeout, cookie_jar=aiohttp.DummyCookieJar(), trust_env=False
            ) as session,
            session.post(url, data=body, headers=headers, allow_redirects=False) as answer,
        ):
            text = await answer.content.read(MAX_ANSWER + 1)
            while len(text) <= MAX_ANSWER and (more := await answer.content.read(MAX_ANSWER + 1)):
                text += more
            if len(text) > MAX_ANSWER:
                raise AnchorFailed(f"answered with more than {MAX_ANSWER} bytes")
            return Posted(
                status=answer.status,
                media_type=answer.content_type.lower(),
                body=text.decode("utf-8", "replace"),
            )
    except TimeoutError:
        raise AnchorFailed(f"did not answer within {POST_S:g} s") from None
    except aiohttp.ClientConnectorCertificateError as error:
        raise AnchorFailed("its certificate is not one that is trusted") from error
    except (aiohttp.ClientError, OSError, ValueError) as error:
        why = isinstance(error, OSError) and error.strerror
        raise AnchorFailed(f"cannot be reached: {why or type(error).__name__}") from error
