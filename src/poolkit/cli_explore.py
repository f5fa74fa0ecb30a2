"""The command `poolkit explore`: a local page to see what pooling does and to play with it."""

from __future__ import annotations

import errno
from contextlib import nullcontext
from pathlib import Path
from typing import Annotated, Any
from urllib.parse import quote

import typer

import poolkit
from poolkit import console, own
from poolkit.console import Stop, Wrong, request

EXAMPLES = (
    "poolkit explore\npoolkit explore soft:beta=2 max\npoolkit explore --run runs/cifar10-max-seed0\n"
    "poolkit explore --export explorer.html"
)
_HERE = "127.0.0.1"
_OTHERS = (
    "warning: whoever reaches {} and has the address below can use this page\n"
    "  its key, your pictures and numbers travel unencrypted: others on the way can read them"
)


def explore(
    methods: Annotated[
        list[str] | None, typer.Argument(metavar="[METHOD [OTHER]]", help="One or two methods to begin with.")
    ] = None,
    run: Annotated[
        Path | None,
        typer.Option(metavar="RUN", help="The folder of a run: its net, layer by layer, with pools to exchange."),
    ] = None,
    export: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Write the page as one file that needs no server, and end.")
    ] = None,
    port: Annotated[int, typer.Option(min=0, max=65535, metavar="N", help="By default a free one.")] = 0,
    host: Annotated[str, typer.Option(help="The address to listen at, if others shall see the page.")] = _HERE,
    browser: Annotated[bool, typer.Option("--open/--no-open", help="Open the page in a browser.")] = True,
    trust_net: Annotated[
        bool, typer.Option("--trust-net", help="Run the code of a method given as module:name in the run.")
    ] = False,
) -> None:
    """See and play: picture, window, formula with its numbers, output and gradient on one page.

    The page is served on this machine alone, loads nothing from elsewhere and sends nothing anywhere. Ctrl-C ends it.
    """
    spellings = _spellings(methods or [])
    if export:
        return _export(export, spellings, run, port, host)
    server = _server()
    net = _trained(run, trust_net) if run else None
    socket = _listen(server, host, port)
    bound, port = socket.getsockname()[:2]
    at = server.door(host, port, bound)
    address = f"http://{server.spelled(host)}:{port}/?key={at.key}" + _view(spellings)
    if not server.is_this_machine(bound):
        console.remark(_OTHERS.format(host))
    console.answer(f"explorer: {address}")
    console.remark("Ctrl-C ends it")
    _until_the_end(server, at, socket, net, address if browser else "")


def _until_the_end(server: Any, at: Any, socket: Any, net: Any, opening: str) -> None:
    """Serve, and open an address if there is one."""
    from poolkit.explore.browser import opened

    with opened(opening) if opening else nullcontext():
        is_busy = server.serve(at, socket, net)
    console.remark("ended")
    if is_busy:
        server.leave()


def _server() -> Any:
    """What serves the page, if it is installed."""
    try:
        from poolkit.explore import server
    except ImportError as missing:
        raise Stop(
            f'the explorer wants {missing.name}, which is not installed\n  pip install "poolkit[explore]"'
        ) from missing
    return server


def _view(spellings: list[str]) -> str:
    """The part of an address that names the methods."""
    pairs = zip(("method", "other"), spellings, strict=False)
    view = "&".join(f"{name}={quote(text, safe=':=,@')}" for name, text in pairs)
    return f"#{view}" if view else ""


def _spellings(methods: list[str]) -> list[str]:
    """The methods to begin with."""
    if len(methods) > 2:
        raise Wrong(f"the explorer shows one method or two side by side, not {len(methods)}")
    own.typed(*methods)
    with request():
        return [poolkit.method(spelling).spelling for spelling in methods]


def _export(file: Path, spellings: list[str], run: Path | None, port: int, host: str) -> None:
    """Write the page that stands alone."""
    if run:
        raise Wrong("--export holds no net: nothing is computed in such a page\n  leave --run out")
    if port or host != _HERE:
        raise Wrong("--export serves nothing: its page is a file\n  leave --port and --host out")
    if spellings:
        view = _view(spellings)
        raise Wrong(f"--export holds every method: its address chooses, such as {file}{view}\n  leave them out")
    if not file.parent.is_dir():
        raise Wrong(f"{file.parent}: there is no such folder\n  make it, or write elsewhere")
    if file.is_dir():
        raise Wrong(f"{file} is a folder\n  name a file, such as {file / 'explorer.html'}")
    from poolkit.explore.export import one_file
    from poolkit.lab.durable import write_atomic

    console.remark("computing all that the page can show: some seconds")
    write_atomic(file, one_file().encode())
    console.answer(f"explorer: {file}")


def _trained(folder: Path, trust_net: bool) -> Any:
    """The net of a run."""
    if not folder.is_dir():
        raise Wrong(f"{folder}: there is no such folder\n  give the folder of a run, as --out named it")
    from poolkit.explore.net import Trained
    from poolkit.lab import terminal
    from poolkit.lab.run import Run

    terminal.refuse_unfinished(folder)
    found = Run.load(folder)
    if trust_net:
        terminal.trust(found)
    return Trained.of(found)


def _listen(server: Any, host: str, port: int) -> Any:
    try:
        return server.listen(host, port)
    except ValueError as reason:
        raise Wrong(f"--host {host}: {reason}") from reason
    except OSError as reason:
        what = f"port {port} at {host}" if port else host
        raise Stop(f"{what} cannot be had: {reason.strerror}\n  {_advice(reason, port)}") from reason


def _advice(reason: OSError, port: int) -> str:
    """What to do about an address that cannot be had: the port may be another's, the host none of this machine's."""
    if port and reason.errno in (errno.EADDRINUSE, errno.EACCES):
        return "leave --port out for a free one"
    return "--host takes an address or a name of this machine: leave it out for 127.0.0.1"
