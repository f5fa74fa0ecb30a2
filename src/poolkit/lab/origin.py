"""What a study's runs are made with, noted at its beginning: a changed net or another version is no part of it."""

from __future__ import annotations

import hashlib
import importlib.util
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch
from torch import nn

import poolkit
from poolkit.lab.durable import write_atomic
from poolkit.lab.record import RunError, read_json, to_json
from poolkit.lab.run import RUN
from poolkit.lab.study import RUNS, TUNING, Study
from poolkit.lab.study_record import check_origin
from poolkit.method import Method
from poolkit.own import current_folder_first, names_own

ORIGIN = "origin.json"
FORMAT = 1
_VERSIONED = ("torch", "poolkit", "timm")  # their layers are known by their version


@dataclass(frozen=True)
class Origin:
    """What the runs of a study have in common and no recipe says.

    Fields: `net`, the SHA-256 of the names, types and shapes of what the baseline's net holds when it is new;
    `sources`, of `module:callable` the SHA-256 of the files of the module and of the modules that its layers come from,
    and of methods `module:Class` those of the class and of the classes that it derives from;
    `versions`, of poolkit, torch and, where it makes the net, timm; `device`, its kind, such as "cuda".
    """

    net: str
    sources: Mapping[str, str]
    versions: Mapping[str, str]
    device: str

    @staticmethod
    def of(name: str, model: nn.Module, device: str, methods: Sequence[str] = ()) -> Origin:
        """That of a new net of this name, on a device; `methods`, the spellings of all rows."""
        own = ":" in name and not name.startswith("timm:")
        versions = {"poolkit": poolkit.__version__, "torch": torch_version()}
        if name.startswith("timm:"):
            with suppress(PackageNotFoundError):
                versions["timm"] = version("timm")
        modules = {*(_modules(name, model) if own else ()), *_modules_of_methods(methods)}
        return Origin(_shapes(model), _digests(modules), versions, torch.device(device).type)

    def differences(self, other: Origin) -> list[tuple[str, Any, Any]]:
        """Where another one differs: what, here, there."""
        here, there = self._flat(), other._flat()
        return [(key, here.get(key), there.get(key)) for key in {**here, **there} if here.get(key) != there.get(key)]

    def _flat(self) -> dict[str, Any]:
        sources = {f"the file of {name}": digest for name, digest in self.sources.items()}
        return {**self.versions, "device": self.device, **sources, "names and shapes in the net": self.net}


def torch_version() -> str:
    """Without what it was built for: a machine without a GPU may lead those that have some."""
    return str(torch.__version__).partition("+")[0]


def keep(study: Study, origin: Origin, note: Callable[[str], None]) -> None:
    """Note what a study is made with, before its first result; later, see that it is that still.

    Arguments: `study`; `origin`, of the runs that are to come; `note`, told where it cannot be known.
    Raises `RunError`: it is not, and the message names what differs; or the file is damaged or cannot be written.
    """
    path = study.folder / ORIGIN
    if path.exists() and _has_results(study):
        return refuse_other(study, origin)
    if _has_results(study):
        note(f"{study.folder} does not say which net and versions made its runs: see that they are those of today")
    values = {"format": FORMAT, "study_sha256": study.sha256, **vars(origin)}
    try:
        write_atomic(path, to_json(values))
    except OSError as error:
        raise RunError(f"{path} cannot be written ({error}).\n  Make room, then go on.") from error


def refuse_other(study: Study, origin: Origin) -> None:
    """Raise `RunError` where a study says that its results were made with something else; not where it says nothing."""
    path = study.folder / ORIGIN
    if not path.exists() or not _has_results(study):
        return
    record = read_json(path)
    check_origin(record, path)
    if record["study_sha256"] != study.sha256:
        raise RunError(f"{path} is that of another study.\n  Put the original back.")
    there = Origin(record["net"], record["sources"], record["versions"], record["device"])
    if different := there.differences(origin):
        lines = "".join(f"\n  {what}: there {_short(then)}, now {_short(now)}" for what, then, now in different)
        raise RunError(
            f"The runs in {study.folder} were made with something else; new ones beside them could not be compared."
            f"{lines}\n  Go on with what they were made with, or begin a new study with another --out."
        )


def changed(sources: Mapping[str, str]) -> list[str]:
    """The modules whose files are not those of `Origin.sources` any more, or not here."""
    return [name for name, digest in sources.items() if _digest_of(name) != digest]


def _has_results(study: Study) -> bool:
    return any(next((study.folder / name).glob(f"*/{RUN}"), None) for name in (RUNS, TUNING))


def _shapes(model: nn.Module) -> str:
    digest = hashlib.sha256()
    for name, tensor in model.state_dict().items():
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
    return digest.hexdigest()


def _digests(modules: Iterable[str]) -> dict[str, str]:
    return {name: digest for name in sorted(modules) if (digest := _digest_of(name))}


def _modules_of_methods(spellings: Iterable[str]) -> Iterator[str]:
    """The modules of methods of one's own, which the user asked for by their names, and of what they derive from."""
    for spelling in filter(names_own, spellings):
        yield from _homes(type(poolkit.method(spelling)).__mro__)


def _modules(net: str, model: nn.Module) -> Iterator[str]:
    module, _, name = net.partition(":")
    yield module
    layers = list(model.modules())
    yield from _homes([getattr(sys.modules.get(module), name, None), *map(type, layers)], module)
    for method in (getattr(layer, "method", None) for layer in layers):
        if isinstance(method, Method):  # the net's own pools, where they are kept
            yield from _homes(type(method).__mro__)


def _homes(makers: Iterable[Any], otherwise: str = "") -> Iterator[str]:
    for maker in makers:
        home = getattr(maker, "__module__", None) or otherwise
        if home.partition(".")[0] not in (*_VERSIONED, "__main__", ""):
            yield home


def _digest_of(module: str) -> str | None:
    """The SHA-256 of a module's file; None where there is none."""
    try:
        with current_folder_first():  # as the net itself is looked for
            found = importlib.util.find_spec(module)
        return hashlib.sha256(Path(str(found and found.origin)).read_bytes()).hexdigest()
    except (ImportError, OSError, ValueError):
        return None


def _short(value: Any) -> str:
    """A digest is told by its first digits."""
    text = str(value)
    return f"{text[:12]}…" if len(text) == 64 else text
