"""Every method leaves by `torch.export` and ONNX with its numbers, and the page about it tells what is true now."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch")

from torch import nn  # noqa: E402

from poolkit import HEADS, MAP_METHODS, MapMethod, Median, Soft, kernels  # noqa: E402
from poolkit.lab import exports, nets  # noqa: E402
from poolkit.map_subject import MapSubject  # noqa: E402
from poolkit.subject import Broken, Subject, agree  # noqa: E402
from poolkit.torch import GlobalPool2d, Pool2d, swap  # noqa: E402
from poolkit.xp import torch_words  # noqa: E402

ROOT = Path(__file__).parents[1]
STORED = ROOT / "results" / "exports.json"
NAMES = list(exports.window_methods())


@pytest.fixture(scope="module")
def everything() -> dict[str, Any]:
    """One layer of each method in one program: an export costs as much for all of them as for a few."""
    layers = [Subject(cls()).on(exports.GEOMETRIES["2d"]).float() for cls in exports.window_methods().values()]
    model, given = exports.Layers(layers, [0] * len(layers)), exports.pictures(exports.RUN)
    with torch.no_grad():
        return {"program": exports.program(model), "given": given, "want": dict(zip(NAMES, model(given), strict=True))}


@pytest.fixture(scope="module")
def exported(everything: dict[str, Any]) -> dict[str, torch.Tensor]:
    return dict(zip(NAMES, everything["program"].module()(everything["given"]), strict=True))


@pytest.mark.parametrize("name", NAMES)
def test_torch_export_keeps_the_numbers_for_a_batch_of_another_size(
    name: str, everything: dict[str, Any], exported: dict[str, torch.Tensor]
) -> None:
    agree(exported[name], everything["want"][name], torch.float32, name)


def test_an_exported_program_needs_no_poolkit(everything: dict[str, Any]) -> None:
    # All graphs: what runs outside autocast lies in graphs of its own.
    graphs = [m.graph for m in everything["program"].graph_module.modules() if isinstance(m, torch.fx.GraphModule)]
    named = {str(node.target) for graph in graphs for node in graph.nodes if node.op == "call_function"}
    assert "aten.stack.default" in named and not any("poolkit" in name for name in named)
    assert "exports take the formula" in Pool2d("soft", 2).explain(torch.zeros(1, 1, 4, 4)).why


def test_explain_says_so_inside_an_export(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.compiler, "is_exporting", lambda: True)
    route = kernels.route(Soft(), Pool2d("soft", 2).window, torch.zeros(1, 1, 4, 4), False)
    assert route.path == "reference" and "so that it runs without poolkit" in route.why


def test_onnx_keeps_the_numbers_for_a_batch_of_another_size(everything: dict[str, Any]) -> None:
    pytest.importorskip("onnxruntime")
    got = exports.onnx_runner(everything["program"])(everything["given"])
    for name, y in zip(NAMES, got, strict=True):
        agree(y, everything["want"][name], torch.float32, name)


@pytest.mark.filterwarnings("ignore:.*is deprecated")
def test_a_swapped_network_runs_in_onnx(tmp_path: Path) -> None:
    onnxruntime = pytest.importorskip("onnxruntime")
    net = nets.build("tutorial", lambda: nn.MaxPool2d(2), (3, 12, 12), 10, 0).eval()
    swap(net, "ordinal", where="pool1")
    swap(net, "soft:beta=learn", where="pool2")
    batch, x = torch.export.Dim("batch"), torch.rand(4, 3, 12, 12)
    torch.onnx.export(
        net,
        (x[:2],),
        tmp_path / "net.onnx",
        dynamic_shapes=({0: batch},),
        input_names=["x"],
        dynamo=True,
        verbose=False,
    )
    (got,) = onnxruntime.InferenceSession(tmp_path / "net.onnx").run(None, {"x": x.numpy()})
    torch.testing.assert_close(torch.from_numpy(got), net(x).detach())


class Several(nn.Module):
    """Layers on whole maps in one program, each with inputs of its own."""

    def __init__(self, layers: list[nn.Module]) -> None:
        super().__init__()
        self.layers = nn.ModuleList(layers)

    def forward(self, given: list[list[torch.Tensor]]) -> list[torch.Tensor]:
        return [layer(*inputs) for layer, inputs in zip(self.layers, given, strict=True)]


WHOLE_MAPS: dict[str, type[MapMethod]] = {**MAP_METHODS, **HEADS}
#: What onnx has no operator for.
NOT_IN_ONNX = {"mpn-cov": "linalg_eigh"}


def on_maps(names: list[str]) -> tuple[Several, Callable[[int], list[list[torch.Tensor]]]]:
    """The layers of these methods, and inputs for any number of examples."""
    subjects = [MapSubject(WHOLE_MAPS[name]()) for name in names]
    cases = [s.some() for s in subjects]

    def given(batch: int) -> list[list[torch.Tensor]]:
        pairs = zip(subjects, cases, strict=True)
        inputs = ([s.maps(c, batch, batch), *s.others(c, batch)] for s, c in pairs)
        return [[x.float() if x.is_floating_point() else x for x in one] for one in inputs]

    return Several([s.layer(c).float() for s, c in zip(subjects, cases, strict=True)]).eval(), given


def exported_maps(
    names: list[str],
) -> tuple[torch.export.ExportedProgram, list[list[torch.Tensor]], list[torch.Tensor]]:
    """The program for a batch of any size, other inputs than it was traced with, and what the layers make of them."""
    model, given = on_maps(names)
    batch, traced = torch.export.Dim("batch"), given(exports.TRACED)
    shapes = [[{0: batch} for _ in inputs] for inputs in traced]
    with torch.no_grad():
        program = torch.export.export(model, (traced,), dynamic_shapes=(shapes,))
        return program, given(exports.RUN), model(given(exports.RUN))


def test_methods_on_whole_maps_keep_their_numbers_in_both_formats() -> None:
    """For a batch of another size than traced: one program for all of them."""
    names = [name for name in WHOLE_MAPS if name not in NOT_IN_ONNX]
    program, given, want = exported_maps(names)
    for name, got, expected in zip(names, program.module()(given), want, strict=True):
        agree(got, expected, torch.float32, name)
    pytest.importorskip("onnxruntime")
    flat = [x for inputs in given for x in inputs]
    for name, got, expected in zip(names, exports.onnx_runner(program)(flat), want, strict=True):
        agree(got, expected, torch.float32, f"{name} in ONNX")


def test_zeros_stay_zeros_in_onnx() -> None:
    """Heads divide by √(length² + ε): torch.onnx's optimiser leaves out summands of 10⁻⁸ and less."""
    pytest.importorskip("onnxruntime")
    names = ["bilinear", "netvlad", "isqrt-cov", "crow"]
    program, given, _ = exported_maps(names)
    zeros = [0.0 * x for inputs in given for x in inputs]
    want = on_maps(names)[0]([[x] for x in zeros])
    for name, got, expected in zip(names, exports.onnx_runner(program)(zeros), want, strict=True):
        agree(got, expected.detach(), torch.float32, name)


@pytest.mark.parametrize("name", NOT_IN_ONNX)
def test_what_onnx_lacks_still_leaves_by_torch_export(name: str) -> None:
    program, given, (want,) = exported_maps([name])
    agree(program.module()(given)[0], want, torch.float32, name)
    pytest.importorskip("onnxruntime")
    with pytest.raises(Exception, match=NOT_IN_ONNX[name]):
        exports.onnx_runner(program)


def test_a_row_tells_errors_and_failures_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    want = [torch.ones(2), torch.full((2,), 6.0)]
    assert exports.error([want[0], want[1] + 3e-6], want) == pytest.approx(5e-7, rel=0.1)
    with pytest.raises(Broken, match="layer 1: at"):
        exports.error([want[0], want[1] + 1e-3], want)

    def broken(*_: Any) -> None:
        raise RuntimeError("no operator\nand much more")

    monkeypatch.setattr(exports, "onnx_runner", broken)
    monkeypatch.setattr(exports, "layers", lambda method: exports.Layers([GlobalPool2d(method()).eval()], [0]))
    row = exports.try_method(Median)
    assert isinstance(row.export, float) and row.onnx == "RuntimeError: no operator"
    page = exports.markdown({"versions": {}, "geometries": {}, "rows": [vars(row)]})
    assert "| `median` | 1 | equal | no: RuntimeError: no operator |" in page


def test_the_page_is_of_this_code_and_names_every_method() -> None:
    again = "run: python -m poolkit.lab.exports results/exports.json docs/exports.md"
    if not STORED.exists():
        assert not (ROOT / "docs" / "exports.md").exists(), "a page without its measurement"
        pytest.skip(f"no stored measurement; {again}")
    stored = json.loads(STORED.read_text(encoding="utf-8"))
    now = {name: exports.formula(cls) for name, cls in exports.window_methods().items()}
    assert {row["method"]: row["formula"] for row in stored["rows"]} == now, again
    assert stored["geometries"] == {name: str(c) for name, c in exports.GEOMETRIES.items()}, again
    assert (ROOT / "docs" / "exports.md").read_text(encoding="utf-8") == exports.markdown(stored), again
    assert not [row for row in stored["rows"] if isinstance(row["export"], str) or isinstance(row["onnx"], str)]


def test_what_onnx_has_no_operator_for_is_right_for_small_numbers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.compiler, "is_exporting", lambda: True)
    words, sizes = torch_words(), torch.logspace(-30, 1.9, 500)
    numbers = {
        "expm1": torch.cat([-sizes, torch.zeros(1), sizes]),
        "log1p": torch.cat([-sizes[sizes < 0.99], torch.zeros(1), sizes]),
    }
    for word, x in numbers.items():
        want = getattr(torch, word)(x.double())
        error = (getattr(words, word)(x).double() - want).abs()
        assert bool((error <= 2 * 2.0**-23 * want.abs()).all()), word
