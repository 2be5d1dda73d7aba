"""Which key a reviewer holds the log against: the one that was written down, or the one in `keys`."""

import argparse

from broker.checkpoint import LogVerifier
from broker.errors import Usage
from broker.keys import log_public_key
from broker.places import places


def key_option(parser: argparse.ArgumentParser) -> None:
    """`--key`."""
    parser.add_argument(
        "--key",
        metavar="VKEY",
        help="the log's public key, as an earlier verify printed it (default: the one in `keys`)",
    )


def verifier(arguments: argparse.Namespace, origin: str) -> LogVerifier:
    """The key to verify with; the one in `keys` goes by the log's own name.

    Raises:
        Usage: it is none, or nothing names one. KeysUnsafe: the one in `keys` cannot be read.
    """
    if arguments.key is not None:
        return LogVerifier.parse(arguments.key)
    try:
        keys = places(arguments.config).keys
    except Usage as error:
        # Whoever was sent a copy of the log has no tools.toml, and needs none.
        raise Usage(f"{error.message}; or give the log's key with --key") from error
    return LogVerifier(name=origin, key=log_public_key(keys))
