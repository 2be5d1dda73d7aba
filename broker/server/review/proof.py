"""The proof of a call, as a file for somebody who has no access to the log."""

from broker.checkpoint import LogVerifier, open_note
from broker.errors import Usage
from broker.server.review.files import Proof
from broker.server.review.one_call import events_of
from broker.server.review.seen import Seen
from broker.store import history, tree
from broker.tlog_proof import join

_MOST = 64
"""Records of one call: those of a replay that somebody repeats are without end."""


def file(seen: Seen, key: LogVerifier | None) -> Proof:
    """The proof of each record of a call, under the newest checkpoint that lies beside the log.

    Raises:
        Usage: none covers all of them, or the log's key is not known here. LogTampered: the checkpoint is not
            signed by it, or the records are not what it signed.
    """
    events = events_of(seen, seen.path)[:_MOST]
    note = history.newest_checkpoint(seen.connection)
    if key is None:
        raise Usage(
            "the log's key is not known here, and so no checkpoint can be verified: give it with --key"
        )
    checkpoint = None if note is None else open_note(note, key)
    if note is None or checkpoint is None or checkpoint.size <= max(event.index for event in events):
        raise Usage("no checkpoint covers this call yet; the broker signs one every `checkpoint_every`")
    proofs = [tree.prove(seen.connection, event.index, checkpoint, note) for event in events]
    kept = (character for character in seen.path[:64] if character.isascii() and character.isalnum())
    return Proof(name=f"call-{''.join(kept)}", text=join(proofs))
