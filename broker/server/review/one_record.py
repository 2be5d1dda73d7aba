"""One record, as it was hashed, and whether it still hashes to its leaf."""

from broker.merkle import leaf_hash
from broker.server.review.filters import index as index_of
from broker.server.review.frame import Page
from broker.server.review.html import element, said
from broker.server.review.one_call import events_of, pretty
from broker.server.review.seen import Missing, Seen
from broker.store import history


def show(seen: Seen) -> Page:
    """The record whose index stands in the address."""
    place = index_of({"record": seen.path}, "record")
    body = None if place is None else history.record(seen.connection, place)
    if body is None or place is None:
        raise Missing
    txn = body.get("txn")
    of_call = isinstance(txn, str) and bool(txn)
    if not seen.may_show(body):
        # What ends or spends a call says no tenant: the record that began it does.
        if not of_call or "tenant" in body:
            raise Missing
        events_of(seen, str(txn))
    leaf, text = seen.connection.execute("SELECT leaf, body FROM record WHERE idx = ?", (place,)).fetchone()
    whole = leaf_hash(str(text).encode(errors="surrogatepass")) == leaf
    verdict = (
        element("p", "✓ It hashes to its leaf. That the leaf is in the tree, a proof says.", class_="good")
        if whole
        else element("p", "✕ This is not what was written: it does not hash to its leaf.", class_="wrong")
    )
    call = element("p", seen.link(f"Its call, {txn}", seen.of_call(str(txn)))) if of_call else None
    leaf_line = element("p", "Leaf ", element("code", said(bytes(leaf).hex())))
    shown = element("div", verdict, call, pretty(body), leaf_line)
    return Page(title=f"Record {place}", body=shown, place="record")
