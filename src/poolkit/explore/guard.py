"""Who may ask the explorer's server what: checks in front of every route, and the headers of every answer.

A page of another site in the same browser can send requests to this machine. So each request must name this server as
its host, exactly, and bring the cookie that only the address printed at the start gives; what computes must come from
the page itself. Nothing here depends on a route: a new one is behind the same checks.
"""

from __future__ import annotations

import asyncio
import hmac
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

#: Bytes of a request's body: a picture of 32×32 numbers has 20,000.
LARGEST_BODY = 100_000
#: Fields of a request's head, and bytes of their names and values: a browser sends 20 fields of 1,000 bytes.
MOST_FIELDS, LARGEST_HEAD = 64, 16_000
_SECONDS = 10.0
_METHODS = ("GET", "POST")

HEADERS = {
    "content-security-policy": "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; "
    "img-src 'self' blob: data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
    "referrer-policy": "no-referrer",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "cache-control": "no-store",
}


@dataclass(frozen=True)
class Door:
    """Which requests are let in.

    Attributes:
        hosts: the names and addresses with ports that a request may give as its host.
        key: the secret of this start, which the printed address carries once and a cookie afterwards.
        cookie: the cookie's name.
    """

    hosts: frozenset[str]
    key: str
    cookie: str

    def is_key(self, given: str) -> bool:
        """Whether this is the secret, in a time that does not tell how much of it was right."""
        return hmac.compare_digest(given.encode("utf-8", "replace"), self.key.encode())

    def refusal(self, method: str, query: dict[str, str], headers: dict[str, list[str]]) -> tuple[int, str] | None:
        """The status and the reason for which a request is refused; None: it is let in."""
        if len(headers.get("host", ())) != 1 or headers["host"][0] not in self.hosts:
            return 421, "this server answers to the address that it printed, and to no other name"
        if method not in _METHODS:
            return 405, "only GET and POST"
        if not (self.is_key(query.get("key", "")) and method == "GET") and not self._has_cookie(headers):
            return 403, "open the address that poolkit explore printed when it started: it carries this start's key"
        if method == "POST":
            return self._refused_post(headers)
        return None

    def _has_cookie(self, headers: dict[str, list[str]]) -> bool:
        pairs = (part.strip().partition("=") for line in headers.get("cookie", ()) for part in line.split(";"))
        return any(name == self.cookie and self.is_key(value) for name, _, value in pairs)

    def _refused_post(self, headers: dict[str, list[str]]) -> tuple[int, str] | None:
        """What computes is asked for by the page itself, in JSON, which no form of another site can send."""
        origins = headers.get("origin", [])
        if len(origins) != 1 or origins[0] not in {f"http://{host}" for host in self.hosts}:
            return 403, "only the explorer's own page may ask"
        if headers.get("content-type", [""])[0].partition(";")[0].strip().lower() != "application/json":
            return 415, "a view is sent as application/json"
        if any(not n.isdecimal() or int(n) > LARGEST_BODY for n in headers.get("content-length", ())):
            return 413, f"at most {LARGEST_BODY} bytes"
        return None


Receive = Callable[[], Awaitable[Any]]
Send = Callable[[Any], Awaitable[None]]


class Guard:
    """The checks of a `Door` around a whole ASGI application, and its headers on every answer."""

    def __init__(self, app: Any, door: Door) -> None:
        self.app, self.door = app, door

    async def __call__(self, scope: Any, receive: Receive, send: Send) -> None:
        """Answer one request; what is no request of HTTP, such as a web socket, has no answer."""
        if scope["type"] == "lifespan":
            return await self.app(scope, receive, send)
        if scope["type"] != "http":
            return None
        fields = scope["headers"]
        if len(fields) > MOST_FIELDS or sum(len(name) + len(value) for name, value in fields) > LARGEST_HEAD:
            return await _say(send, 431, f"at most {MOST_FIELDS} header fields of {LARGEST_HEAD} bytes")
        headers: dict[str, list[str]] = {}
        for name, value in fields:
            headers.setdefault(name.decode("latin-1").lower(), []).append(value.decode("latin-1"))
        query = _query(scope["query_string"])
        refused = self.door.refusal(scope["method"], query, headers)
        if refused:
            return await _say(send, *refused)
        try:
            body = await asyncio.wait_for(_body(receive), _SECONDS)
        except asyncio.TimeoutError:
            body = None
        if body is None:
            return await _say(send, 413, f"at most {LARGEST_BODY} bytes, within {_SECONDS:.0f} seconds")
        # The address that was printed hands out the cookie; the page takes the key out of the address bar.
        cookie = f"{self.door.cookie}={self.door.key}; Path=/; HttpOnly; SameSite=Strict" if query.get("key") else ""
        return await self.app(scope, _once(body), _with_headers(send, cookie))


def _query(text: bytes) -> dict[str, str]:
    pairs = (part.partition("=") for part in text[:1000].decode("latin-1").split("&"))
    return {name: value for name, _, value in pairs}


async def _body(receive: Receive) -> bytes | None:
    """A request's body; None: it is too long, or its sender went away."""
    body = b""
    while len(body) <= LARGEST_BODY:
        message = await receive()
        if message["type"] != "http.request":
            return None
        body += message.get("body", b"")
        if not message.get("more_body"):
            return body if len(body) <= LARGEST_BODY else None
    return None


def _once(body: bytes) -> Receive:
    async def receive() -> Any:
        return {"type": "http.request", "body": body, "more_body": False}

    return receive


def _with_headers(send: Send, cookie: str = "") -> Send:
    async def sent(message: Any) -> None:
        if message["type"] == "http.response.start":
            own = [(name.encode(), value.encode()) for name, value in HEADERS.items()]
            own += [(b"set-cookie", cookie.encode())] if cookie else []
            message = {**message, "headers": [*message.get("headers", []), *own]}
        await send(message)

    return sent


async def _say(send: Send, status: int, words: str) -> None:
    """A short answer in plain text."""
    body = words.encode()
    headers = [(b"content-type", b"text/plain; charset=utf-8"), (b"content-length", str(len(body)).encode())]
    send = _with_headers(send)
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
