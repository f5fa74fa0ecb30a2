"""The explorer's server: one page, its style and its script, and what they ask for, on this machine alone."""

from __future__ import annotations

import asyncio
import importlib
import json
import secrets
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.resources import files
from typing import Any

import uvicorn
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from poolkit.explore import SCRIPTS
from poolkit.explore.asked import read
from poolkit.explore.guard import Door, Guard
from poolkit.explore.pictures import pictures
from poolkit.explore.sliders import catalogue

# Read once, by these names: no path ever comes from a request.
_FILES = {
    "/": ("page.html", "text/html"),
    "/page.css": ("page.css", "text/css"),
    **{f"/{name}": (name, "text/javascript") for name in SCRIPTS},
}
_ONE_AT_A_TIME = threading.Lock()


def door(host: str, port: int) -> Door:
    """The checks for a server at this address, with a key of its own."""
    names = {host} | ({"127.0.0.1", "localhost"} if host == "127.0.0.1" else set())
    return Door(frozenset(f"{name}:{port}" for name in names), secrets.token_urlsafe(24), f"poolkit-{port}")


def application(at: Door, net: Any = None) -> Guard:
    """The ASGI application behind its checks; `net`: a `net.Trained` that the page follows."""
    routes = [Route(path, _file(*about), methods=["GET"]) for path, about in _FILES.items()]
    start = {"methods": catalogue(), "pictures": pictures(), "net": net.about() if net else None}
    routes.append(Route("/start", _once(start), methods=["GET"]))
    routes.append(Route("/scene", _computed(_scene), methods=["POST"]))
    routes += [Route("/net", _computed(net.look), methods=["POST"])] if net else []
    return Guard(Starlette(routes=routes), at)


def _file(name: str, kind: str) -> Any:
    content = (files("poolkit.explore") / name).read_text(encoding="utf-8")

    def answer(_: Request) -> Response:
        return Response(content, media_type=kind)

    return answer


def _once(values: Any) -> Any:
    """What the page wants once: the methods, the pictures, the net."""

    def answer(_: Request) -> Response:
        return JSONResponse(values)

    return answer


def _computed(compute: Callable[[Any], Any]) -> Any:
    """What is computed of the values that the page sends; errors in words, without what this machine is like inside."""

    def in_turn(values: Any) -> Any:
        with _ONE_AT_A_TIME, _one_thread():
            return compute(values)

    async def answer(request: Request) -> Response:
        try:
            values = json.loads(await request.body(), parse_constant=_no_number)
            return JSONResponse(await run_in_threadpool(in_turn, values))
        except RecursionError:
            return JSONResponse({"error": "what was sent is nested too deeply"}, 400)
        except ValueError as reason:  # JSON's own error is one too
            return JSONResponse({"error": str(reason)}, 400)

    return answer


@contextmanager
def _one_thread() -> Iterator[None]:
    """On pictures this small torch's threads would wait for each other many times as long as they compute."""
    torch = importlib.import_module("torch")
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _no_number(word: str) -> Any:
    raise ValueError(f"{word} is no number of JSON")


def _scene(values: Any) -> Any:
    asked = read(values)
    return importlib.import_module("poolkit.explore.scene").scene(asked)


def listen(host: str, port: int) -> socket.socket:
    """A socket at this address; port 0 takes a free one.

    Raises:
        OSError: the port is taken, or the address is none of this machine's.
    """
    # With the protocol by its name: asyncio switches Nagle's waiting off, 40 ms an answer, where it reads TCP there.
    found = socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    found.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # a port that was just left is free
    try:
        found.bind((host, port))
        found.listen()  # from now on a browser that comes too early waits
    except OSError:
        found.close()
        raise
    return found


def serve(at: Door, at_socket: socket.socket, net: Any = None) -> None:
    """Answer until Ctrl-C. PyTorch is imported beside it, so that the page is there at once."""
    threading.Thread(target=importlib.import_module, args=["poolkit.explore.scene"], daemon=True).start()
    config = uvicorn.Config(
        application(at, net),
        log_level="error",
        access_log=False,  # an address holds the key
        server_header=False,
        lifespan="off",
        ws="none",
        limit_concurrency=32,
        timeout_keep_alive=5,
        timeout_graceful_shutdown=1,
    )
    asyncio.run(uvicorn.Server(config).serve(sockets=[at_socket]))
