"""Templates, and the one request that arguments make: nothing in an argument reaches beyond its place."""

import json
from dataclasses import replace
from typing import cast
from urllib.parse import parse_qsl, quote, unquote, urlsplit

import pytest
from hypothesis import assume, example, given, strategies as st

from broker.canonical import Json, canonical_json, digest
from broker.errors import Code, Rejected
from broker.request import (
    EMPTY_BODY_SHA256,
    MAX_SEGMENT,
    MAX_URL,
    PlannedRequest,
    RequestTemplate,
    TemplateMistake,
)

URL = "https://orders.internal:8443/v1"
AUDIENCE = "https://orders.example.com"


def plan(template: str, arguments: dict[str, Json]) -> PlannedRequest:
    return RequestTemplate.parse(template).plan(
        url=URL, audience=AUDIENCE, headers=(("x-env", "test"),), arguments=arguments
    )


def refusal(template: str, arguments: dict[str, Json]) -> Rejected:
    with pytest.raises(Rejected) as caught:
        plan(template, arguments)
    assert caught.value.code == Code.ARGUMENTS_UNSAFE
    return caught.value


# ── Templates ───────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("text", "fields"),
    [
        ("GET /", ()),
        ("GET /orders/", ()),
        ("HEAD /orders/{id}", ("id",)),
        ("POST /orders/{order_id}/refunds/{_n1}", ("order_id", "_n1")),
        ("DELETE /v1/{name}:cancel", ("name",)),
        ("PUT /files/report.{kind}", ("kind",)),
        ("PATCH /Products(ID={id})", ("id",)),
    ],
)
def test_a_template_names_its_fields(text: str, fields: tuple[str, ...]) -> None:
    template = RequestTemplate.parse(text)
    assert template.fields == fields
    assert f"{template.method} {'{}'.join(template.parts[::2])}" == template.shape
    assert "GET " + template.shape.partition(" ")[2] == replace(template, method="GET").shape


@pytest.mark.parametrize(
    ("text", "says"),
    [
        pytest.param("", "METHOD /path", id="empty"),
        pytest.param("/orders", "METHOD /path", id="no method"),
        pytest.param("GET", "METHOD /path", id="no path"),
        pytest.param("get /orders", "METHOD /path", id="lower case"),
        pytest.param("GET  /orders", "METHOD /path", id="two spaces"),
        pytest.param("GET orders", "METHOD /path", id="relative"),
        pytest.param("GET https://evil.example/", "METHOD /path", id="another origin"),
        pytest.param("GET /orders HTTP/1.1", "METHOD /path", id="a request line"),
        pytest.param("GET /orders\n", "METHOD /path", id="line feed"),
        pytest.param("GET /a\r\nX-Evil: 1", "METHOD /path", id="a header"),
        pytest.param("CONNECT /orders", "method CONNECT", id="CONNECT"),
        pytest.param("TRACE /orders", "method TRACE", id="TRACE"),
        pytest.param("OPTIONS /", "method OPTIONS", id="OPTIONS"),
        pytest.param("GET /orders?id={id}", "no query", id="query"),
        pytest.param("GET /orders#top", "no query", id="fragment"),
        pytest.param("GET /orders/{}", "name in braces", id="no name"),
        pytest.param("GET /orders/{id", "name in braces", id="open brace"),
        pytest.param("GET /orders/id}", "name in braces", id="close brace"),
        pytest.param("GET /orders/{a-b}", "name in braces", id="hyphen in the name"),
        pytest.param("GET /orders/{1a}", "name in braces", id="digit first"),
        pytest.param("GET /orders/{ä}", "name in braces", id="name not ASCII"),
        pytest.param("GET /orders/{{id}}", "name in braces", id="two braces"),
        pytest.param("GET /orders/{+path}", "name in braces", id="RFC 6570 expansion"),
        pytest.param("GET //evil.example/a", "empty segment", id="another host"),
        pytest.param("GET //", "empty segment", id="two slashes"),
        pytest.param("GET /a//b", "empty segment", id="empty in the middle"),
        pytest.param("GET /a//", "empty segment", id="empty at the end"),
        pytest.param("GET /a/../b", "`..`", id="dots"),
        pytest.param("GET /./a", "`..`", id="dot"),
        pytest.param("GET /a/..", "`..`", id="dots last"),
        pytest.param("GET /a%2fb", "percent-encoded", id="percent"),
        pytest.param("GET /a\\b", "percent-encoded", id="backslash"),
        pytest.param('GET /a"b', "percent-encoded", id="quote"),
        pytest.param("GET /bücher", "percent-encoded", id="not ASCII"),
        pytest.param("GET /{a}{b}", "which is which", id="side by side"),
        pytest.param("GET /{a}.{b}", "which is which", id="a dot between"),
        pytest.param("GET /x/{lat},{lon}", "which is which", id="a comma between"),
        pytest.param("GET /{a}/{a}", "twice", id="twice"),
    ],
)
def test_a_template_that_could_be_misread_is_refused(text: str, says: str) -> None:
    with pytest.raises(TemplateMistake, match=says):
        RequestTemplate.parse(text)


# ── Path ────────────────────────────────────────────────────────────────────

HOSTILE: list[tuple[str, Json]] = [
    ("parent", ".."),
    ("itself", "."),
    ("parent and more", "../admin"),
    ("inner parent", "a/../b"),
    ("encoded parent", "%2e%2e"),
    ("encoded slash", "..%2f"),
    ("encoded capital", "%2E%2E%2Fadmin"),
    ("encoded twice", "%252e%252e%252f"),
    ("encoded in parts", "%%32%65"),
    ("encoded half", "%2%65"),
    ("encoded letter", "%61dmin"),
    ("overlong dots", "%c0%ae%c0%ae"),
    ("overlong slash", "%c0%af"),
    ("UTF-16 escape", "%u002e%u002e%u2215"),
    ("encoded NUL", "a%00b"),
    ("encoded CR LF", "a%0d%0aX-Evil:%201"),
    ("authority", "//evil.example"),
    ("slash", "/"),
    ("backslash", "..\\admin"),
    ("query", "42?x=1"),
    ("fragment", "42#"),
    ("matrix parameter", "42;admin=true"),
    ("Tomcat's parent", "..;"),
    ("header", "a\r\nX-Evil: 1"),
    ("line feed", "a\n"),
    ("tab", "a\tb"),
    ("NUL", "a\x00b"),
    ("DEL", "a\x7f"),
    ("full-width dots", "．．"),
    ("full-width dot", "．"),
    ("two dot leader", "‥"),
    ("small dots", "﹒﹒"),
    ("full-width slash", "a／b"),
    ("full-width backslash", "a＼b"),
    ("care of", "℅"),
    ("one dot leader", "\u2024\u2024"),
    ("one dot leader and a dot", "\u2024."),
    ("presentation form of two dots", "\ufe30"),
    ("ellipsis", "…"),
    ("account of", "a℀b"),
    ("small backslash", "a\ufe68b"),
    ("full-width query", "42？x=1"),
    ("full-width fragment", "42＃"),
    ("full-width semicolon", "42；admin"),
    ("Greek question mark", "42\u037eadmin"),
    ("full-width percent", "％2e％2e"),
    ("full-width digits behind a percent", "%２ｅ"),
    ("three dots", "..."),
    ("a blank", " "),
    ("blanks", "  \u00a0"),
    ("a dot and a blank", ". "),
    ("parent and a blank", ".. "),
    ("a blank and parent", " .."),
    ("parent, a blank between", ". ."),
    ("parent, a no-break space behind", "..\u00a0"),
    ("parent, a joiner between", ".\u200d."),
    ("parent, a mark of the byte order before", "\ufeff.."),
    ("parent, a soft hyphen between", ".\u00ad."),
    ("nothing to see", "\u200b"),
    ("lone surrogate", "a\ud800"),
    ("empty", ""),
    ("too long", "x" * (MAX_SEGMENT + 1)),
    ("true", True),
    ("false", False),
    ("float", 1.5),
    ("whole float", 1.0),
    ("list", ["a"]),
    ("object", {"a": "b"}),
    ("null", None),
]


@pytest.mark.parametrize("value", [value for _, value in HOSTILE], ids=[name for name, _ in HOSTILE])
@pytest.mark.parametrize("template", ["GET /orders/{id}", "POST /orders/{id}/refunds", "PUT /x/v{id}.txt"])
def test_a_value_that_could_leave_its_segment_is_refused(template: str, value: Json) -> None:
    refused = refusal(template, {"id": value})
    assert "`id`" in refused.message
    # The value is the agent's, and may be a secret that it was tricked into sending.
    for secret in ("admin", "evil"):
        assert secret not in refused.message


@pytest.mark.parametrize("value", [2**53, -(2**53), 10**5000], ids=["2^53", "-2^53", "beyond str()"])
def test_an_integer_that_a_double_cannot_hold_is_refused_in_a_path(value: int) -> None:
    refusal("GET /orders/{id}", {"id": value})


def test_a_missing_field_is_refused() -> None:
    refusal("GET /orders/{id}", {})


@pytest.mark.parametrize(
    ("value", "sent"),
    [
        pytest.param("42", "42", id="digits"),
        pytest.param(42, "42", id="integer"),
        pytest.param(-7, "-7", id="negative"),
        pytest.param(2**53 - 1, "9007199254740991", id="the largest"),
        pytest.param("a b", "a%20b", id="space"),
        pytest.param("a+b", "a%2Bb", id="plus"),
        pytest.param("...a", "...a", id="three dots and a letter"),
        pytest.param(".hidden", ".hidden", id="a dot in front"),
        pytest.param("@evil.example", "%40evil.example", id="user info"),
        pytest.param("evil.example:80", "evil.example%3A80", id="a port"),
        pytest.param("100%", "100%25", id="percent"),
        pytest.param("5%zz", "5%25zz", id="percent and no digits"),
        pytest.param("a=b&c=d", "a%3Db%26c%3Dd", id="pairs"),
        pytest.param("{id}", "%7Bid%7D", id="braces"),
        pytest.param("[::1]", "%5B%3A%3A1%5D", id="brackets"),
        pytest.param("0177.1", "0177.1", id="an odd address"),
        pytest.param("ü", "%C3%BC", id="composed"),
        pytest.param("u\u0308", "u%CC%88", id="decomposed stays so"),
        pytest.param("注文", "%E6%B3%A8%E6%96%87", id="not Latin"),
        pytest.param("%", "%25", id="a percent alone"),
        pytest.param("a.", "a.", id="a dot behind"),
        pytest.param("½", "%C2%BD", id="a half"),
        pytest.param("\u2215", "%E2%88%95", id="a division's slash"),
        pytest.param("\u0130", "%C4%B0", id="a dotted capital"),
        pytest.param("⁄", "%E2%81%84", id="a fraction's slash"),
        pytest.param("a\u202eb", "a%E2%80%AEb", id="right to left"),
        pytest.param("x" * MAX_SEGMENT, "x" * MAX_SEGMENT, id="as long as may be"),
    ],
)
def test_any_other_value_is_one_encoded_segment(value: Json, sent: str) -> None:
    request = plan("GET /orders/{id}/items", {"id": value})
    assert request.url == f"{URL}/orders/{sent}/items"
    assert request.binding.location == f"{AUDIENCE}/orders/{sent}/items"


texts = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=40)
odd_texts = st.lists(
    st.sampled_from([*"%.25eEfF/\\?#;&=@:+ uU0\x00\n．／ü", "%2e", "..", "%25"]), min_size=1, max_size=8
).map("".join)


@given(texts | odd_texts)
@example("..;a")
def test_the_url_differs_from_its_template_inside_one_segment_only(value: str) -> None:
    try:
        request = plan("GET /orders/{id}/items", {"id": value})
    except Rejected:
        return
    sent, declared = urlsplit(request.url), urlsplit(f"{URL}/orders/x/items")
    assert (sent.scheme, sent.netloc, sent.hostname, sent.port) == (
        declared.scheme,
        declared.netloc,
        declared.hostname,
        declared.port,
    )
    assert (sent.query, sent.fragment) == ("", "")
    assert "?" not in request.url
    assert "#" not in request.url
    segments = sent.path.split("/")
    assert (segments[:3], segments[4:]) == (["", "v1", "orders"], ["items"])
    # Decoding gives the value back, and decoding again changes nothing: nobody behind sees another one.
    assert unquote(segments[3]) == value
    assert unquote(value) == value
    assert value not in {".", ".."}
    assert request.binding.location == request.url.replace(URL, AUDIENCE)


# ── Query ───────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("arguments", "query"),
    [
        pytest.param({}, "", id="nothing"),
        pytest.param({"b": "2", "a": "1"}, "?a=1&b=2", id="sorted"),
        pytest.param(
            {"q": "a b+c&d=e;f/g?h#i"}, "?q=a%20b%2Bc%26d%3De%3Bf%2Fg%3Fh%23i", id="what means something"
        ),
        pytest.param({"q": "%2e\r\nX: 1\x00"}, "?q=%252e%0D%0AX%3A%201%00", id="control characters"),
        pytest.param({"q": ""}, "?q=", id="an empty text"),
        pytest.param({"q": True, "r": False}, "?q=true&r=false", id="booleans as JSON"),
        pytest.param({"n": 1.0, "m": 1e21, "o": -0.5}, "?m=1e%2B21&n=1&o=-0.5", id="numbers as RFC 8785"),
        pytest.param({"tag": ["b", "a", "b"]}, "?tag=b&tag=a&tag=b", id="a list, in its order"),
        pytest.param({"a&b=c": "1"}, "?a%26b%3Dc=1", id="a name that means something"),
        pytest.param({"ü": "ü"}, "?%C3%BC=%C3%BC", id="not ASCII"),
    ],
)
@pytest.mark.parametrize("method", ["GET", "HEAD", "DELETE"])
def test_what_is_not_in_the_path_is_the_query(method: str, arguments: dict[str, Json], query: str) -> None:
    request = plan(f"{method} /orders/{{id}}", {"id": "42", **arguments})
    assert request.url == f"{URL}/orders/42{query}"
    assert request.body == b""
    assert request.headers == (("x-env", "test"),)
    assert (request.binding.method, request.binding.location, request.binding.body_sha256) == (
        method,
        f"{AUDIENCE}/orders/42{query}",
        EMPTY_BODY_SHA256,
    )


@pytest.mark.parametrize(
    "value",
    [
        pytest.param({"a": 1}, id="an object"),
        pytest.param([["a"]], id="a list in a list"),
        pytest.param([{"a": 1}], id="an object in a list"),
        pytest.param(None, id="null"),
        pytest.param([], id="an empty list"),
        pytest.param(["a", None], id="null in a list"),
        pytest.param("\udfff", id="lone surrogate"),
        pytest.param(2**53, id="beyond a double"),
        pytest.param(float("nan"), id="not a number"),
        pytest.param("x" * MAX_URL, id="too long"),
    ],
)
def test_what_a_query_cannot_say_is_refused(value: Json) -> None:
    refusal("GET /orders", {"q": value})


def test_a_refusal_shows_a_hostile_name_on_one_line() -> None:
    refused = refusal("GET /orders", {"a\x1b[2J\n\ud800": "x"})
    assert r"`a\x1b[2J\n\ud800`" in refused.message


def test_a_url_may_be_as_long_as_the_bound_and_no_longer() -> None:
    room = MAX_URL - len("/orders?q=")
    assert len(plan("GET /orders", {"q": "x" * room}).binding.location) == len(AUDIENCE) + MAX_URL
    refusal("GET /orders", {"q": "x" * (room + 1)})


# ── Body ────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("method", ["POST", "PUT", "PATCH"])
def test_what_is_not_in_the_path_is_the_canonical_body(method: str) -> None:
    rest: dict[str, Json] = {"z": None, "a": [1.0, {"ü": True}], "id2": "../x?y"}
    request = plan(f"{method} /orders/{{id}}", {"id": "42", **rest})
    assert request.url == f"{URL}/orders/42"
    assert request.body == '{"a":[1,{"ü":true}],"id2":"../x?y","z":null}'.encode()
    assert request.headers == (("x-env", "test"), ("content-type", "application/json"))
    assert request.binding.body_sha256 == digest(request.body)


def test_a_body_without_arguments_is_an_empty_object() -> None:
    assert plan("POST /orders/{id}", {"id": "42"}).body == b"{}"


@pytest.mark.parametrize("value", [2**53, float("inf"), "\ud800", {"\udfff": 1}], ids=repr)
def test_what_json_cannot_say_alike_everywhere_is_refused(value: Json) -> None:
    refusal("POST /orders", {"q": value})


json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53) + 1, 2**53 - 1) | texts,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3),
    max_leaves=8,
)


@given(st.dictionaries(texts, json_values, max_size=4))
def test_the_body_is_canonical_and_reads_back(arguments: dict[str, Json]) -> None:
    body = plan("POST /orders", arguments).body
    assert json.loads(body) == arguments
    assert canonical_json(cast("Json", json.loads(body))) == body


# ── Both ────────────────────────────────────────────────────────────────────


def typed(kinds: dict[str, st.SearchStrategy[Json]]) -> st.SearchStrategy[dict[str, Json]]:
    """Arguments, some of which may be absent, each of one type: as an input schema has them."""
    return st.fixed_dictionaries({}, optional=kinds)


short = st.text(st.sampled_from([*"ab1&=+%,;?#/.[]é "]), max_size=4)
queries = typed(
    {
        "a": short,
        "b": st.integers(-99, 99),
        "a=b": short,
        "c": st.booleans(),
        "d": st.lists(short, min_size=1, max_size=3).map(lambda members: cast("Json", members)),
        "": short,
        "é": short,
    }
)


@given(queries, queries, short, short)
def test_other_arguments_make_another_request(
    one: dict[str, Json], two: dict[str, Json], first: str, second: str
) -> None:
    one, two = {**one, "id": first}, {**two, "id": second}
    assume(one != two)
    for template in ("GET /orders/{id}/items", "DELETE /orders/v{id}", "POST /orders/{id}"):
        try:
            left, right = plan(template, one), plan(template, two)
        except Rejected:
            continue
        assert left.binding != right.binding
        assert (left.url, left.body) != (right.url, right.body)


@given(json_values, json_values)
def test_other_bodies_have_another_digest(one: Json, two: Json) -> None:
    assume(json.dumps(one, sort_keys=True) != json.dumps(two, sort_keys=True))
    left, right = plan("POST /orders", {"q": one}), plan("POST /orders", {"q": two})
    assert left.binding.body_sha256 != right.binding.body_sha256


@given(queries)
def test_the_query_reads_back_as_what_was_asked(arguments: dict[str, Json]) -> None:
    request = plan("GET /orders", arguments)
    expected = [
        (name, each if isinstance(each, str) else canonical_json(each).decode())
        for name in sorted(arguments)
        for value in [arguments[name]]
        for each in (value if isinstance(value, list) else [value])
    ]
    query = urlsplit(request.url).query
    assert parse_qsl(query, keep_blank_values=True, strict_parsing=bool(query)) == expected
    assert query == "&".join(f"{quote(name, safe='')}={quote(text, safe='')}" for name, text in expected)


@pytest.mark.parametrize("url", ["https://h", "https://h/"])
@pytest.mark.parametrize("audience", ["https://a.example", "https://a.example/"])
def test_a_slash_at_the_end_of_the_declared_urls_makes_no_second_one(url: str, audience: str) -> None:
    template = RequestTemplate.parse("GET /orders")
    request = template.plan(url=url, audience=audience, headers=(), arguments={})
    assert (request.url, request.binding.location) == ("https://h/orders", "https://a.example/orders")
