"""Published files: found on this machine or downloaded, and never opened before their hash is checked."""

from __future__ import annotations

import hashlib
import logging
import os
import sys
import tarfile
import zlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pooch
import requests

_TIMEOUT = 30.0  # seconds without an answer before a server counts as gone
_CHUNK = 1 << 16


class DataMissing(Exception):
    """No copy of a data set is here and none could be downloaded; the message says how to bring one."""


class DataError(Exception):
    """A data set was asked for that does not exist, or a copy of one is not what it should be."""


@dataclass(frozen=True)
class Archive:
    """One published file: where it comes from and which bytes it has.

    Arguments: `url`; `sha256`, 64 hex digits; `bytes`, its size; `folder`, the sub-folder of a data folder
    in which it is kept (`""`: none); `unpacked`, the folder it makes when unpacked by hand (`""`: it makes
    none); `inside`, a file by which such a folder is known when it is named itself.
    """

    url: str
    sha256: str
    bytes: int
    folder: str = ""
    unpacked: str = ""
    inside: str = ""

    @property
    def file(self) -> str:
        """The file's name, without folders."""
        return self.url.rsplit("/", 1)[-1]


def cache() -> Path:
    """The user's folder for downloaded data, as the operating system's custom has it."""
    return Path(pooch.os_cache("poolkit"))


def places(data_dir: Path | None) -> tuple[Path, ...]:
    """The data folders in the order they are searched: `data_dir`, `$POOLKIT_DATA`, the user's cache.

    Raises `DataError` when `data_dir` is not a folder.
    """
    named = []
    if data_dir is not None:
        folder = Path(data_dir).expanduser()
        if folder.exists() and not folder.is_dir():
            raise DataError(f"{folder} is a file; give the folder that holds it as the data folder.")
        named.append(folder)
    if os.environ.get("POOLKIT_DATA"):
        named.append(Path(os.environ["POOLKIT_DATA"]).expanduser())
    return (*named, cache())


def copies(title: str, archives: Sequence[Archive], data_dir: Path | None, download: bool) -> list[Path]:
    """A path for every archive: its verified copy, or the folder of its files when it is there unpacked.

    What is not in `places(data_dir)` is downloaded to `data_dir`, or to the user's cache when that is None.
    Raises `DataMissing` when a file is neither here nor to be had, `DataError` when one is not the
    published one.
    """
    searched = places(data_dir)
    found = {archive: _locate(archive, searched) for archive in archives}
    missing = [archive for archive, path in found.items() if path is None]
    if missing and not download:
        raise DataMissing(_how_to_bring(title, missing, data_dir, "downloading is switched off"))
    target = searched[0] if data_dir is not None else cache()
    for archive in missing:
        try:
            found[archive] = _download(archive, target / archive.folder)
        except OSError as error:  # requests' exceptions are OSErrors too
            cause = f"it could not be downloaded ({_cause(error)})"
            raise DataMissing(_how_to_bring(title, missing, data_dir, cause)) from None
    return [path for path in found.values() if path is not None]


def members(path: Path, sizes: Mapping[str, int]) -> Iterator[tuple[str, bytes]]:
    """The contents of named members of a .tar.gz, in the archive's order; nothing is unpacked to disk.

    Arguments: `path`, an archive whose hash has been checked; `sizes`, exact member name to exact size in
    bytes.
    Raises `DataError` for a member that is missing, not a regular file, or of another size.
    """
    waiting = dict(sizes)
    try:
        # Read as a stream: seeking back in a gzip file would unpack it again from its beginning.
        with tarfile.open(path, "r|gz") as tar:
            for member in tar:
                if member.name not in waiting:
                    continue
                size = waiting.pop(member.name)
                stream = tar.extractfile(member) if member.isreg() and not member.issparse() else None
                if stream is None:
                    raise DataError(f"{path.name}: {member.name} is not a regular file, so it was not read.")
                _check_size(f"{path.name}: {member.name}", member.size, size)
                yield member.name, stream.read()
                if not waiting:
                    return
    except (tarfile.TarError, EOFError, OSError, zlib.error) as error:
        raise DataError(f"{path} cannot be read as a .tar.gz: {error}.") from None
    raise DataError(f"{path.name} lacks {', '.join(waiting)}.")


def files(folder: Path, sizes: Mapping[str, int]) -> Iterator[tuple[str, bytes]]:
    """The contents of named files of a folder; `DataError` where one is missing or of another size."""
    absent = [name for name in sizes if not (folder / name).is_file()]
    if absent:
        raise DataError(f"{folder} lacks {', '.join(absent)}; unpack the archive again, or remove the folder.")
    for name, size in sizes.items():
        _check_size(str(folder / name), (folder / name).stat().st_size, size)
        yield name, (folder / name).read_bytes()


def matches(content: bytes, digest: str) -> bool:
    """Whether bytes have a digest spelled `md5:…` or `sha256:…`: identity, not a defence against forgery."""
    algorithm, _, expected = digest.partition(":")
    return hashlib.new(algorithm, content, usedforsecurity=False).hexdigest() == expected


def check_labels(what: str, labels: np.ndarray, classes: int) -> None:
    """Raise `DataError`, naming `what`, unless all labels are in 0 … classes − 1."""
    if labels.min() < 0 or labels.max() >= classes:
        found = f"{labels.min()} to {labels.max()}"
        raise DataError(f"{what}: labels run from {found}; with {classes} classes, 0 to {classes - 1} are allowed.")


def _check_size(what: str, size: int, expected: int) -> None:
    if size != expected:
        raise DataError(f"{what} has {size:,} bytes; the published file has {expected:,}.")


def _locate(archive: Archive, searched: Sequence[Path]) -> Path | None:
    for place in searched:
        for folder in dict.fromkeys((place / archive.folder, place)):
            if (folder / archive.file).is_file():
                return _verified(folder / archive.file, archive)
        if not archive.unpacked:
            continue
        # Both CIFARs unpack to `.bin` files, so a folder that is named itself must hold the right one.
        if any((place / archive.unpacked).glob("*.bin")):
            return place / archive.unpacked
        if archive.inside and (place / archive.inside).is_file():
            return place
    return None


def _verified(path: Path, archive: Archive) -> Path:
    size = path.stat().st_size
    if size == archive.bytes and pooch.file_hash(str(path), alg="sha256") == archive.sha256:
        return path
    found = "another SHA-256" if size == archive.bytes else f"{size:,} bytes instead of {archive.bytes:,}"
    raise DataError(
        f"{path} is not the published file: it has {found}, so it was not opened.\n"
        f"  Remove it, or replace it by {archive.url}\n  (SHA-256 {archive.sha256})."
    )


def _download(archive: Archive, target: Path) -> Path:
    print(f"downloading {archive.url} ({_megabytes(archive.bytes)}) to {target}", file=sys.stderr)
    downloader = pooch.HTTPDownloader(
        progressbar=sys.stderr.isatty(),
        chunk_size=_CHUNK,
        timeout=_TIMEOUT,
        headers={"Accept-Encoding": "identity"},  # the published bytes, not a server's repacking of them
    )
    made = [folder for folder in (target, *target.parents) if not folder.exists()]
    try:
        with _quiet_pooch():
            path = pooch.retrieve(archive.url, archive.sha256, fname=archive.file, path=target, downloader=downloader)
    except (OSError, ValueError) as error:
        _remove_empty(made)
        if isinstance(error, OSError):  # requests' exceptions are OSErrors too, and some of them ValueErrors
            raise
        raise DataError(
            f"What {archive.url} sent is not the published file (another SHA-256), so it was not kept.\n"
            "  Try again later, or bring a copy from elsewhere and name its folder with --data-dir."
        ) from None
    return Path(path)


def _remove_empty(made: Sequence[Path]) -> None:
    """Take back the folders of a download that came to nothing: a name with a slip leaves no trace."""
    with suppress(OSError):  # not empty, or never made
        for folder in made:
            folder.rmdir()


@contextmanager
def _quiet_pooch() -> Iterator[None]:
    # The line printed above says more than pooch's own (the size), so pooch's is not wanted as well.
    logger = pooch.get_logger()
    level = logger.level
    logger.setLevel(logging.WARNING)
    try:
        yield
    finally:
        logger.setLevel(level)


def _cause(error: BaseException) -> str:
    # requests wraps urllib3 wraps the operating system: the innermost one says what happened in a few words.
    if isinstance(error, requests.HTTPError) and error.response is not None:
        return f"the server answered {error.response.status_code} {error.response.reason}"
    while error.__context__ is not None:
        error = error.__context__
    text = getattr(error, "strerror", None) or str(error) or type(error).__name__
    return " ".join(str(text).split())[:160]


def _how_to_bring(title: str, missing: Sequence[Archive], data_dir: Path | None, cause: str) -> str:
    lines = [f"{title} is not on this machine, and {cause}."]
    for archive in missing:
        lines.append(f"  get:        {archive.url} ({_megabytes(archive.bytes)})")
        lines.append(f"  put it at:  {cache() / archive.folder / archive.file}")
    folder = "a folder of your choice" if data_dir is None else str(data_dir)
    lines.append(f"  or into:    {folder}, and name that with --data-dir (or the variable POOLKIT_DATA)")
    return "\n".join(lines)


def _megabytes(size: int) -> str:
    return f"{size / 1e6:.0f} MB" if size >= 1e6 else f"{size / 1e3:.0f} kB"
