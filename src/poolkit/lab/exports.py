"""Export every method by `torch.export` and to ONNX, compare the numbers, and write down what came out.

    python -m poolkit.lab.exports results/exports.json docs/exports.md

An exported program takes the array formula of a method, so that it runs without poolkit.
"""

from __future__ import annotations

import hashlib
import inspect
import json
import math
import sys
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

import poolkit
from poolkit.lab.durable import write_atomic
from poolkit.method import WindowMethod
from poolkit.subject import TOLERANCE, Case, Subject, agree, case, picture, variants

#: One geometry for each thing that an export could get wrong; small windows, because each cell costs operators.
GEOMETRIES: dict[str, Case] = {
    "2d": case(5, 6, kernel_size=2, stride=2, ceil_mode=True),
    "padded": case(4, 5, kernel_size=(3, 2), stride=2, padding=(1, 0)),
    "same": case(4, 5, kernel_size=(1, 3), stride=2, padding="same", dilation=(1, 2)),
    "1d": case(7, kernel_size=3, stride=2, padding=1),
    "3d": case(4, 3, 4, kernel_size=(2, 1, 2), stride=2),
    "global": case(5, 4),
}
TRACED, RUN = 2, 5  # pictures in the batch of the example, and in the batch that the exported program is given


@dataclass(frozen=True)
class Exported:
    """One method's row: layers tried, and the largest error of each format, or why it could not be exported."""

    method: str
    layers: int
    export: float | str
    onnx: float | str
    formula: str


class Layers(nn.Module):
    """Several pooling layers, each on pictures of its own, as one module: an export costs seconds, a layer little."""

    def __init__(self, layers: list[nn.Module], inputs: list[int]) -> None:
        super().__init__()
        self.layers, self.inputs = nn.ModuleList(layers), inputs

    def forward(self, pictures: list[Tensor]) -> list[Tensor]:
        """What each layer makes of its pictures."""
        return [layer(pictures[i]) for layer, i in zip(self.layers, self.inputs, strict=True)]


def window_methods() -> dict[str, type[WindowMethod]]:
    """The methods that this page is about, by name."""
    return dict(poolkit.WINDOW_METHODS)


def layers(method: type[WindowMethod]) -> Layers:
    """A method with its defaults on every geometry, and on the first with what it can learn and its other values."""
    first, *others = (Subject(variant) for variant in variants(method))
    pairs = [(first.on(c), i) for i, c in enumerate(GEOMETRIES.values())]
    pairs += [(other.on(GEOMETRIES["2d"]), 0) for other in others]
    return Layers([layer.float() for layer, _ in pairs], [i for _, i in pairs])


def pictures(batch: int) -> list[Tensor]:
    """Pictures for each geometry; a larger batch has other pictures."""
    return [picture(c.sizes, seed=batch + i, n=batch).float() for i, c in enumerate(GEOMETRIES.values())]


def program(model: nn.Module) -> torch.export.ExportedProgram:
    """The model exported with a batch of any size."""
    batch = torch.export.Dim("batch")
    given = pictures(TRACED)
    return torch.export.export(model, (given,), dynamic_shapes=([{0: batch} for _ in given],))


def onnx_runner(exported: torch.export.ExportedProgram) -> Callable[[list[Tensor]], list[Tensor]]:
    """The same in ONNX, run by onnxruntime."""
    import onnxruntime

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch.onnx's own, on names that torch has renamed
        stored = torch.onnx.export(exported, dynamo=True, verbose=False)
    session = onnxruntime.InferenceSession(stored.model_proto.SerializeToString())  # type: ignore[union-attr]
    names = [one.name for one in session.get_inputs()]

    def run(given: list[Tensor]) -> list[Tensor]:
        fed = {name: x.numpy() for name, x in zip(names, given, strict=True)}
        return [torch.from_numpy(y) for y in session.run(None, fed)]

    return run


def error(got: list[Tensor], want: list[Tensor]) -> float:
    """The largest error, relative to the largest cell or the result; raises `Broken` beyond float32's tolerance."""
    worst = 0.0
    for number, (g, w) in enumerate(zip(got, want, strict=True)):
        agree(g, w, torch.float32, f"layer {number}")
        worst = max(worst, float(((g - w).abs() / w.abs().clamp(min=3)).max()))
    return worst


def try_method(method: type[WindowMethod]) -> Exported:
    """Export a method's layers in both formats and compare their numbers with the eager ones."""
    model = layers(method)
    given = pictures(RUN)
    with torch.no_grad():
        want = _by_formula(model, given)
        exported = program(model)
        traced = _outcome(lambda: error(exported.module()(given), want))
        stored = _outcome(lambda: error(onnx_runner(exported)(given), want))
    return Exported(method.card.name, len(model.layers), traced, stored, formula(method))


def _by_formula(model: Layers, given: list[Tensor]) -> list[Tensor]:
    """What the layers make of the pictures by the formula: its distance from the engine is no error of an export."""
    for layer in model.layers:
        layer.path = "reference"  # type: ignore[assignment]
    want = model(given)
    for layer in model.layers:
        layer.path = None  # type: ignore[assignment]
    return want


def _outcome(attempt: Callable[[], float]) -> float | str:
    try:
        return attempt()
    except Exception as reason:  # noqa: BLE001 - a failed export is a row of the table
        return f"{type(reason).__name__}: {str(reason).strip().splitlines()[0]}"


def formula(method: type[WindowMethod]) -> str:
    """A short hash of what decides a row: the method's array formula with its helpers, and the variants tried."""
    home = inspect.getmodule(method)
    helpers = [f for _, f in inspect.getmembers(home, inspect.isfunction) if inspect.getmodule(f) is home]
    own: list[Any] = [method.reduce, *helpers]
    parts = [inspect.getsource(f) for f in own] + [v.spelling for v in variants(method)]
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:12]


def measure(before: dict[str, Any]) -> dict[str, Any]:
    """All methods, with the versions that exported and ran them; rows measured before stay while they are true."""
    import onnx
    import onnxruntime

    versions = {"torch": torch.__version__, "onnx": onnx.__version__, "onnxruntime": onnxruntime.__version__}
    setting = {"versions": versions, "geometries": {k: str(c) for k, c in GEOMETRIES.items()}}
    same = all(before.get(key) == value for key, value in setting.items())
    known = {row["method"]: row for row in before.get("rows", ()) if same}
    rows = []
    for name, method in window_methods().items():
        row = known.get(name, {})
        rows.append(row if row.get("formula") == formula(method) else vars(try_method(method)))
        print(f"{name}: {rows[-1]['layers']} layers, {rows[-1]['export']}, {rows[-1]['onnx']}", file=sys.stderr)
    return {**setting, "rows": rows}


def markdown(measured: dict[str, Any]) -> str:
    """The page of the documentation."""
    return "\n".join(_page(measured)) + "\n"


def _page(measured: dict[str, Any]) -> Iterator[str]:
    versions = ", ".join(f"{name} {version}" for name, version in measured["versions"].items())
    yield "# Exports"
    yield ""
    yield "<!-- generated by `python -m poolkit.lab.exports results/exports.json docs/exports.md`, tested -->"
    yield ""
    yield "A model with poolkit's layers exports as it is; the exported program runs without poolkit:"
    yield ""
    yield "```python"
    yield 'batch = torch.export.Dim("batch")'
    yield "program = torch.export.export(model.eval(), (x,), dynamic_shapes=({0: batch},))"
    yield 'torch.onnx.export(program, dynamo=True).save("model.onnx")'
    yield "```"
    yield ""
    yield (
        "It takes the array formula of a method instead of the CPU engine. Random methods export what they compute in "
        "evaluation. The batch may be of any size; the sizes of the pictures are those of the example."
    )
    yield ""
    yield (
        "Each method was exported with its defaults in these geometries, and in the first of them with every value "
        "that its contracts try and with what it learns, for the layer and for each channel:"
    )
    yield ""
    yield from (f"- {name}: {words}" for name, words in measured["geometries"].items())
    yield ""
    yield (
        f"Traced with {TRACED} pictures and run with {RUN} others, in float32, next to the layers themselves. The "
        "error is the largest of all cells, relative to 3, the largest cell of the input, or to the result if that is "
        f"larger; beyond {TOLERANCE[torch.float32]:.1e} it is a failure. On a CPU, with {versions}."
    )
    yield ""
    yield "| method | layers | `torch.export` | ONNX |"
    yield "|---|---|---|---|"
    for row in measured["rows"]:
        yield f"| `{row['method']}` | {row['layers']} | {_cell(row['export'])} | {_cell(row['onnx'])} |"


def _cell(outcome: float | str) -> str:
    if isinstance(outcome, str):
        return f"no: {outcome}"
    return "equal" if outcome == 0 else f"{_rounded_up(outcome):.1e}"


def _rounded_up(value: float) -> float:
    """Two digits, never below the value."""
    place = 10.0 ** (math.floor(math.log10(value)) - 1)
    return math.ceil(value / place) * place


def main(stored: str, page: str) -> int:
    """Measure what is not known yet, store it and write the page; 1 if something could not be exported."""
    measured = measure(json.loads(Path(stored).read_text(encoding="utf-8")) if Path(stored).exists() else {})
    write_atomic(Path(stored), json.dumps(measured, indent=1, ensure_ascii=False).encode() + b"\n")
    write_atomic(Path(page), markdown(measured).encode())
    return int(any(isinstance(row[kind], str) for row in measured["rows"] for kind in ("export", "onnx")))


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
