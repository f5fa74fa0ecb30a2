"""The explorer's server: nobody but its own page may ask, and nothing stops it."""

import asyncio
import json
import os
import socket
import threading
import time
from contextlib import contextmanager, suppress

import pytest

from conftest import PATIENCE

pytest.importorskip("torch")
pytest.importorskip("starlette")
pytest.importorskip("uvicorn")

from poolkit.explore import connection, guard, server  # noqa: E402
from poolkit.explore.guard import HEADERS, LARGEST_BODY, Door, Guard  # noqa: E402
from poolkit.explore.worker import Worker  # noqa: E402
from views import ask  # noqa: E402

AT = Door(frozenset({"127.0.0.1:8000", "localhost:8000"}), "the-key", "poolkit-8000")
GOOD = {"host": "127.0.0.1:8000", "cookie": "poolkit-8000=the-key"}
POST = {**GOOD, "origin": "http://127.0.0.1:8000", "content-type": "application/json"}
ROUTES = [("GET", path) for path in (*server._FILES, "/start")] + [("POST", "/scene")]


def call(app, method, path, headers, body=b"{}", query=b""):
    """One request of an ASGI application: status, headers, body."""
    sent, waiting = [], [{"type": "http.request", "body": body, "more_body": False}]
    pairs = [(n.encode(), v.encode()) for n, vs in headers.items() for v in ([vs] if isinstance(vs, str) else vs)]
    scope = {"type": "http", "asgi": {"version": "3.0"}, "http_version": "1.1", "method": method, "path": path}
    scope |= {"raw_path": path.encode(), "query_string": query, "headers": pairs, "scheme": "http", "root_path": ""}

    async def receive():
        return waiting.pop(0) if waiting else {"type": "http.disconnect"}

    async def send(message):
        sent.append(message)

    asyncio.run(app({**scope, "client": ("127.0.0.1", 5), "server": ("127.0.0.1", 8000)}, receive, send))
    assert sent, "no answer"
    found = {n.decode(): v.decode() for n, v in sent[0]["headers"]}
    return sent[0]["status"], found, b"".join(m.get("body", b"") for m in sent[1:])


@pytest.fixture(scope="module")
def app():
    return server.application(AT)


def test_every_route_is_behind_the_checks(app):
    routes = [(m, r.path) for r in app.app.routes for m in r.methods - {"HEAD"}]
    assert sorted(routes) == sorted(ROUTES), "a route that this test does not know"
    bad_hosts = [
        (), "evil.example", "127.0.0.1", "127.0.0.1:8001", "localhost:8000.", "LOCALHOST:8000", "[::1]:8000",
        "localhost:8000@evil.example", ("127.0.0.1:8000", "evil.example"),
    ]  # fmt: skip
    for method, path in ROUTES:
        usual = POST if method == "POST" else GOOD
        assert call(app, method, path, usual, b'{"cells":[[1,2],[3,4]]}')[0] == 200, path
        wrong = [{**usual, "host": host} for host in bad_hosts]
        wrong += [
            {**usual, "cookie": cookie} for cookie in ((), "poolkit-8000=", "poolkit-8000=the-kez", "other=the-key")
        ]
        wrong += [{**usual, "x-forwarded-host": "127.0.0.1:8000", "host": "evil.example"}]
        if method == "POST":
            origins = ((), "null", "http://evil.example", "https://127.0.0.1:8000", "http://127.0.0.1:8001")
            wrong += [{**usual, "origin": origin} for origin in origins]
            wrong += [{**usual, "content-type": kind} for kind in ((), "text/plain", "multipart/form-data")]
        for headers in wrong:
            status, found, body = call(app, method, path, headers)
            assert 400 <= status < 500 and b"class" not in body and "set-cookie" not in found, (path, headers)
        for other in {"GET", "POST", "PUT", "DELETE", "OPTIONS", "TRACE", "CONNECT", "HEAD"} - {method}:
            assert 400 <= call(app, other, path, POST)[0] < 500, (path, other)


def test_every_answer_has_the_headers_that_keep_the_page_to_itself(app):
    answers = [call(app, method, path, POST) for method, path in ROUTES] + [
        call(app, "GET", "/", {}), call(app, "GET", "/no-such", GOOD), call(app, "POST", "/scene", POST, b"{"),
    ]  # fmt: skip
    for _, headers, _ in answers:
        assert headers.items() >= HEADERS.items() and not any(name.startswith("access-control") for name in headers)
    assert (
        "'unsafe" not in HEADERS["content-security-policy"]
        and "default-src 'none'" in HEADERS["content-security-policy"]
    )


def test_a_route_that_is_added_is_behind_the_checks_too():
    async def careless(scope, receive, send):
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"secret"})

    assert call(Guard(careless, AT), "GET", "/new", GOOD)[2] == b"secret"
    assert call(Guard(careless, AT), "GET", "/new", {**GOOD, "host": "evil.example"})[0] == 421
    assert call(Guard(careless, AT), "POST", "/new", GOOD)[0] == 403


class Net:
    """In the place of a trained one."""

    def about(self):
        return {"classes": ["cat"]}

    def look(self, values):
        return {"now": [1.0], "asked": values}


def test_the_net_is_behind_the_checks():
    app = server.application(AT, Net())
    assert json.loads(call(app, "GET", "/start", GOOD)[2])["net"] == {"classes": ["cat"]}
    assert json.loads(call(app, "POST", "/net", POST, b'{"shown": 1}')[2]) == {"now": [1.0], "asked": {"shown": 1}}
    assert call(app, "POST", "/net", {**POST, "origin": "null"})[0] == 403
    assert call(server.application(AT), "POST", "/net", POST)[0] == 404


def test_the_printed_address_alone_gives_the_cookie(app):
    status, headers, _ = call(app, "GET", "/", {"host": GOOD["host"]}, query=b"key=the-key")
    cookie = headers["set-cookie"]
    assert (
        status == 200
        and cookie.startswith("poolkit-8000=the-key;")
        and "HttpOnly" in cookie
        and "SameSite=Strict" in cookie
    )
    for query in (b"key=the-kez", b"key=", b"key", b"KEY=the-key", b"key=the-key%00", b"x" * 100_000):
        status, headers, _ = call(app, "GET", "/", {"host": GOOD["host"]}, query=query)
        assert status == 403 and "set-cookie" not in headers, query
    assert call(app, "POST", "/scene", {**POST, "cookie": ()}, query=b"key=the-key")[0] == 403
    assert server.door("127.0.0.1", 1).key != server.door("127.0.0.1", 1).key and len(AT.key) < len(
        server.door("h", 1).key
    )


HOSTILE = [
    b"", b"{", b"[]", b"null", b"1e999", b"NaN", b'{"cells":NaN}', b'{"cells":[[NaN]]}', b'{"cells":[[Infinity]]}',
    b"[" * 50_000, b'{"cells":' * 10_000, b"\xff\xfe", b'{"__class__":1}', b'{"cells":{"0":1}}', b'{"cells":[[1e400]]}',
    b'{"cells":[[' + b"9" * 5000 + b"]]}", b'{"cells":[[1]],"method":"../../etc/passwd"}', b'{"cells":1,"method":""}',
    b'{"cells":[[1]],"method":"soft:beta=1e999"}', b'{"cells":[[1]],"method":"<script>alert(1)</script>"}',
    b'{"cells":[[1]],"method":"max\\u0000"}', b'{"cells":[[1]],"method":{}}', b'{"cells":[[1]],"kernel_size":[1,1,1]}',
    b'{"cells":[[1]],"kernel_size":true}', b'{"cells":[[1]],"stride":-1}', b'{"cells":[[1]],"dilation":[0,0]}',
    b'{"cells":[[1]],"cell":[true,0]}', b'{"cells":[[1]],"seed":99999999999999999999}', b'{"cells":[[1]],"map":"a"}',
    b'{"method":"\\ud800"}', b'{"\\ud800":1}',
]  # fmt: skip


@pytest.mark.parametrize("body", HOSTILE, ids=range(len(HOSTILE)))
def test_what_no_page_would_send_is_an_error_in_words(app, body):
    status, headers, answer = call(app, "POST", "/scene", POST, body)
    assert status == 400 and headers["content-type"] == "application/json"
    said = json.loads(answer)["error"]
    assert said and "Traceback" not in said and os.sep + "src" not in said and 'File "' not in said


def test_a_long_body_is_refused_before_it_is_read(app):
    assert call(app, "POST", "/scene", {**POST, "content-length": str(LARGEST_BODY + 1)})[0] == 413
    assert call(app, "POST", "/scene", POST, b" " * (LARGEST_BODY + 1))[0] == 413, "a length that was not told"


def test_a_slow_body_is_not_waited_for(monkeypatch):
    assert guard._SECONDS <= 30
    monkeypatch.setattr(guard, "_SECONDS", 0.05)
    sent = []

    async def send(message):
        sent.append(message)

    async def never():
        await asyncio.sleep(PATIENCE)

    headers = [(name.encode(), value.encode()) for name, value in POST.items()]
    scope = {"type": "http", "method": "POST", "path": "/scene", "query_string": b"", "headers": headers}
    asyncio.run(asyncio.wait_for(server.application(AT)(scope, never, send), 60))
    assert sent[0]["status"] == 413


def test_a_long_head_is_refused(app):
    many = {f"x-{n}": "1" for n in range(guard.MOST_FIELDS - len(POST))}
    long = {"x": "1" * (guard.LARGEST_HEAD // 2)}
    body = b'{"cells":[[1,2],[3,4]]}'
    assert call(app, "POST", "/scene", {**POST, **many}, body)[0] == 200
    assert call(app, "POST", "/scene", {**POST, **long}, body)[0] == 200
    for wrong in ({**POST, **many, "x": "1"}, {**POST, **long, "y": long["x"]}, {**POST, "x": ["1"] * 64}):
        assert call(app, "POST", "/scene", wrong, body)[0] == 431


def raising(reason):
    def compute(_):
        raise reason

    return compute


class Wordless(Exception):
    def __str__(self):
        raise RuntimeError


@pytest.mark.parametrize(
    "reason, status, words",
    [
        (TypeError("no"), 500, "TypeError: no"),
        (MemoryError(), 500, "MemoryError: MemoryError"),
        (SystemExit("out"), 500, "SystemExit: out"),
        (StopIteration(3), 500, "StopIteration: 3"),
        (KeyboardInterrupt(), 500, "KeyboardInterrupt: KeyboardInterrupt"),
        (Wordless(), 500, "Wordless: Wordless"),
        (TypeError("\ud800"), 500, "TypeError: \\ud800"),
        (OSError(2, "No such file", "/home/a b/secret/net.py"), 500, "FileNotFoundError: [Errno 2] No such file: '…'"),
        (ValueError("read /home/me/x.py: y / x, 1/x is wrong"), 400, "read …: y / x, 1/x is wrong"),
        (ValueError(r"C:\Users\me\x.py, kernel_size=3"), 400, "…, kernel_size=3"),
    ],
    ids=range(10),
)
def test_whatever_a_computation_raises_is_said_hostile_or_not(monkeypatch, reason, status, words):
    monkeypatch.setattr(server, "_scene", raising(reason))
    app = server.application(AT)
    for _ in range(2):  # the thread goes on
        found, headers, answer = call(app, "POST", "/scene", POST)
        assert found == status and json.loads(answer)["error"] == words
        assert headers["content-type"] == "application/json"


def test_one_view_is_computed_at_a_time_and_the_page_is_answered_meanwhile_on_every_route(monkeypatch):
    import torch

    inside, most, threads, go_on = [], [], [], threading.Event()

    def compute(_):
        inside.append(1)
        most.append(len(inside))
        threads.append(torch.get_num_threads())
        go_on.wait(PATIENCE)
        time.sleep(0.02)
        inside.pop()
        return {}

    monkeypatch.setattr(server, "_scene", compute)
    app = server.application(AT)
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    asking = [threading.Thread(target=call, args=(app, "POST", "/scene", POST)) for _ in range(5)]
    for one in asking:
        one.start()
    time.sleep(0.2)
    assert all(call(app, "GET", path, GOOD)[0] == 200 for method, path in ROUTES if method == "GET")
    go_on.set()
    for one in asking:
        one.join(PATIENCE)
    torch.set_num_threads(before)
    assert most == threads == [1] * 5


@pytest.mark.parametrize(
    "host, port, address, others",
    [
        ("127.0.0.1", 7, "127.0.0.1", {"127.0.0.1:7", "localhost:7"}),
        ("127.1", 7, "127.0.0.1", {"127.1:7", "127.0.0.1:7", "localhost:7"}),
        ("LOCALHOST", 7, "127.0.0.1", {"127.0.0.1:7", "localhost:7"}),
        ("127.0.0.2", 7, "127.0.0.2", {"127.0.0.2:7"}),
        ("0:0::1", 7, "::1", {"[::1]:7", "localhost:7"}),
        ("Bücher.example", 7, "192.168.0.7", {"xn--bcher-kva.example:7", "192.168.0.7:7"}),
        ("127.0.0.1", 80, "127.0.0.1", {"127.0.0.1:80", "localhost:80", "127.0.0.1", "localhost"}),
    ],
)
def test_the_hosts_are_those_that_a_browser_sends(host, port, address, others):
    at = server.door(host, port, address)
    assert at.hosts == others
    for name in others:
        headers = {"host": [name], "origin": [f"http://{name}"], "content-type": ["application/json"]}
        assert at.refusal("POST", {}, {**headers, "cookie": [f"poolkit-{port}={at.key}"]}) is None


@contextmanager
def serving(monkeypatch, seconds):
    """The server in a thread, whose connections wait so long for a request: where it listens, and its door."""
    monkeypatch.setattr(connection, "SECONDS", seconds)
    with server.listen("127.0.0.1", 0) as found:
        at = server.door(*found.getsockname())
        one = server.prepared(at, None, Worker())
        thread = threading.Thread(target=asyncio.run, args=[one.serve(sockets=[found])])
        thread.start()
        try:
            yield (*found.getsockname(), at.key)
        finally:
            one.should_exit = True
            thread.join(PATIENCE)
        assert not thread.is_alive()


# What is sent at first, and after the answer to it.
IDLE = [
    (b"", b""), (b"GET / HT", b""), (b"GET / HTTP/1.1\r\nHost: x\r\nX: ", b""),
    (b"GET / HTTP/1.1\r\nHost: x\r\n\r\n", b"GET /"),
    (b"POST /scene HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\n", b"1"),
]  # fmt: skip


@pytest.mark.parametrize("first, then", IDLE, ids=range(len(IDLE)))
def test_idle_connections_shut_nobody_out(monkeypatch, first, then):
    assert connection.SECONDS <= 30
    with serving(monkeypatch, 1.5) as where:
        idle = [socket.create_connection(where[:2], timeout=PATIENCE) for _ in range(40)]
        for one in idle:
            one.sendall(first)
            if then:
                one.recv(10_000)
                with suppress(OSError):  # one of too many is closed
                    one.sendall(then)
        assert ask(where, "GET", "/start")[0] == 503, "so many connections at a time are no page's"
        for one in idle:
            with one:  # until the server closes it
                with suppress(ConnectionResetError):
                    while one.recv(10_000):
                        pass
        assert ask(where, "GET", "/start")[0] == 200


def test_a_connection_that_is_being_answered_is_not_idle(monkeypatch):
    def compute(_):
        time.sleep(1)
        return {}

    monkeypatch.setattr(server, "_scene", compute)
    with serving(monkeypatch, 0.2) as where:
        assert ask(where, "POST", "/scene", "{}") == (200, b"{}")
