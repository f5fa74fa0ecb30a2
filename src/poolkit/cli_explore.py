"""The command `poolkit explore`: a local page to see what pooling does and to play with it."""

from __future__ import annotations

import webbrowser
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
        return _export(export, run)
    try:
        from poolkit.explore import server
    except ImportError as missing:
        raise Stop(
            f'the explorer wants {missing.name}, which is not installed\n  pip install "poolkit[explore]"'
        ) from missing
    net = _trained(run, trust_net) if run else None
    socket = _listen(server, host, port)
    at = server.door(host, socket.getsockname()[1])
    if host != _HERE:
        console.remark(f"warning: whoever reaches {host} and has the address below can use this page")
    view = "&".join(
        f"{name}={quote(text, safe=':=,@')}" for name, text in zip(("method", "other"), spellings, strict=False)
    )
    address = f"http://{host}:{socket.getsockname()[1]}/?key={at.key}" + (f"#{view}" if view else "")
    console.answer(f"explorer: {address}")
    console.remark("Ctrl-C ends it")
    if browser:
        webbrowser.open(address)
    try:
        server.serve(at, socket, net)
    except KeyboardInterrupt:
        pass
    console.remark("ended")


def _spellings(methods: list[str]) -> list[str]:
    """The methods to begin with."""
    if len(methods) > 2:
        raise Wrong(f"the explorer shows one method or two side by side, not {len(methods)}")
    own.typed(*methods)
    with request():
        return [poolkit.method(spelling).spelling for spelling in methods]


def _export(file: Path, run: Path | None) -> None:
    """Write the page that stands alone."""
    if run:
        raise Wrong("--export holds no net: nothing is computed in such a page\n  leave --run out")
    from poolkit.explore.export import one_file
    from poolkit.lab.durable import write_atomic

    console.remark("computing all that the page can show; about a minute")
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
    if host in ("0.0.0.0", "::", ""):  # noqa: S104 - it is refused
        raise Wrong(f"--host {host}: name the address by which the page is opened, such as 192.168.0.7")
    try:
        return server.listen(host, port)
    except OSError as reason:
        what = f"port {port} at {host}" if port else host
        raise Stop(f"{what} cannot be had: {reason.strerror}\n  leave --port out for a free one") from reason
