"""The explorer's server: one page, its style and its script, and what they ask for, on this machine alone."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import importlib
import ipaddress
import json
import os
import re
import secrets
import socket
import sys
from collections.abc import Callable
from importlib.resources import files
from typing import Any

import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from poolkit.explore import SCRIPTS
from poolkit.explore.asked import read
from poolkit.explore.connection import Connection
from poolkit.explore.guard import Door, Guard
from poolkit.explore.pictures import pictures
from poolkit.explore.sliders import catalogue
from poolkit.explore.worker import Worker

# Read once, by these names: no path ever comes from a request.
_FILES = {
    "/": ("page.html", "text/html"),
    "/page.css": ("page.css", "text/css"),
    **{f"/{name}": (name, "text/javascript") for name in SCRIPTS},
}
# What an error tells of the machine: quoted paths, which may hold spaces, and others.
_START = r"(?:/|\\\\|[A-Za-z]:[/\\])"
_PATH = re.compile(rf"(?<=['\"]){_START}[^'\"\n]+|(?<![\w.)\]/'\"]){_START}[\w.~][^\s'\"<>|:;,]*")


def door(host: str, port: int, address: str = "") -> Door:
    """The checks for a server that was given this host and listens at this address, with a key of its own."""
    names = {spelled(host), spelled(address or host)}
    names |= {"localhost"} if names & {"127.0.0.1", "[::1]"} else set()
    hosts = {f"{name}:{port}" for name in names} | (names if port == 80 else set())  # browsers leave :80 out
    return Door(frozenset(hosts), secrets.token_urlsafe(24), f"poolkit-{port}")


def spelled(host: str) -> str:
    """A name or number of a machine as a browser sends it."""
    host = host.strip("[]").lower()
    with contextlib.suppress(ValueError):
        host = ipaddress.ip_address(host.partition("%")[0]).compressed
    if ":" in host:
        return f"[{host}]"
    with contextlib.suppress(UnicodeError):
        host = host.encode("idna").decode("ascii")
    return host


def is_this_machine(address: str) -> bool:
    """Whether nobody else reaches a server at this address."""
    return _number(address).is_loopback


def application(at: Door, net: Any = None, worker: Worker | None = None) -> Guard:
    """The ASGI application behind its checks; `net`: a `net.Trained` that the page follows."""
    worker = worker or Worker()
    routes = [Route(path, _file(*about), methods=["GET"]) for path, about in _FILES.items()]
    start = {"methods": catalogue(), "pictures": pictures(), "net": net.about() if net else None}
    routes.append(Route("/start", _once(start), methods=["GET"]))
    routes.append(Route("/scene", _computed(_scene, worker), methods=["POST"]))
    routes += [Route("/net", _computed(net.look, worker), methods=["POST"])] if net else []
    return Guard(Starlette(routes=routes), at)


def _file(name: str, kind: str) -> Any:
    content = (files("poolkit.explore") / name).read_text(encoding="utf-8")

    async def answer(_: Request) -> Response:
        return Response(content, media_type=kind)

    return answer


def _once(values: Any) -> Any:
    """What the page wants once: the methods, the pictures, the net."""

    async def answer(_: Request) -> Response:
        return JSONResponse(values)

    return answer


def _computed(compute: Callable[[Any], Any], worker: Worker) -> Any:
    """What is computed of the values that the page sends; errors in words, without what this machine is like inside."""

    def answered(body: bytes) -> Response:
        try:
            return JSONResponse(compute(json.loads(body, parse_constant=_no_number)))
        except RecursionError:
            return JSONResponse({"error": "what was sent is nested too deeply"}, 400)
        except ValueError as reason:  # JSON's own error is one too
            return JSONResponse({"error": _words(reason)}, 400)
        except BaseException as reason:  # a method of the user's own raises whatever it likes
            return JSONResponse({"error": f"{type(reason).__name__}: {_words(reason)}"}, 500)

    async def answer(request: Request) -> Any:
        body = await request.body()
        return await worker.done(lambda: answered(body))

    return answer


def _words(reason: BaseException) -> str:
    """What an exception says, without the paths of this machine, in characters that can be sent."""
    try:
        text = str(reason)
    except Exception:
        text = ""
    return _PATH.sub("…", text).encode("utf-8", "backslashreplace").decode() or type(reason).__name__


def _no_number(word: str) -> Any:
    raise ValueError(f"{word} is no number of JSON")


def _scene(values: Any) -> Any:
    asked = read(values)
    return importlib.import_module("poolkit.explore.scene").scene(asked)


def listen(host: str, port: int) -> socket.socket:
    """A socket at this address; port 0 takes a free one.

    Raises:
        ValueError: the host stands for every address of this machine.
        OSError: the port is taken, or the address is none of this machine's.
    """
    family, address = _resolved(host, port)
    # With the protocol by its name: asyncio switches Nagle's waiting off, 40 ms an answer, where it reads TCP there.
    found = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    try:
        if os.name == "posix":  # a port that was just left is free; elsewhere the option shares one that is taken
            found.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            found.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        found.bind(address)
        found.listen()  # from now on a browser that comes too early waits
    except OSError:
        found.close()
        raise
    return found


def _resolved(host: str, port: int) -> tuple[int, Any]:
    """The family and the address of a name or a number, in any of the forms that the system reads: 0x7f.1 is one."""
    host = host.strip("[]")
    try:
        found = socket.getaddrinfo(host or "::", port, type=socket.SOCK_STREAM)
    except UnicodeError as reason:
        raise OSError(errno.EINVAL, "this is no name of a machine") from reason
    family, _, _, _, address = min(found, key=lambda one: one[0] != socket.AF_INET)
    if _number(str(address[0])).is_unspecified:
        raise ValueError("name the address by which the page is opened, such as 192.168.0.7")
    return family, address


def _number(address: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address:
    found = ipaddress.ip_address(address.partition("%")[0])
    return getattr(found, "ipv4_mapped", None) or found


def prepared(at: Door, net: Any, worker: Worker) -> uvicorn.Server:
    """The server of the page, with its limits."""
    config = uvicorn.Config(
        application(at, net, worker),
        http=Connection,
        log_level="critical",  # what fails is answered in words; a computation that Ctrl-C leaves behind is no error
        access_log=False,  # an address holds the key
        server_header=False,
        lifespan="off",
        ws="none",
        limit_concurrency=32,
        timeout_keep_alive=5,
        timeout_graceful_shutdown=1,
    )
    return uvicorn.Server(config)


def serve(at: Door, at_socket: socket.socket, net: Any = None) -> bool:
    """Answer until Ctrl-C; whether something is still being computed then.

    PyTorch is imported beside it, so that the page is there at once.
    """
    worker = Worker()
    worker.later(lambda: importlib.import_module("poolkit.explore.scene"))
    with contextlib.suppress(KeyboardInterrupt):
        asyncio.run(prepared(at, net, worker).serve(sockets=[at_socket]))
    return worker.is_busy


def leave() -> None:
    """End the process amid a computation: where Python ends as usual, threads inside torch may abort it."""
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(0)
