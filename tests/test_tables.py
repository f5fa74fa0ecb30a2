"""Learned tables: parameters with a number for each cell or rank of a window, and the methods that have them."""

from __future__ import annotations

import copy
import math
import pickle
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from torch import nn  # noqa: E402

import poolkit  # noqa: E402
from poolkit import Card, OneWindow, WindowMethod, learn, param, window  # noqa: E402
from poolkit.check import check  # noqa: E402
from poolkit.method import Learn, Param, Start  # noqa: E402
from poolkit.methods.gated import Gated  # noqa: E402
from poolkit.methods.ordinal import Ordinal  # noqa: E402
from poolkit.methods.spatial_weighted import SpatialWeighted  # noqa: E402
from poolkit.methods.tree import Tree  # noqa: E402
from poolkit.torch import GlobalPool1d, GlobalPool2d, Pool1d, Pool2d, Pool3d, pool, pool_parameters  # noqa: E402
from poolkit.xp import numpy_words  # noqa: E402

TABLED = (Ordinal, SpatialWeighted, Gated, Tree)
SEVERAL = [cls() for cls in TABLED] + [Ordinal(init="max"), Tree(levels=3)]


def picture(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float64) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def shapes(layer: nn.Module) -> dict[str, tuple[int, ...]]:
    return {name: tuple(p.shape) for name, p in layer.named_parameters()}


# What a table is


@pytest.mark.parametrize(
    ("layer", "want"),
    [
        (lambda: Pool2d("ordinal", 3), {"raw_logits": (9,)}),
        (lambda: Pool2d("spatial-weighted", (2, 3)), {"raw_logits": (6,)}),
        (lambda: Pool1d("gated:omega=learnx5", 4), {"raw_omega": (5, 4)}),
        (lambda: Pool3d("tree", 2), {"raw_leaves": (2, 8), "raw_gates": (1, 8)}),
        (
            lambda: Pool2d("tree:levels=3,leaves=learnx5", (2, 3)),
            {"raw_leaves": (5, 4, 6), "raw_gates": (3, 6)},
        ),
        (lambda: Pool2d("gated", 1), {"raw_omega": (1,)}),
    ],
)
def test_a_layer_has_its_tables_from_the_start(layer: Any, want: dict[str, tuple[int, ...]]) -> None:
    assert shapes(layer()) == want
    assert {f"raw_{name}": tuple(v.shape) for name, v in layer().learned().items()} == want


def test_a_state_goes_to_a_layer_with_the_same_window_alone() -> None:
    state = Pool2d("tree", 2).state_dict()
    assert list(state) == ["raw_leaves", "raw_gates"]
    Pool2d("tree", 2, stride=1, padding=1).load_state_dict(state)
    with pytest.raises(RuntimeError, match="size mismatch for raw_leaves"):
        Pool2d("tree", 3).load_state_dict(state)


@pytest.mark.parametrize(
    ("spelling", "want"),
    [
        ("ordinal", Ordinal()),
        ("ordinal:init=max", Ordinal(init="max")),
        ("ordinal:logits=learn", Ordinal(logits=learn())),
        ("spatial-weighted:logits=learnx64", SpatialWeighted(logits=learn(channels=64))),
        ("gated:omega=learn@-0.5x3", Gated(omega=learn(-0.5, channels=3))),
        ("tree:levels=3", Tree(levels=3)),
        ("tree:leaves=learnx2,gates=learn@0.5", Tree(leaves=learn(channels=2), gates=learn(0.5))),
    ],
)
def test_spellings_of_methods_with_tables(spelling: str, want: WindowMethod) -> None:
    one = poolkit.method(spelling)
    assert one == want and poolkit.method(one.spelling) == one and hash(one) == hash(want)
    assert pickle.loads(pickle.dumps(one)) == one == copy.deepcopy(one)  # noqa: S301 - our own bytes
    assert pickle.loads(pickle.dumps(one)).tables == one.tables  # noqa: S301


def test_a_default_table_is_learned_and_not_spelled() -> None:
    assert Ordinal().logits == Learn() and Ordinal().spelling == "ordinal"
    assert repr(Gated()) == "Gated(omega=learn())"
    assert Tree(levels=4).tables == {"leaves": 8, "gates": 7} and Ordinal().tables == {"logits": None}
    assert poolkit.Soft().tables == {}


@pytest.mark.parametrize("value", [0.0, 1, "flat", None, [0.0] * 4, float("nan")])
def test_a_table_is_always_learned(value: Any) -> None:
    with pytest.raises(ValueError, match=r"allowed: learn\(\), one number for each cell of the window"):
        Gated(omega=value)


def test_an_unknown_kind_of_table_is_refused() -> None:
    with pytest.raises(ValueError, match="table='window': allowed are 'cell', 'rank', or \"\""):
        Param(0.0, table="window")
    assert Param(0.0, table="rank").learnable


def test_a_start_has_no_end_and_knows_every_number() -> None:
    start = Ordinal(init="halves").values().logits
    assert isinstance(start, Start) and start[10_000] == -10_000 * math.log(2)
    assert Gated(omega=learn(0.5)).values().omega[7] == 0.5
    assert Tree().values().gates[0][3] == 0.0
    assert Gated().values(omega=[1.0]).omega == [1.0]
    with pytest.raises(TypeError, match="not iterable"):
        list(start)


# Where the window's size is not known


@pytest.mark.parametrize("layer", [GlobalPool1d, GlobalPool2d])
@pytest.mark.parametrize("cls", TABLED)
def test_a_global_layer_refuses_and_says_what_to_write(layer: Any, cls: type[WindowMethod]) -> None:
    name = cls.card.name
    with pytest.raises(ValueError) as refused:
        layer(name)
    assert str(refused.value).startswith(f"{name} learns one number for each ")
    sizes = "(H, W)" if layer is GlobalPool2d else "L"
    assert f'write Pool{layer.dims}d("{name}", {sizes}) with the sizes of the map' in str(refused.value)


@pytest.mark.parametrize("method", SEVERAL, ids=str)
def test_what_the_message_says_pools_the_map(method: WindowMethod) -> None:
    x = picture(2, 3, 4, 5)
    layer = Pool2d(method, (4, 5)).double()
    y = layer(x)
    assert y.shape == (2, 3, 1, 1)
    torch.testing.assert_close(pool(x, method, **{n: v for n, v in layer.learned().items()}), y)


# Where training starts


@pytest.mark.parametrize(
    ("fresh", "like"),
    [
        ("ordinal", "avg"),
        ("spatial-weighted", "avg"),
        ("gated", "mixed"),
        ("tree", "avg"),
        ("tree:levels=5", "avg"),
        ("ordinal:init=max,logits=learn@3", "avg"),
    ],
)
@pytest.mark.parametrize("padding", [0, 1])
def test_a_fresh_layer_is_a_known_method(fresh: str, like: str, padding: int) -> None:
    x = picture(2, 3, 7, 7)
    layer = Pool2d(fresh, 3, 2, padding).double()
    # A tree's leaves are stored in float32; they cancel in pairs to its last places.
    slack = 1e-6 if fresh.startswith("tree") else 1e-14
    if padding or not fresh.startswith("tree"):
        torch.testing.assert_close(layer(x), pool(x, like, 3, 2, padding), rtol=0, atol=slack)
    torch.testing.assert_close(pool(x, fresh, 3, 2, padding), pool(x, like, 3, 2, padding), rtol=0, atol=1e-14)


def test_the_other_starts_of_ordinal_by_hand() -> None:
    x = torch.tensor([[[1.0, 4.0, 3.0, 2.0]]], dtype=torch.float64)
    e6 = math.exp(6.0)
    assert pool(x, "ordinal:init=max", 4, dims=1).item() == pytest.approx((4 * e6 + 6) / (e6 + 3), abs=1e-14)
    assert pool(x, "ordinal:init=halves", 4, dims=1).item() == pytest.approx((32 + 12 + 4 + 1) / 15, abs=1e-14)


def test_a_fresh_tree_has_leaves_that_differ_and_gates_that_learn() -> None:
    layer = Pool2d("tree:levels=3", 2)
    leaves = layer.learned()["leaves"]
    assert all(not torch.equal(leaves[a], leaves[b]) for a in range(4) for b in range(a))
    assert bool(((leaves > 0.5) & (leaves < 1.5)).all())
    layer(picture(4, 2, 6, 6).float()).square().sum().backward()
    assert bool((layer.raw_leaves.grad != 0).all()) and bool((layer.raw_gates.grad[1:] != 0).all())


def test_a_start_fills_its_table() -> None:
    learned = Pool2d(Tree(leaves=learn(2.0), gates=learn(-1.0, channels=3)), 2).learned()
    assert torch.equal(learned["leaves"], torch.full((2, 4), 2.0))
    assert torch.equal(learned["gates"], torch.full((3, 1, 4), -1.0))


# What the methods compute


LOGITS = torch.tensor([0.5, -1.0, 2.0, 0.0], dtype=torch.float64)


def test_ordinal_by_hand() -> None:
    x = torch.tensor([[[1.0, 4.0, 3.0, 2.0]]], dtype=torch.float64)
    weights = torch.softmax(LOGITS, 0)
    want = float((weights * torch.tensor([4.0, 3.0, 2.0, 1.0])).sum())
    assert pool(x, "ordinal", 4, dims=1, logits=LOGITS).item() == pytest.approx(want, abs=1e-14)


def weighing(*weights: float) -> torch.Tensor:
    """Logits whose softmax are these weights, zeros included."""
    return torch.tensor([math.log(v) if v else -1e4 for v in weights], dtype=torch.float64)


@pytest.mark.parametrize(
    ("weights", "like"),
    [((1, 0, 0, 0), "max"), ((0, 0, 0, 1), "min"), ((1, 1, 1, 1), "avg"), ((1, 1, 1, 0), "rank-avg:t=3")],
)
def test_ordinal_is_every_method_of_ranks(weights: tuple[float, ...], like: str) -> None:
    x = picture(2, 3, 6, 6)
    got = pool(x, "ordinal", 2, logits=weighing(*weights))
    torch.testing.assert_close(got, pool(x, like, 2), rtol=0, atol=1e-14)


def test_spatial_weights_stay_at_their_places() -> None:
    x = picture(1, 2, 4, 4)
    got = pool(x, "spatial-weighted", 2, logits=weighing(0, 0, 1, 3))
    torch.testing.assert_close(got, 0.25 * x[..., 1::2, ::2] + 0.75 * x[..., 1::2, 1::2], rtol=0, atol=1e-14)


def test_gated_by_hand() -> None:
    x, omega = torch.tensor([[[1.0, -4.0, 3.0]]], dtype=torch.float64), torch.tensor([0.5, 0.25, -1.0])
    gate = 1 / (1 + math.exp(0.5 * 1 - 0.25 * 4 - 3) ** -1)
    assert pool(x, "gated", 3, dims=1, omega=omega).item() == pytest.approx(gate * 3.0, abs=1e-14)


def test_a_tree_of_three_levels_by_hand() -> None:
    x = torch.tensor([[[2.0, -1.0]]], dtype=torch.float64)
    leaves = torch.tensor([[1.0, 0.0], [0.0, 1.0], [2.0, 2.0], [0.0, -4.0]], dtype=torch.float64)
    gates = torch.tensor([[1.0, 2.0], [math.log(3.0), 2 * math.log(3.0)], [-9e9, 0.0]], dtype=torch.float64)
    # The gates read 0, 0 and −∞: half, half, and all to the right.
    want = 0.5 * (0.5 * (2.0 / 2) + 0.5 * (-1.0 / 2)) + 0.5 * (4.0 / 2)
    assert pool(x, "tree:levels=3", 2, dims=1, leaves=leaves, gates=gates).item() == pytest.approx(want, abs=1e-14)


def test_cells_outside_the_picture_leave_their_weight_to_those_inside() -> None:
    x, t = torch.tensor([[[1.0, 5.0]]], dtype=torch.float64), weighing(1, 2, 3)
    # Windows of three cells around each of the two.
    assert pool(x, "spatial-weighted", 3, 1, 1, dims=1, logits=t).flatten().tolist() == pytest.approx(
        [(2 * 1 + 3 * 5) / 5, (1 * 1 + 2 * 5) / 3], abs=1e-14
    )
    assert pool(x, "ordinal", 3, 1, 1, dims=1, logits=t).flatten().tolist() == pytest.approx(
        [(1 * 5 + 2 * 1) / 3] * 2, abs=1e-14
    )
    z = torch.tensor([7.0, 0.2, -0.1], dtype=torch.float64)
    first, second = (1 / (1 + math.exp(-v)) for v in (0.2 * 1 - 0.1 * 5, 7 * 1 + 0.2 * 5))
    assert pool(x, "gated", 3, 1, 1, dims=1, omega=z).flatten().tolist() == pytest.approx(
        [first * 5 + (1 - first) * 3, second * 5 + (1 - second) * 3], abs=1e-14
    )


@pytest.mark.parametrize("method", SEVERAL, ids=str)
@pytest.mark.parametrize("padding", [0, 1])
def test_each_channel_reads_its_own_table(method: WindowMethod, padding: int) -> None:
    x = picture(2, 3, 6, 6)
    tables = {
        n: picture(3, *([] if rows is None else [rows]), 9, seed=len(n)).requires_grad_()
        for n, rows in method.tables.items()
    }
    y = pool(x, method, 3, 2, padding, **tables)
    for c in range(3):
        alone = pool(x[:, c : c + 1], method, 3, 2, padding, **{n: t[c] for n, t in tables.items()})
        torch.testing.assert_close(y[:, c : c + 1], alone, rtol=0, atol=1e-14)
    y[:, 1].sum().backward()
    for t in tables.values():
        assert bool((t.grad[1] != 0).any()) and not bool(t.grad[[0, 2]].any())


@pytest.mark.parametrize("method", SEVERAL, ids=str)
@pytest.mark.parametrize("size", [1e-30, 1e4, 1e18, 1e30])
def test_values_and_gradients_are_finite_for_every_size_of_cells(method: WindowMethod, size: float) -> None:
    windows = [[1, 1, 1, 1], [1, -1, 0.5, 0], [0, 0, 0, 0], [-1, -1, -1, -0.5], [0, 0, 0, 1], [1, 1, -1, -1]]
    x = (size * torch.tensor(windows)[:, None]).requires_grad_()
    layer = Pool1d(method, 4)
    y = layer(x)
    y.sum().backward()
    assert bool(y.isfinite().all()) and bool(x.grad.isfinite().all())
    # A half open gate's own slope is of the order of its cells squared.
    if size < 1e18:
        assert all(bool(p.grad.isfinite().all()) for p in layer.parameters())
    with torch.no_grad():
        for p in layer.parameters():
            p += torch.linspace(-1, 1, p.numel()).reshape(p.shape)
    x.grad = None
    layer(x).sum().backward()
    assert bool(layer(x).isfinite().all()) and bool(x.grad.isfinite().all())


@pytest.mark.parametrize("method", SEVERAL, ids=str)
def test_numpy_reads_a_start(method: WindowMethod) -> None:
    x = picture(2, 3, 5, 5).numpy()
    cells = window(3, 2, 1, dims=2).cells(x, numpy_words())
    want = pool(torch.from_numpy(x), method, 3, 2, 1).numpy()
    np.testing.assert_allclose(method.reduce(cells, method.values()), want, rtol=0, atol=1e-14)


# Ways that torch runs a module


@pytest.mark.parametrize("method", SEVERAL, ids=str)
@pytest.mark.parametrize("layer", [Pool1d, Pool2d, Pool3d])
def test_shapes_batched_unbatched_and_empty(method: WindowMethod, layer: Any) -> None:
    sizes, out = (5, 6, 7)[: layer.dims], (2, 3, 3)[: layer.dims]
    x, one = picture(2, 3, *sizes).float(), layer(method, 2)
    assert one(x).shape == (2, 3, *out) and one(x[:0]).shape == (0, 3, *out)
    torch.testing.assert_close(one(x[0]), one(x)[0])


@pytest.mark.parametrize("method", SEVERAL, ids=str)
def test_export_and_deterministic_algorithms(method: WindowMethod) -> None:
    net, x = nn.Sequential(nn.Conv2d(3, 4, 3), Pool2d(method, 3, 2, 1)).eval(), picture(2, 3, 10, 10).float()
    torch.testing.assert_close(torch.export.export(net, (x,)).module()(x), net(x))
    before = torch.are_deterministic_algorithms_enabled()
    torch.use_deterministic_algorithms(True)
    try:
        net(x).sum().backward()
    finally:
        torch.use_deterministic_algorithms(before)


# Tables from outside


def test_the_function_takes_tables_and_refuses_what_does_not_fit() -> None:
    x = picture(2, 3, 4, 4)
    for omega, says in (
        (torch.zeros(9), r"omega has the shape \(9,\); for a window of 4 cells it must be \(4,\) or \(C, 4\)"),
        (torch.zeros(()), r"omega has the shape \(\); .* \(4,\) or \(C, 4\)"),
        (torch.zeros(1, 2, 4), r"omega has the shape \(1, 2, 4\)"),
        (torch.zeros(2, 4), "omega is learned for 2 channels, the input has 3"),
        (0.5, r"omega=0.5 is not allowed: a tensor, \(K,\) or \(C, K\)"),
        (learn(), "is not allowed: a number or a tensor"),
    ):
        with pytest.raises(ValueError, match=says):
            pool(x, "gated", 2, omega=omega)
    with pytest.raises(ValueError, match=r"gates has the shape \(4,\); .* must be \(3, 4\) or \(C, 3, 4\)"):
        pool(x, "tree:levels=3", 2, gates=torch.zeros(4))
    with pytest.raises(ValueError, match=r"gates=1.0 is not allowed: a tensor, \(3, K\) or \(C, 3, K\)"):
        pool(x, "tree:levels=3", 2, gates=1.0)


@pytest.mark.parametrize("method", SEVERAL, ids=str)
def test_the_function_is_a_fresh_layer(method: WindowMethod) -> None:
    x = picture(2, 3, 7, 7, dtype=torch.float32)
    torch.testing.assert_close(pool(x, method, 3, 2, 1), Pool2d(method, 3, 2, 1)(x))
    torch.testing.assert_close(pool(x[0], method, 2, dims=1), Pool1d(method, 2)(x[0]))


def test_a_layer_for_other_channels_is_refused_at_the_call() -> None:
    with pytest.raises(ValueError, match="logits is learned for 4 channels, the input has 3"):
        Pool2d("ordinal:logits=learnx4", 2)(picture(1, 3, 4, 4).float())


def test_explain_names_the_engine() -> None:
    pytest.importorskip("numba")
    said = Pool2d("gated", 2).explain(torch.zeros(1, 1, 4, 4))
    assert said.path == "cpu" and "a kernel of gated" in said.why


# Training


@pytest.mark.parametrize(
    ("name", "table", "read"),
    [
        ("ordinal", "logits", lambda t: torch.softmax(t, -1)),
        ("spatial-weighted", "logits", lambda t: torch.softmax(t, -1)),
        ("gated", "omega", lambda t: t),
    ],
)
def test_training_finds_the_table(name: str, table: str, read: Any) -> None:
    x, truth = picture(16, 2, 8, 8), picture(2, 4, seed=1)
    want = pool(x, name, 2, **{table: truth})
    layer = Pool2d(f"{name}:{table}=learnx2", 2).double()
    optimiser = torch.optim.LBFGS(layer.parameters(), max_iter=100, tolerance_change=1e-14)

    def loss() -> torch.Tensor:
        optimiser.zero_grad()
        value = 100 * nn.functional.mse_loss(layer(x), want)
        value.backward()
        return value

    optimiser.step(loss)
    torch.testing.assert_close(read(layer.learned()[table]), read(truth), rtol=0, atol=1e-3)


def test_training_a_tree_finds_its_leaves_and_gates() -> None:
    x = picture(1, 1, 4000)
    leaves, gates = torch.tensor([[2.0, 0.0], [0.0, 2.0]]).double(), torch.tensor([[1.0, -1.0]]).double()
    want = pool(x, "tree", 2, dims=1, leaves=leaves, gates=gates)
    layer = Pool1d("tree", 2).double()
    optimiser = torch.optim.Adam(layer.parameters(), lr=0.1)
    for _ in range(200):
        optimiser.zero_grad()
        nn.functional.mse_loss(layer(x), want).backward()
        optimiser.step()
    torch.testing.assert_close(layer.learned(), {"leaves": leaves, "gates": gates}, rtol=0, atol=0.01)


def test_pool_parameters_are_those_of_the_pooling_layers_each_once() -> None:
    shared = Pool2d("gated", 2)
    model = nn.Sequential(
        nn.Conv2d(3, 4, 3), Pool2d("soft:beta=learn", 2), nn.Sequential(shared, nn.Conv2d(4, 4, 1), shared)
    )
    model.append(Pool2d("max", 2))
    tied = Pool2d("gated", 2)
    tied.raw_omega = shared.raw_omega
    model.append(tied)
    own = list(pool_parameters(model))
    assert [id(p) for p in own] == [id(model[1].raw_beta), id(shared.raw_omega)]
    assert list(pool_parameters(nn.Conv2d(3, 4, 3))) == []
    (alone,) = pool_parameters(shared)
    assert alone is shared.raw_omega
    others = [p for p in model.parameters() if all(p is not q for q in own)]
    optimiser = torch.optim.SGD([{"params": others}, {"params": own, "weight_decay": 0.0}], lr=0.1, weight_decay=1e-4)
    model(picture(2, 3, 70, 70).float()).sum().backward()
    optimiser.step()


# Other people's tables


@dataclass(frozen=True)
class Positive(WindowMethod):
    """The mean with learned positive factors: a table with a range."""

    factors: Learn = param(1.0, low=0.0, table="cell", says="a factor for each cell")
    card = Card("positive", "Positive factors", "y = (1/n) Σ fᵢ xᵢ", "none, a test", "mean")

    def reduce(self, w, p):
        return w.mean(w.table(p.factors) * w.x)

    def oracle(self, w, p):
        return math.fsum(p.factors[i] * v for i, v in zip(w.at, w.x, strict=True)) / w.n


def test_a_table_stays_in_its_range() -> None:
    results = check(Positive, only=("card", "oracle", "numpy", "gradient", "finite", "layouts", "state"))
    assert [r.detail for r in results if not r.passed] == []
    layer = Pool1d(Positive(), 4)
    torch.testing.assert_close(layer.learned()["factors"], torch.ones(4))
    with torch.no_grad():
        layer.raw_factors -= 50.0
    assert bool((layer.learned()["factors"] >= 0).all())
    with pytest.raises(ValueError, match="starts inside the range"):
        Positive(factors=learn(0.0))


class ReadsBackwards(SpatialWeighted):
    def reduce(self, w, p):
        return w.sum(w.softmax(w.table(p.logits).flip(0)) * w.x)


class FirstChannelForAll(Gated):
    def reduce(self, w, p):
        gate = w.xp.sigmoid(w.sum(w.table(p.omega)[:, :, :1] * w.x))
        return gate * w.max(w.x) + (1.0 - gate) * w.mean(w.x)


class WeighsCellsOutside(SpatialWeighted):
    """The weights of cells outside are lost, so that the result is too small at the border."""

    def reduce(self, w, p):
        return w.sum(torch.softmax(w.table(p.logits), 0) * w.x)


class RanksByPosition(Ordinal):
    """The weights of the cells that are outside instead of those of the last ranks are left out."""

    def reduce(self, w, p):
        return w.sum(w.softmax(w.table(p.logits)) * w.ranked(w.x))


class SwapsItsChildren(Tree):
    def reduce(self, w, p):
        inner = self.table_rows("gates")
        f = [None] * inner + [w.mean(w.table(p.leaves, m) * w.x) for m in range(inner + 1)]
        for node in reversed(range(inner)):
            gate = w.xp.sigmoid(w.sum(w.table(p.gates, node) * w.x))
            f[node] = gate * f[2 * node + 2] + (1.0 - gate) * f[2 * node + 1]
        return f[0]


class DeafToItsTable(Gated):
    def reduce(self, w, p):
        gate = w.xp.sigmoid(w.sum(w.xp.stop(w.table(p.omega)) * w.x))
        return gate * w.max(w.x) + (1.0 - gate) * w.mean(w.x)


@pytest.mark.parametrize(
    ("wrong", "contract"),
    [
        (ReadsBackwards, "oracle"),
        (FirstChannelForAll, "oracle"),
        (WeighsCellsOutside, "oracle"),
        (RanksByPosition, "oracle"),
        (SwapsItsChildren, "oracle"),
        (DeafToItsTable, "gradient"),
        (DeafToItsTable, "state"),
    ],
    ids=lambda v: getattr(v, "__name__", v),
)
def test_a_wrong_table_is_caught(wrong: type[WindowMethod], contract: str) -> None:
    (caught,) = check(wrong, only=(contract,))
    assert not caught.passed
    assert caught.detail.startswith((wrong.card.name, f"{wrong.__module__}:{wrong.__qualname__}"))
    (kept,) = check(wrong.__base__, only=(contract,))
    assert kept.passed, kept.detail


@pytest.mark.parametrize(
    "method",
    [
        Ordinal(init="max", logits=learn(channels=2)),
        Tree(levels=4),
        Tree(levels=3, leaves=learn(channels=2), gates=learn(0.3, channels=2)),
        Gated(omega=learn(-0.5, channels=2)),
    ],
    ids=str,
)
def test_parameters_together_keep_the_contracts(method: WindowMethod) -> None:
    names = ("card", "oracle", "numpy", "gradient", "finite", "infinity", "layouts", "state", "compiled")
    assert [r.detail for r in check(method, only=names) if not r.passed] == []


def test_an_oracle_reads_a_plain_list() -> None:
    one = OneWindow([1.0, 4.0], [1, 3], 4, 4)
    assert SpatialWeighted().oracle(one, SpatialWeighted().values(logits=[9.0, 0.0, 9.0, math.log(3.0)])) == 3.25
    assert Ordinal().oracle(one, Ordinal().values(logits=[math.log(3.0), 0.0, 9.0, 9.0])) == 3.25
