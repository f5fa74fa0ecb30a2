"""What the commands of `poolkit` share: help that begins with examples, and options that several of them have."""

from __future__ import annotations

import difflib
from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperCommand, TyperGroup

from poolkit import console
from poolkit.console import Wrong


def _help(self: Any, ctx: Any, formatter: Any) -> None:
    """Help begins with its examples, kept in the `epilog`: they are what is read."""
    if self.epilog:
        formatter.write("examples\n" + "".join(f"  {line}\n" for line in self.epilog.splitlines()) + "\n")
    self.format_usage(ctx, formatter)
    self.format_help_text(ctx, formatter)
    self.format_options(ctx, formatter)


def _with_volume(own: list[Any], ctx: Any) -> list[Any]:
    return [*own[:-1], *(p for p in ctx.find_root().command.params if p.name in ("quiet", "verbose")), own[-1]]


class Command(TyperCommand):
    """A command; -q and -v, declared for all of `poolkit`, may also stand behind it."""

    format_help = _help

    def get_params(self, ctx: Any) -> list[Any]:
        """The command's own parameters, then -q and -v, then --help."""
        return _with_volume(super().get_params(ctx), ctx)


class Group(TyperGroup):
    """A group of commands that knows the nearest name of one it does not have."""

    format_help = _help

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        """The command of this name; raises `Wrong` with the nearest names."""
        if args and not args[0].startswith("-") and args[0] not in self.commands:
            near = difflib.get_close_matches(args[0], self.commands, n=2)
            hint = f"\n  nearest: {', '.join(near)}" if near else ""
            raise Wrong(f'no command "{args[0]}"{hint}\n  all: {ctx.command_path} --help')
        return super().resolve_command(ctx, args)


class WorkingGroup(Group):
    """A group that also does something by itself, so that -q and -v may stand behind it."""

    def get_params(self, ctx: Any) -> list[Any]:
        """The group's own parameters, then -q and -v, then --help."""
        return _with_volume(super().get_params(ctx), ctx)


def setting(name: str) -> Any:
    """A callback of an option that notes in `console.settings` that it was given."""

    def note(value: bool) -> bool:
        if value:
            setattr(console.settings, name, True)
        return value

    return note


Json = Annotated[bool, typer.Option("--json", help="Answer in JSON.", callback=setting("json"))]
DataDir = Annotated[Path | None, typer.Option(help="A folder with copies of data sets.")]
Offline = Annotated[bool, typer.Option("--offline", help="Never use the network.")]
