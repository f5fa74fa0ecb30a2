"""Train the tutorial's net once over CIFAR-10 with every map method and every head, and write down what came out.

    python -m poolkit.lab.one_epoch results/one-epoch.json docs/one-epoch.md [DATA-FOLDER]

It shows that each of them trains. It does not show which is better: that takes many seeds, and `poolkit compare`.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

import poolkit
from poolkit.lab import terminal
from poolkit.lab.data import Data
from poolkit.lab.durable import write_atomic
from poolkit.lab.recipe import Recipe, named
from poolkit.lab.train import train
from poolkit.torch import MapPool2d, Pool2d

_COMMAND = "python -m poolkit.lab.one_epoch results/one-epoch.json docs/one-epoch.md"


class Between(nn.Module):
    """The tutorial's net with a method that takes no window between its second convolution and its second pool.

    Where the method gives no maps as large as it got, its numbers take the place of that pool's. Regions are the cells
    of a 4×4 grid over the map, and boxes the whole map and its quarters.
    """

    def __init__(self, method: str, shape: tuple[int, int, int], classes: int) -> None:
        super().__init__()
        channels, height, width = shape
        sizes = tuple((n - 2) // 2 - 2 for n in (height, width))
        self.conv1, self.conv2 = nn.Conv2d(channels, 32, 3), nn.Conv2d(32, 64, 3)
        self.pool1, self.pool2 = Pool2d("max", 2), Pool2d("max", 2)
        self.method: Any = MapPool2d(method, channels=64, sizes=sizes)
        rows, columns = (torch.arange(n) * 4 // n for n in sizes)
        self.register_buffer("labels", rows[:, None] * 4 + columns)
        h, w = sizes
        quarters = [(x, y, x + w / 2, y + h / 2) for y in (0, h / 2) for x in (0, w / 2)]
        self.register_buffer("boxes", torch.tensor([(0.0, 0.0, w, h), *quarters]))
        self.dense1, self.dense2 = nn.LazyLinear(64), nn.Linear(64, classes)

    def forward(self, x: Tensor) -> Tensor:
        """Scores (N, classes) of pictures (N, C, H, W)."""
        x = self.conv2(self.pool1(self.conv1(x).relu())).relu()
        y = self.method(x, *self._others(len(x)))
        y = self.pool2(y) if y.shape[2:] == x.shape[2:] else y
        return self.dense2(self.dense1(y.flatten(1)).relu())

    def _others(self, n: int) -> list[Tensor]:
        known: dict[str, Any] = {"labels": self.labels, "boxes": self.boxes}
        return [known[name].expand(n, *known[name].shape) for name in self.method.method.takes if name in known]


_ASKED = {"labels": "segments=16", "boxes": "boxes=5"}  # how many regions and boxes `Between` has


def without_window() -> dict[str, str]:
    """The map methods that take no window, by name, as they are spelled for `Between`."""
    spelled = {}
    for name, cls in poolkit.MAP_METHODS.items():
        if cls.takes_window == "never":
            spelled[name] = ":".join([name, *(asked for word, asked in _ASKED.items() if word in cls.takes)])
    return spelled


def __getattr__(name: str) -> Callable[..., nn.Module]:
    """The net of a method without a window, which a recipe names `poolkit.lab.one_epoch:inter_map`."""
    spelled = without_window()
    if (method := name.replace("_", "-")) in spelled:
        return partial(Between, spelled[method])
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def recipes() -> dict[str, Recipe]:
    """By kind and method: the tutorial's recipe for one epoch with a map method as its pools, or a head after them."""
    asked: dict[str, dict[str, Any]] = {"window: max": {}}
    for name in poolkit.MAP_METHODS:
        net = f"poolkit.lab.one_epoch:{name.replace('-', '_')}"
        asked[f"map: {name}"] = {"net": net} if name in without_window() else {"pool": name}
    asked |= {f"head: {name}": {"head": name} for name in poolkit.HEADS}
    return {label: named("tutorial", epochs=1, **changes) for label, changes in asked.items()}


def measure(known: dict[str, Any], data: Data, stored: Path) -> dict[str, Any]:
    """Train what is not known yet, and store each row when it is there."""
    rows = {row["what"]: row for row in known.get("rows", [])}
    for label, recipe in recipes().items():
        if label not in rows or rows[label]["recipe_hash"] != recipe.hash(data.sha256):
            rows[label] = {"what": label, "recipe_hash": recipe.hash(data.sha256), **_row(recipe, data)}
            write_atomic(stored, _json({"rows": list(rows.values())}))
    return {"rows": [rows[label] for label in recipes()]}


def _row(recipe: Recipe, data: Data) -> dict[str, Any]:
    try:
        run = train(recipe, data)
    except (ValueError, TypeError) as reason:
        return {"refused": str(reason)}
    if run.final is None:
        return {"refused": run.message}
    return {
        "parameters": run.parameters,
        "accuracy": run.final["accuracy"],
        "data": {"name": data.name, "sha256": data.sha256, "caveat": data.caveat},
        "date": run.finished,
        "machine": run.machine,
    }


def markdown(measured: dict[str, Any]) -> str:
    """The page of the documentation."""
    return "\n".join(_page(measured["rows"])) + "\n"


def _page(rows: list[dict[str, Any]]) -> Iterator[str]:
    trained = [row for row in rows if "accuracy" in row]
    first = trained[0]
    where, dates = first["machine"], sorted(row["date"][:10] for row in trained)
    yield "# One epoch with each map method and head"
    yield ""
    yield f"<!-- generated by `{_COMMAND}` -->"
    yield ""
    yield (
        "The tutorial's net trained once over CIFAR-10 by the tutorial's recipe (batch 32, Adam, seed 0): with each "
        "map method in place of its two max pools, or, where the method takes no window, before the second of them; "
        "and with each head in place of its flattening. It shows that each trains. One seed and one epoch do not show "
        "which is better: accuracies of single runs differ by a point or more from seed to seed."
    )
    yield ""
    yield "| kind | method | parameters | test accuracy |"
    yield "|---|---|---:|---:|"
    for row in rows:
        kind, _, name = row["what"].partition(": ")
        if "accuracy" in row:
            yield f"| {kind} | `{name}` | {row['parameters']:,} | {row['accuracy']:.1%} |"
        else:
            yield f"| {kind} | `{name}` | | {row['refused'].splitlines()[0]} |"
    yield ""
    data, days = first["data"], " to ".join(dict.fromkeys((dates[0], dates[-1])))
    yield f"{where['processor']}, {where['threads']} threads, torch {where['torch']}, {days}; `{_COMMAND}`."
    yield f"Data {data['name']}, SHA-256 {data['sha256'][:12]}…" + (f": {data['caveat']}" if data["caveat"] else "")


def _json(value: Any) -> bytes:
    return json.dumps(value, indent=1, ensure_ascii=False).encode() + b"\n"


def main(stored: str, page: str, folder: str | None = None) -> int:
    """Train what is not known yet, store it and write the page."""
    path = Path(stored)
    terminal.keep_memory()
    data = terminal.load("cifar10", Path(folder) if folder else None, offline=False)
    measured = measure(json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}, data, path)
    write_atomic(path, _json(measured))
    write_atomic(Path(page), markdown(measured).encode())
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
