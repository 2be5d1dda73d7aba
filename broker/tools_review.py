"""`[review]` of a tools.toml → a value of the catalog: who may look at the log in a browser."""

from urllib.parse import urlsplit

from broker.loopback import is_loopback
from broker.reviewers import ReviewerRule, ReviewSettings
from broker.toml_lines import KeyPath
from broker.tools_grammar import ReviewerRuleSection, ReviewSection
from broker.tools_parts import Parts
from broker.verify import ALGORITHMS

_NEEDS = {"client_secret_basic": "secret_file", "private_key_jwt": "key_file", "none": None}


class ReviewValues(Parts):
    """The one section of the pages."""

    def review(self, at: KeyPath, model: ReviewSection) -> ReviewSettings:
        self._url((*at, "issuer"), model.issuer, path=True)
        own = urlsplit(self._across.own_issuer())
        if own.scheme == "http" and not is_loopback(own.hostname or ""):
            problem = "is for a broker whose own `issuer` is https: a cookie is as good as a login"
            self._mistakes.note(at, problem)
        needed = _NEEDS[model.auth]
        for key in ("secret_file", "key_file"):
            given = key in model.model_fields_set
            if key == needed and not given and not self._mistakes.silent((*at, "auth")):
                self._mistakes.note((*at, key), f'is required with `auth = "{model.auth}"`')
            elif key != needed and given:
                self._mistakes.note((*at, key), f'means nothing with `auth = "{model.auth}"`')
        for position, name in enumerate(model.algorithms):
            if name not in ALGORITHMS:
                problem = f"{name!r} is not taken; known are {', '.join(ALGORITHMS)}"
                self._mistakes.note((*at, "algorithms", position), problem, (name, ALGORITHMS))
        if not model.algorithms:
            self._mistakes.note((*at, "algorithms"), "must name at least one")
        if not 300 <= model.session <= 24 * 3600:  # noqa: PLR2004 - five minutes
            self._mistakes.note((*at, "session"), "must be between 5m and 24h")
        words = [word for text in model.scope for word in text.split(" ")]
        return ReviewSettings(
            issuer=model.issuer,
            client_id=model.client_id,
            auth=model.auth,
            secret_file=self._file((*at, "secret_file"), model.secret_file),
            key_file=self._file((*at, "key_file"), model.key_file),
            scope=" ".join(dict.fromkeys(("openid", *words))),
            ca_file=self._file((*at, "ca_file"), model.ca_file),
            algorithms=tuple(model.algorithms),
            session_s=model.session,
            rules=tuple(
                self._rule((*at, "reviewers", place), rule) for place, rule in enumerate(model.reviewers)
            ),
        )

    def _rule(self, at: KeyPath, rule: ReviewerRuleSection) -> ReviewerRule:
        if rule.claims is None:
            for key in ("claim", "has"):
                if getattr(rule, key) is None:
                    self._mistakes.note((*at, key), "is required")
            asked = [(rule.claim or "", rule.has or "")]
        else:
            for key in ("claim", "has"):
                if getattr(rule, key) is not None:
                    self._mistakes.note((*at, key), "stands beside `claims`: put it in there")
            if not rule.claims:
                self._mistakes.note((*at, "claims"), "asks for nothing: everybody of that issuer could look")
            asked = list(rule.claims.items())
        return ReviewerRule(asked=tuple(asked), tenant=self._tenant(at, rule.tenant))
