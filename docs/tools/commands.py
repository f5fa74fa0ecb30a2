"""The reference of the command line, made from the commands themselves."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import typer

from poolkit.cli import app
from tools.text import cell, markdown, table

INTRODUCTION = """\
# Command line

Answers go to stdout, progress and remarks to stderr. `--json` turns an answer into JSON, `-q` leaves everything but the
answer out, `-v` shows errors in full. Exit codes: 0 fine, 1 the work failed, 2 the request was wrong, 130 interrupted.
This page is made from the commands; `poolkit COMMAND --help` prints the same.
"""
EVERYWHERE = ("quiet", "verbose", "help")


def pages() -> dict[str, str]:
    """The page of the command line: its path and its text."""
    root = typer.main.get_command(app)
    return {"command-line.md": "\n\n".join([INTRODUCTION, *_sections("poolkit", root)]) + "\n"}


def _sections(path: str, command: Any) -> Iterator[str]:
    for name, inner in command.commands.items():
        if not inner.hidden:
            yield f"## `{path} {name}`\n\n" + _body(f"{path} {name}", inner)
            if hasattr(inner, "commands"):
                yield from _sections(f"{path} {name}", inner)


def _body(path: str, command: Any) -> str:
    context = command.context_class(command, info_name=path)
    parts = [_prose(command.help), f"```text\n{path} {' '.join(command.collect_usage_pieces(context))}\n```"]
    if command.epilog:
        parts.append(f"```shell\n{command.epilog}\n```")
    shown = [p for p in command.get_params(context) if p.name not in EVERYWHERE and not getattr(p, "hidden", False)]
    if shown:
        parts.append(table(("", "meaning", "default"), [_row(p, context) for p in shown]))
    return "\n\n".join(parts)


def _prose(text: str | None) -> str:
    paragraphs = (text or "").split("\n\n")
    return "\n\n".join(markdown(" ".join(p.split())) for p in paragraphs)


def _row(parameter: Any, context: Any) -> tuple[str, str, str]:
    argument = parameter.param_type_name == "argument"
    metavar = parameter.make_metavar(context)
    if argument:
        name = f"`{metavar}`"
    else:
        words = ", ".join([*parameter.opts, *parameter.secondary_opts])
        name = f"`{words}`" if parameter.is_flag else f"`{words}` `{metavar}`"
    default = parameter.default
    plain = default is None or isinstance(default, bool) or argument or callable(default)
    return name, cell(parameter.help or ""), "" if plain else f"`{default}`"
