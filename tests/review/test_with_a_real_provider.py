"""Logging in at other people's OpenID provider, in a real browser, by each way to authenticate."""

from collections.abc import AsyncGenerator
from pathlib import Path
from typing import Any

import anyio
import pytest
from broker_process import Backend, Place, start_broker
from browser import Browser, browser
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from foreign_issuer import part
from free_port import free_port
from peers import Peers
from written_log import WrittenLog, call

pytestmark = pytest.mark.anyio

SECRET = "a secret/of+this%client, and long enough"


@pytest.fixture(scope="module")
def anyio_backend() -> str:
    """One loop a module, so that a browser outlives a test."""
    return "asyncio"


@pytest.fixture(scope="module")
async def at() -> AsyncGenerator[Browser]:
    async with browser() as found:
        yield found


def proof_of(auth: str, folder: Path) -> tuple[dict[str, object], str]:
    """What the provider knows of the client, and what our tools.toml says."""
    if auth == "client_secret_basic":
        write_private(folder / "review.secret", SECRET.encode())
        return {"client_secret": SECRET}, 'secret_file = "review.secret"'
    if auth == "private_key_jwt":
        key = ec.generate_private_key(ec.SECP256R1())
        pem = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
        write_private(folder / "review.pem", pem)
        numbers = key.public_key().public_numbers()
        jwk = {
            "kty": "EC",
            "crv": "P-256",
            "x": part(numbers.x.to_bytes(32)),
            "y": part(numbers.y.to_bytes(32)),
        }
        client = {"token_endpoint_auth_method": auth, "token_endpoint_auth_signing_alg": "ES256"}
        return {**client, "jwks": {"keys": [jwk]}}, 'key_file = "review.pem"'
    return {"token_endpoint_auth_method": "none"}, ""


def write_private(file: Path, data: bytes) -> None:
    file.write_bytes(data)
    file.chmod(0o600)


@pytest.mark.parametrize("auth", ["client_secret_basic", "private_key_jwt", "none"])
async def test_an_auditor_logs_in_and_somebody_else_does_not(at: Browser, tmp_path: Path, auth: str) -> None:
    port = free_port()
    here = f"http://127.0.0.1:{port}"
    client, line = proof_of(auth, tmp_path)
    settings: dict[str, Any] = {
        "resources": [],
        "people": {"rita": {"groups": ["auditors"]}, "mallory": {"groups": ["staff"]}},
        "service": {"secret": SECRET, "scope": "none"},
        "review": {"redirect_uri": f"{here}/review/callback", "client": client},
    }
    async with Peers().serving("provider.mjs", settings) as provider:
        (tmp_path / "tools.toml").write_text(
            f'[broker]\nissuer = "{here}"\nstore = "sqlite:broker.db"\nkeys = "keys"\n\n'
            f'[review]\nissuer = "{provider.said["issuer"]}"\nclient_id = "broker-review"\nauth = "{auth}"\n'
            f'{line}\nscope = ["groups"]\nreviewers = [{{ claim = "groups", has = "auditors" }}]\n'
        )
        await anyio.to_thread.run_sync(WrittenLog(folder=tmp_path).write, call(1))
        place = Place(folder=tmp_path, backend=Backend())
        served = await anyio.to_thread.run_sync(lambda: start_broker(place, "--listen", f"127.0.0.1:{port}"))
        try:
            await at.fresh()
            assert await at.do("goto", url=f"{here}/review/") == 401
            await at.do("click", at="text=Log in")
            await sign_in(at, "rita")
            await at.do("settle", url=f"{here}/review/")
            assert await at.do("text", at="h1") == "Calls"
            assert await at.do("text", at=".who") == "Reviewer rita"
            await at.do("click", at="text=Log out")
            assert await at.do("goto", url=f"{here}/review/") == 401
            await at.fresh()
            await at.do("goto", url=f"{here}/review/login")
            await sign_in(at, "mallory")
            await at.do("settle", url=f"{here}/review/callback?**")
            assert await at.do("text", at="h1") == "You may not look at the log"
            assert await at.do("goto", url=f"{here}/review/") == 401
            assert await at.heard("policy", "script", "dialog") == []
        finally:
            await anyio.to_thread.run_sync(served.end)


async def sign_in(at: Browser, name: str) -> None:
    """The provider's own pages for developers: any password will do."""
    await at.do("fill", at="input[name=login]", text=name)
    await at.do("fill", at="input[name=password]", text="any")
    await at.do("click", at="button[type=submit]")
    await at.do("click", at="button[type=submit]")
