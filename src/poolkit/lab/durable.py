"""Files that are whole or not there at all, whenever the process or the machine stops."""

from __future__ import annotations

import os
import re
import secrets
from pathlib import Path

_LEFTOVER = re.compile(r"\.poolkit-[0-9a-f]{16}\.part")


def write_atomic(path: Path, content: bytes) -> None:
    """Write a file so that, at every moment, `path` holds all of the old content or all of the new.

    When this returns the new content survives a power cut: it was written under another name in the same
    folder, flushed to the disk, renamed, and the folder flushed.

    Arguments: `path`, where to; `content`, all of it.
    Raises `OSError` (disk full, no permission …); `path` then is what it was before.
    """
    temporary = _temporary(path.parent)
    try:
        with temporary.open("xb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    _flush_folder(path.parent)


def make_folder(path: Path) -> None:
    """Make a folder, and those above it, such that it survives a power cut; raises `OSError`."""
    if path.is_dir():
        return
    make_folder(path.parent)
    path.mkdir(exist_ok=True)
    _flush_folder(path.parent)


def try_writing(folder: Path) -> None:
    """Write an empty file into a folder and delete it; raises `OSError` where that cannot be."""
    temporary = _temporary(folder)
    temporary.touch(exist_ok=False)
    temporary.unlink(missing_ok=True)


def is_leftover(path: Path) -> bool:
    """Whether a file is a writer's temporary one; no other file has such a name."""
    return bool(_LEFTOVER.fullmatch(path.name)) and path.is_file()


def remove_leftovers(folder: Path) -> None:
    """Delete the temporary files of writers that were killed."""
    for path in folder.iterdir():
        if is_leftover(path):
            path.unlink(missing_ok=True)


def _temporary(folder: Path) -> Path:
    return folder / f".poolkit-{secrets.token_hex(8)}.part"


def _flush_folder(folder: Path) -> None:
    """Make the rename itself durable; Windows has no such call and needs none."""
    if os.name == "nt":
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
