"""The options of single methods: what they learn, count and choose."""

from __future__ import annotations

import copy
import math
import pickle  # noqa: S403 - only for our own bytes
from dataclasses import dataclass
from typing import Any

import pytest

torch = pytest.importorskip("torch")

from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn  # noqa: E402
from torch.utils.checkpoint import checkpoint  # noqa: E402

import poolkit  # noqa: E402
from poolkit import LSE, Blend, Mixed, OneWindow, TMaxAvg, learn  # noqa: E402
from poolkit.check import check  # noqa: E402
from poolkit.facts import BETWEEN, MONOTONE  # noqa: E402
from poolkit.torch import GlobalPool1d, Pool2d, pool, pool_parameters  # noqa: E402

PATHS = ("cpu", "reference")


def picture(n: int, c: int, size: int, seed: int = 0) -> torch.Tensor:
    """Random cells in float64."""
    return torch.randn(n, c, size, size, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def on(layer: Any, path: str) -> Any:
    """The layer, told which path to take."""
    layer.path = path
    return layer


# mixed: evaluation by frequency


def most_frequent(layer: Any, x: torch.Tensor, balance: torch.Tensor) -> torch.Tensor:
    return torch.where((balance > 0)[None, :, None, None], pool(x, "max", 2), pool(x, "avg", 2))


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("per", ["map", "region"])
def test_mixed_evaluates_each_channel_by_what_it_drew_more_often(path: str, per: str) -> None:
    x = picture(3, 6, 8)
    layer = on(Pool2d(Mixed(per=per, test="frequency"), 2, seed=5), path)
    drawn = layer.train()(x)
    took_max = ((drawn - pool(x, "max", 2)).abs() < 1e-12).to(torch.int64) * 2 - 1
    balance = took_max.sum((0, 2, 3)) if per == "region" else took_max[:, :, 0, 0].sum(0)
    assert torch.equal(layer.balance, balance)
    assert 0 < int((balance > 0).sum()) < 6, "the seed shows only one of the two"
    layer.eval()
    torch.testing.assert_close(layer(x), most_frequent(layer, x, balance), rtol=0, atol=1e-14)
    assert torch.equal(layer(x), layer(x)) and torch.equal(layer.balance, balance), "evaluation counts too"


@pytest.mark.parametrize("path", PATHS)
def test_mixed_without_a_majority_is_the_average(path: str) -> None:
    x = picture(1, 2, 4)
    layer = on(Pool2d("mixed:test=frequency", 2), path).eval()
    torch.testing.assert_close(layer(x), pool(x, "avg", 2), rtol=0, atol=1e-14)
    layer.balance = torch.tensor([0, 1])
    torch.testing.assert_close(layer(x), most_frequent(layer, x, layer.balance), rtol=0, atol=1e-14)


def test_mixed_counts_once_a_layer_where_it_draws_once_a_layer() -> None:
    layer = Pool2d("mixed:test=frequency,per=layer", 2, seed=1).train()
    layer(picture(7, 3, 4))
    assert layer.balance.shape == (1,) and abs(int(layer.balance)) in (1, 3, 5, 7)
    layer.eval()(picture(1, 5, 4))  # any number of channels


def test_what_mixed_has_counted_is_state_and_fits_its_channels_alone() -> None:
    layer = Pool2d("mixed:test=frequency", 2).train()
    untrained = copy.deepcopy(layer.state_dict())
    layer(picture(3, 6, 4))
    again = Pool2d("mixed:test=frequency", 2)
    again.load_state_dict(layer.state_dict())
    assert list(layer.state_dict()) == ["balance"] and torch.equal(again.balance, layer.balance)
    with pytest.raises(ValueError, match="counted for 6 channels, the input has 3"):
        layer(picture(1, 3, 4))
    assert not list(pool_parameters(layer))
    layer.load_state_dict(untrained)  # back to before the first call, which any number of channels may make
    layer(picture(1, 3, 4))


@pytest.mark.parametrize("reentrant", [False, True])
def test_a_repeated_call_of_activation_checkpointing_is_counted_once(reentrant: bool) -> None:
    torch.manual_seed(3)
    x, layer = picture(5, 4, 6).requires_grad_(), Pool2d("mixed:test=frequency", 2).train()
    y = checkpoint(layer, x, use_reentrant=reentrant)
    counted = layer.balance.clone()
    y.sum().backward()
    assert torch.equal(layer.balance, counted) and bool((counted != 0).any())
    took_max = ((y - pool(x, "max", 2)).abs() < 1e-12)[:, :, 0, 0].to(torch.int64) * 2 - 1
    assert torch.equal(counted, took_max.sum(0))


def test_copies_from_before_the_first_call_are_averaged_with_their_model() -> None:
    template = Pool2d("mixed:test=frequency", 2)
    model = torch.nn.Sequential(copy.deepcopy(template), torch.nn.Conv2d(6, 3, 1), copy.deepcopy(template)).double()
    averaged = AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(0.5))
    pickled = pickle.loads(pickle.dumps(model))  # noqa: S301 - our own bytes
    assert len(pickled[0].balance) == 1, "a copy in another process is no copy of this one"
    for seed in range(2):  # two of one template may have different numbers of channels
        model(picture(3, 6, 8, seed))
        averaged.update_parameters(model)
        for mean, own in zip(averaged.buffers(), (torch.tensor(seed + 1), *model.buffers()), strict=True):
            assert torch.equal(mean, own)
    assert [len(model[i].balance) for i in (0, 2)] == [6, 3] and bool(model[0].balance.any())
    x = picture(2, 6, 8)
    torch.testing.assert_close(averaged.module[0].eval()(x), most_frequent(model[0], x, model[0].balance))


def test_a_compiled_mixed_layer_counts_its_draws() -> None:
    torch.compiler.reset()
    x, layer = picture(5, 4, 6), Pool2d("mixed:test=frequency", 2).train()
    y = torch.compile(layer, fullgraph=True, backend="aot_eager")(x)
    took_max = ((y - pool(x, "max", 2)).abs() < 1e-12)[:, :, 0, 0].to(torch.int64) * 2 - 1
    assert torch.equal(layer.balance, took_max.sum(0))


# blend: a free share, or one between 0 and 1


def test_a_share_is_learned_by_default_and_may_be_constrained() -> None:
    free, kept, fixed = Pool2d("blend", 2), Pool2d("blend:constraint=sigmoid", 2), Pool2d("blend:a=0.5", 2)
    assert [name for name, _ in free.named_parameters()] == ["raw_a"] and not list(fixed.parameters())
    x = picture(1, 2, 4).float()
    for layer in (free, kept):
        torch.testing.assert_close(layer(x), fixed(x), rtol=0, atol=1e-6)
        with torch.no_grad():
            layer.raw_a.fill_(3.0)
    assert free.learned()["a"].item() == 3.0 and 0.9 < kept.learned()["a"].item() < 1
    torch.testing.assert_close(free(x), 3 * pool(x, "max", 2) - 2 * pool(x, "avg", 2), rtol=0, atol=1e-5)


def test_a_free_share_claims_less() -> None:
    assert not {BETWEEN, MONOTONE} & set(Blend().facts)
    assert {BETWEEN, MONOTONE} <= set(Blend(constraint="sigmoid").facts)
    assert {BETWEEN, MONOTONE} <= set(Blend(a=0.3).facts)


# lse: through 0


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("cells", [(1, 4, 3, 2), (1e4, -1e4, 0, 1), (1e15, -1e15, 3, 1)])
def test_the_gradient_of_r_at_zero_is_half_the_variance(path: str, cells: tuple[float, ...]) -> None:
    x = torch.tensor([[cells]], dtype=torch.float32, requires_grad=True)
    layer = on(GlobalPool1d(LSE(r=learn(0.0))), path)
    layer(x).sum().backward()
    assert float(layer.raw_r.grad) == pytest.approx(float(x.detach().double().var(unbiased=False)) / 2, rel=1e-6)
    torch.testing.assert_close(x.grad, torch.full_like(x, 0.25), rtol=1e-6, atol=0)


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("cells", [(-3e38, 3e38, 0, 1), (1e20, 0, 0, 0)])
def test_cells_too_far_apart_give_r_an_infinite_gradient_at_zero_and_no_nan(
    path: str, cells: tuple[float, ...]
) -> None:
    x = torch.tensor([[cells]], dtype=torch.float32, requires_grad=True)
    layer = on(GlobalPool1d(LSE(r=learn(0.0))), path)
    layer(x).sum().backward()
    assert float(layer.raw_r.grad) == math.inf  # half the variance lies beyond float32
    torch.testing.assert_close(x.grad, torch.full_like(x, 0.25), rtol=1e-6, atol=0)


# t-max-avg: a threshold learned straight through


@pytest.mark.parametrize("path", PATHS)
def test_a_learned_threshold_keeps_values_and_gets_its_declared_gradient(path: str) -> None:
    x = torch.tensor([[[1.0, 4.0, 3.0, 2.0]]], dtype=torch.float64, requires_grad=True)
    layer = on(GlobalPool1d(TMaxAvg(k=3, t=learn(1.95))).double(), path)
    y = layer(x)
    y.sum().backward()
    assert y.item() == 4.0 and x.grad.flatten().tolist() == [0, 1, 0, 0]
    # The third largest cell is 2, the mean of three is 3: z = 0.05/0.1, and σ'(z)/0.1 times 4 − 3.
    t = float(layer.raw_t.detach())  # stored in float32
    s = 1 / (1 + math.exp(-(2.0 - t) / 0.1))
    assert float(layer.raw_t.grad) == pytest.approx(-s * (1 - s) / 0.1 * (4.0 - 3.0), rel=1e-12)


def test_training_moves_a_threshold_to_where_the_maximum_is_wanted() -> None:
    x = picture(8, 1, 8).float().abs()
    layer, want = Pool2d("t-max-avg:t=learn@1.5", 2), pool(x, "max", 2)
    optimiser = torch.optim.SGD(layer.parameters(), 0.5)
    for _ in range(60):
        optimiser.zero_grad()
        (layer(x) - want).square().mean().backward()
        optimiser.step()
    assert layer.learned()["t"].item() < 1.0


@dataclass(frozen=True)
class SteepSurrogate(TMaxAvg):
    """Declares another surrogate than it computes."""

    def oracle_surrogate(self, w: OneWindow, p: Any, name: str) -> float:
        return 1.01 * super().oracle_surrogate(w, p, name)


def test_another_surrogate_than_the_declared_one_is_caught() -> None:
    (wrong,) = check(SteepSurrogate(t=learn()), only=("gradient",))
    assert not wrong.passed and "surrogate gradient of t" in wrong.detail
    (right,) = check(TMaxAvg(t=learn()), only=("gradient",))
    assert right.passed, right.detail


# Others


def test_exponential_weights_draw_by_the_softmax_also_of_negative_cells() -> None:
    cells = torch.tensor([-1.0, 0.0, 2.0, 1.0], dtype=torch.float64)
    layer = GlobalPool1d("stochastic:weights=exp", seed=2)
    drawn = layer.train()(cells.expand(20_000, 1, 4)).flatten()
    found = torch.stack([(drawn == v).double().mean() for v in cells])
    want = torch.softmax(cells, 0)
    # Chi-square with 3 degrees of freedom passes 21.1 once in 10⁴; the seed is fixed.
    assert float(20_000 * ((found - want).square() / want).sum()) < 21.1
    torch.testing.assert_close(layer.eval()(cells[None, None])[0, 0, 0], (want * cells).sum(), rtol=0, atol=1e-14)


def test_a_cell_without_its_place_is_refused() -> None:
    with pytest.raises(ValueError, match="write strided:at=cell,cell=3"):
        poolkit.method("strided:cell=3")
    assert poolkit.method("strided:at=cell,cell=3").spelling == "strided:at=cell,cell=3"


@pytest.mark.parametrize("path", PATHS)
def test_an_offset_is_a_slice(path: str) -> None:
    x = picture(2, 3, 6)
    for number, (row, column) in enumerate([(0, 0), (0, 1), (1, 0), (1, 1)]):
        layer = on(Pool2d(f"strided:at=cell,cell={number}", 2), path)
        assert torch.equal(layer(x), x[..., row::2, column::2])


@pytest.mark.parametrize("n", [1, 4, 9])
def test_rank_weights_leave_a_share_out_unless_normalised(n: int) -> None:
    ones = torch.ones(1, 1, n, dtype=torch.float64)
    assert GlobalPool1d("rank-weighted")(ones).item() == pytest.approx(1 - 0.5**n, abs=1e-15)
    assert GlobalPool1d("rank-weighted:normalize=true")(ones).item() == pytest.approx(1, abs=1e-15)


def test_facts_hold_for_a_value_of_the_method() -> None:
    spelled = {s: {f.name for f in poolkit.method(s).facts} for s in ("stochastic", "stochastic:weights=exp")}
    assert "scales" in spelled["stochastic"] and "shifts" not in spelled["stochastic"]
    assert "shifts" in spelled["stochastic:weights=exp"] and "scales" not in spelled["stochastic:weights=exp"]
