"""Parts of a tools.toml that several tests share. What a test is about, it writes itself.

`{backend}` and `{hostile}` stand where the address comes that a server of the test listens on.
"""


def broker(more: str = "", *, issuer: str = "http://127.0.0.1:8700") -> str:
    """A broker whose files lie beside its tools.toml."""
    return f"""
[broker]
issuer = "{issuer}"
store  = "sqlite:broker.db"
keys   = "keys"
{more}
"""


def corp(more: str = "", *, issuer: str, audience: str, role: str) -> str:
    """An issuer whose keys lie in `corp.jwks`; its group `support` has the role."""
    return f"""
[issuers.corp]
issuer   = "{issuer}"
audience = "{audience}"
jwks     = "corp.jwks"
roles    = [{{ claim = "groups", has = "support", role = "{role}" }}]
{more}
"""


ORDERS = """
[backends.orders]
kind     = "http"
url      = "{backend}"
audience = "https://orders.example.com"
"""


def orders_get(properties: str, more: str = "") -> str:
    """The tool of most tests; `properties` are those of its arguments, and have an `order_id`."""
    return f"""
[tools.orders_get]
backend     = "orders"
action      = "orders:read"
request     = "GET /orders/{{order_id}}"
description = "Look up one order"
{more}
[tools.orders_get.input]
type       = "object"
required   = ["order_id"]
properties = {{ {properties} }}
"""


ORDERS_REFUND = """
[tools.orders_refund]
backend     = "orders"
action      = "orders:refund"
request     = "POST /orders/{order_id}/refunds"
description = "Refund one order"
[tools.orders_refund.input]
type     = "object"
required = ["order_id", "amount"]
[tools.orders_refund.input.properties]
order_id = { type = "string" }
amount   = { type = "integer" }
note     = { type = "string" }
"""

HOSTILE = """
[backends.hostile]
url      = "{hostile}"
audience = "https://hostile.example.com"
timeout  = "1s"

[tools.poke]
backend     = "hostile"
action      = "hostile:poke"
request     = "GET /poke/{how}"
description = "Whatever it does"
[tools.poke.input]
type       = "object"
required   = ["how"]
properties = { how = { type = "string" } }
"""
