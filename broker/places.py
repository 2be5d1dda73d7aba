"""Where a broker keeps its files: read from `[broker]` alone, so that a reviewer's command starts fast."""

import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import cast
from urllib.parse import urlsplit

from broker.errors import Usage

DEFAULT_STORE = "sqlite:broker.db"
DEFAULT_KEYS = ".broker/keys"


@dataclass(frozen=True, slots=True, kw_only=True)
class Places:
    """Absolute paths; relative ones in the file are relative to the folder that it lies in."""

    store: Path
    keys: Path
    issuer: str
    checkpoint_file: Path | None = None


def places(config: Path) -> Places:
    """Read `[broker]` of a tools.toml, without judging the rest of it.

    Raises:
        Usage: the file cannot be read, is not TOML, or `store` is of an unknown kind.
    """
    document = unjudged(config)
    found = document.get("broker")
    table = cast("dict[str, object]", found) if isinstance(found, dict) else {}
    elsewhere = table.get("checkpoint_file")
    return Places(
        store=store_path(str(table.get("store", DEFAULT_STORE)), config.parent),
        keys=(config.parent / str(table.get("keys", DEFAULT_KEYS))).absolute(),
        issuer=str(table.get("issuer", "")),
        checkpoint_file=None if elsewhere is None else (config.parent / str(elsewhere)).absolute(),
    )


def unjudged(config: Path) -> dict[str, object]:
    """What a tools.toml says, right or wrong: for what must work although somebody broke the file.

    Raises:
        Usage: it cannot be read, or is not TOML.
    """
    try:
        return tomllib.loads(config.read_text(encoding="utf-8"))
    except OSError as error:
        raise unreadable(config, error) from error
    except (ValueError, RecursionError) as error:
        raise Usage(f"{config} is not TOML: {error}") from error


def unreadable(config: Path, error: OSError) -> Usage:
    """Where a tools.toml was looked for, and what to do."""
    where = config.absolute()
    if isinstance(error, FileNotFoundError):
        return Usage(f"there is no {where}; go to where your tools.toml lies, or name it with --config FILE")
    return Usage(f"cannot read {where}: {error.strerror}")


def store_path(store: str, folder: Path) -> Path:
    """The path in `sqlite:PATH`. Raises Usage where it is another kind."""
    kind, _, path = store.partition(":")
    if kind != "sqlite" or not path:
        raise Usage(f'store {store!r} is not known; write "sqlite:PATH"')
    return (folder / path).absolute()


def witness_name(issuer: str) -> str:
    """The witness's name: the address at which it takes checkpoints, without its scheme (C2SP
    tlog-cosignature)."""
    return log_origin(issuer).removesuffix("/log") + "/witness"


def log_origin(issuer: str) -> str:
    """The log's name, before the store makes it unique: a URL without its scheme (C2SP tlog-checkpoint).

    As the name of a key it may have neither plus nor blank (C2SP signed-note).
    """
    parts = urlsplit(issuer)
    return f"{parts.netloc}{parts.path}/log".replace("+", "%2B").replace(" ", "%20")
