"""What this machine and this installation can do, found by looking and without changing anything."""

from __future__ import annotations

import os
import platform
from collections.abc import Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

import poolkit
from poolkit import optional

# What `poolkit[lab]` installs, under the names that pip knows.
LAB = (
    "torch", "numba", "safetensors", "pooch", "tqdm", "requests", "pillow", "matplotlib", "jinja2", "scikit-learn",
    "scipy", "statsmodels", "filelock",
)  # fmt: skip
INSTALL = 'pip install "poolkit[lab]"'


def examine(data_dir: Path | None = None) -> dict[str, Any]:
    """Everything that `poolkit doctor` says, as plain values.

    Arguments: `data_dir`, a folder to search for data sets besides the usual ones.
    """
    versions = {name: _version(name) for name in ("numpy", "typer", "rich", *LAB)}
    missing = [name for name in LAB if versions[name] is None]
    return {
        "poolkit": poolkit.__version__,
        "python": platform.python_version(),
        "platform": platform.platform(),
        "cores": os.cpu_count(),
        "versions": versions,
        "missing": missing,
        "install": INSTALL if missing else None,
        "torch": _torch() if versions["torch"] else None,
        "paths": _paths() if versions["torch"] else None,
        "data": _data(data_dir) if not missing else None,
        "optional": optional.state({name: _version(name) for name in optional.USES}, versions["torch"]),
    }


def lines(found: dict[str, Any]) -> Sequence[tuple[str, str]]:
    """What `examine` found as pairs of a name and a sentence."""
    missing, torch = found["missing"], found["torch"]
    rows = [
        ("poolkit", f"{found['poolkit']}, Python {found['python']}, {found['platform']}"),
        ("libraries", ", ".join(f"{name} {version}" for name, version in found["versions"].items() if version)),
        ("missing", f"{', '.join(missing)}; install: {INSTALL}" if missing else "nothing"),
        *((name, optional.sentence(name, state)) for name, state in found["optional"].items()),
        ("compiler", "not needed"),
    ]
    if torch is None:
        return [*rows, ("processor", f"{found['cores']} cores")]
    rows.append(("processor", f"{found['cores']} cores, torch uses {torch['threads']} threads"))
    rows.append(("devices", ", ".join(torch["devices"])))
    for path, names in found["paths"].items():
        rows.append((f"{path} path", ", ".join(names) or "none"))
    rows += [(f"data {name}", text) for name, text in (found["data"] or {}).items()]
    return rows


def _version(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def _torch() -> dict[str, Any]:
    import torch

    devices = ["cpu"]
    if torch.cuda.is_available():
        devices += [f"cuda:{i} ({torch.cuda.get_device_name(i)})" for i in range(torch.cuda.device_count())]
    if torch.backends.mps.is_available():
        devices.append("mps")
    return {"version": torch.__version__, "threads": torch.get_num_threads(), "devices": devices}


def _paths() -> dict[str, list[str]]:
    """The window methods by the path of the commonest call: a map, windows of 2×2, no training."""
    import torch

    from poolkit.torch import Pool2d

    paths: dict[str, list[str]] = {}
    for name, method in poolkit.WINDOW_METHODS.items():
        explained = Pool2d(method(), 2).eval().explain(torch.zeros(1, 1, 4, 4))
        paths.setdefault(explained.path, []).append(name)
    return paths


def _data(data_dir: Path | None) -> dict[str, str]:
    """Where the published data sets are, or that they are not."""
    from poolkit.lab.fetch import Archive, DataError, DataMissing, copies
    from poolkit.lab.published import PUBLISHED

    found = {}
    for name, published in PUBLISHED.items():
        archives = [part for part in vars(published).values() if isinstance(part, Archive)]
        try:
            places = copies(published.title, archives, data_dir, download=False)
            found[name] = ", ".join(dict.fromkeys(str(p if p.is_dir() else p.parent) for p in places))
        except DataMissing:
            found[name] = f"not here; poolkit train --data {name} downloads it"
        except DataError as error:
            found[name] = f"damaged: {str(error).splitlines()[0]}"
    return {**found, "digits": "part of scikit-learn"}
