"""The command `poolkit report`: the page of a run or of a study."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from poolkit.commands import Json
from poolkit.console import Wrong

EXAMPLES = (
    "poolkit report runs/cifar10-max-seed0 --open\npoolkit report studies/first\npoolkit report studies/first --verify"
)


def report(
    folder: Annotated[Path, typer.Argument(metavar="FOLDER", help="The folder of a run or of a study.")],
    browser: Annotated[bool, typer.Option("--open", help="Open the report in a browser.")] = False,
    verify: Annotated[
        bool, typer.Option("--verify", help="Of a study: first compute every number anew and compare.")
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
