"""`/review` on `broker serve`: the same pages, for those whom `[review]` lets in."""

import secrets
import time
from pathlib import Path
from urllib.parse import urlsplit

from broker.checkpoint import LogVerifier
from broker.server.app import Broker
from broker.server.review.asking import Asking
from broker.server.review.door import Place, ReviewDoor
from broker.server.review.looks import Looks
from broker.server.review.oidc import OidcLogin
from broker.server.review.provider import Provider
from broker.server.review.sessions import ReviewSessions
from broker.server.review.views import views

PATH = "/review"
SECRET_BYTES = 32


def review_door(broker: Broker) -> ReviewDoor:
    """The door, closed until the catalog has a `[review]`. With another one, everybody logs in again."""
    catalog = broker.live()
    parts = urlsplit(catalog.broker.issuer)
    origin, base = f"{parts.scheme}://{parts.netloc}", f"{parts.path}{PATH}"
    secure = parts.scheme == "https"

    def life_s() -> int:
        settings = broker.live().review
        return 0 if settings is None else settings.session_s

    sessions = ReviewSessions(
        life_s=life_s,
        monotonic=time.monotonic,
        new_secret=lambda: secrets.token_urlsafe(SECRET_BYTES),
    )
    last = catalog.review

    async def end_all_where_the_rules_changed() -> None:
        nonlocal last
        if broker.live().review != last:
            last = broker.live().review
            sessions.end_all()

    broker.live.afterwards(end_all_where_the_rules_changed)
    verifier = LogVerifier(name=broker.log.origin, key=broker.keys.log_key.public_key())
    return ReviewDoor(
        Place(
            base=base,
            mounted=PATH,
            hosts=frozenset({parts.netloc.lower()}),
            secure=secure,
            cookie="__Host-review" if secure else "review",
            title=broker.log.origin,
        ),
        views=views(key=lambda: verifier),
        login=OidcLogin(
            lambda: broker.live().review,
            provider=Provider(
                now_s=lambda: broker.now_ms() // 1000, new_jti=lambda: secrets.token_urlsafe(16)
            ),
            log=broker.log,
            now_ms=broker.now_ms,
            key=secrets.token_bytes(SECRET_BYTES),
            new_secret=lambda: secrets.token_urlsafe(SECRET_BYTES),
            base=base,
            origin=origin,
        ),
        sessions=sessions,
        asking=Asking(Path(catalog.broker.store)),
        looks=Looks(broker.log, now_ms=broker.now_ms),
        now_ms=broker.now_ms,
        life_s=life_s,
        configured=lambda: broker.live().review is not None,
    )
