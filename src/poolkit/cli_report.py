"""The command `poolkit report`: the page of a run or of a study."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from poolkit import console
from poolkit.commands import Json
from poolkit.console import Wrong

EXAMPLES = (
    "poolkit report runs/cifar10-max-seed0 --open\npoolkit report studies/first\npoolkit report studies/first --verify"
)


def report(
    folder: Annotated[Path, typer.Argument(metavar="FOLDER", help="The folder of a run or of a study.")],
    browser: Annotated[bool, typer.Option("--open", help="Open the report in a browser.")] = False,
    verify: Annotated[
        bool, typer.Option("--verify", help="Of a study: compute numbers and page anew, compare, write nothing.")
    ] = False,
    trust_net: Annotated[
        bool, typer.Option("--trust-net", help="Run the code of a net or a method given as module:name.")
    ] = False,
    json: Json = False,
) -> None:
    """Write the report of a run or a study again, one HTML file."""
    if not folder.is_dir():
        raise Wrong(f"{folder}: there is no such folder\n  give the folder of a run or a study, as --out named it")
    from poolkit.lab.study import REQUEST

    study = (folder / REQUEST).exists()
    if verify and not study:
        raise Wrong(f"{folder}: --verify is for studies, and there is no {REQUEST}\n  leave it out for a run")
    if study:
        return _study(folder, browser, verify, json)
    from poolkit.lab import terminal
    from poolkit.lab.run import Run

    terminal.refuse_unfinished(folder)
    if trust_net:
        terminal.trust(Run.load(folder))
    path = terminal.report(folder, browser)
    console.emit({"report": str(path)}) if json else console.answer(str(path))


def _study(folder: Path, browser: bool, verify: bool, json: bool) -> None:
    """Write a study's page; with `verify`, compare what is stored with what would be written."""
    from poolkit.lab import terminal
    from poolkit.report.study import PAGE, build_study, verify_study

    if verify:
        compared, wrong = verify_study(folder)
        if json:
            console.emit({"folder": str(folder), "same": not wrong, "compared": compared, "differences": wrong})
        else:
            same = f"every number is the same, byte for byte ({', '.join(compared)})"
            console.answer("\n".join(wrong) if wrong else same)
        if PAGE not in compared:
            console.remark(f"{PAGE} is not there, so only the numbers were compared: poolkit report writes it")
        if wrong:
            raise typer.Exit(1)
        return
    path = build_study(folder)
    if browser:
        terminal.show(path)
    console.emit({"report": str(path)}) if json else console.answer(str(path))
