"""swap: the pooling layers of any model become poolkit's, with their geometry, and nothing happens in silence."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest

torch = pytest.importorskip("torch")

from torch import nn  # noqa: E402
from torch.nn import functional as F  # noqa: E402

import poolkit.torch as face  # noqa: E402
from poolkit import MAP_METHODS, Lp, Max, Soft, learn  # noqa: E402
from poolkit.lab import nets  # noqa: E402
from poolkit.torch import GlobalPool2d, MapPool2d, Pool2d, pool_parameters, swap  # noqa: E402

MAKERS = {1: "1d", 2: "2d", 3: "3d"}


def picture(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def small() -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(3, 4, 3), nn.MaxPool2d(2), nn.AvgPool2d(3, 2, 1), nn.AdaptiveAvgPool2d(1), nn.Flatten()
    )


GEOMETRIES: list[dict[str, Any]] = [
    {"kernel_size": 2},
    {"kernel_size": 3, "stride": 2, "padding": 1},
    {"kernel_size": 3, "stride": 2, "padding": 1, "ceil_mode": True},
    {"kernel_size": 2, "stride": 3, "ceil_mode": True},
]


@pytest.mark.parametrize("dims", [1, 2, 3])
@pytest.mark.parametrize("geometry", [*GEOMETRIES, {"kernel_size": 2, "stride": 1, "dilation": 2}], ids=str)
def test_max_pooling_swapped_for_max_gives_the_same_numbers(dims: int, geometry: dict[str, Any]) -> None:
    x = picture(2, 3, *(9, 8, 7)[:dims])
    old = getattr(nn, f"MaxPool{dims}d")(**geometry)
    new = swap(old, "max").model
    assert isinstance(new, getattr(face, f"Pool{dims}d"))
    assert torch.equal(new(x), old(x))


@pytest.mark.parametrize("dims", [1, 2, 3])
@pytest.mark.parametrize("geometry", GEOMETRIES, ids=str)
def test_average_pooling_swapped_for_avg_says_what_padding_changes(dims: int, geometry: dict[str, Any]) -> None:
    x = picture(2, 3, *(9, 8, 7)[:dims])
    for counts in (True, False):
        old = getattr(nn, f"AvgPool{dims}d")(**geometry, count_include_pad=counts)
        plain, counting = swap(old, "avg"), swap(old, "avg:count_include_pad=true")
        torch.testing.assert_close((counting if counts else plain).model(x), old(x))
        assert not counting.changed[0].note
        differs = not torch.allclose(plain.model(x), old(x))
        assert bool(plain.changed[0].note) == differs == (counts and "padding" in geometry)


@pytest.mark.parametrize("dims", [1, 2, 3])
def test_lp_and_global_layers_keep_their_numbers_where_the_method_is_theirs(dims: int) -> None:
    x = picture(2, 3, *(9, 8, 7)[:dims])
    old = getattr(nn, f"LPPool{dims}d")(3, 2)
    found = swap(old, Lp(p=3, reduction="sum"))
    torch.testing.assert_close(found.model(x.abs()), old(x.abs()))
    assert not found.changed[0].note and "it summed" in swap(old, "soft").changed[0].note
    for kind, method in (("Avg", "avg"), ("Max", "max")):
        old = getattr(nn, f"Adaptive{kind}Pool{dims}d")(1)
        torch.testing.assert_close(swap(old, method).model(x), old(x))
        assert isinstance(swap(old, method).model, getattr(face, f"GlobalPool{dims}d"))


def test_it_prints_what_changed_and_takes_it_back() -> None:
    net = small().eval()
    before, x = list(net), picture(2, 3, 17, 17)
    want = net(x)
    found = swap(net, "soft", where=nn.MaxPool2d)
    assert str(found) == (
        "soft: 1 layer changed, 0 left as they were\n"
        "  1: MaxPool2d(kernel_size=2, stride=2, padding=0, dilation=1, ceil_mode=False) → Pool2d('soft', 2)"
    )
    assert found.model is net and found.changed[0].old is before[1] and net[1] is found.changed[0].new
    assert not torch.equal(net(x), want)
    net.train()
    assert found.undo() is net and list(net) == before and before[1].training
    assert torch.equal(net.eval()(x), want)
    with pytest.raises(RuntimeError, match="1: no longer the layer that this swap put there"):
        found.undo()


def test_a_later_swap_is_undone_first() -> None:
    net = small()
    first, second = swap(net, "soft"), swap(net, "lp:p=3", where="1")
    with pytest.raises(RuntimeError, match="undo later swaps first"):
        first.undo()
    assert isinstance(net[3], GlobalPool2d)  # nothing was half undone
    second.undo()
    assert isinstance(first.undo()[3], nn.AdaptiveAvgPool2d)


def test_the_model_itself_may_be_the_pool() -> None:
    old = nn.MaxPool2d(3, 2, 1).eval()
    found = swap(old, Soft(beta=2))
    assert repr(found.model) == "Pool2d('soft:beta=2', 3, stride=2, padding=1)" and not found.model.training
    assert "the model itself" in str(found) and found.undo() is old


def test_shared_layers_stay_shared() -> None:
    pool = nn.MaxPool2d(2)
    block = nn.Sequential(nn.Conv2d(3, 3, 1), nn.AvgPool2d(2))
    net = nn.Sequential(pool, block, pool, block)
    found = swap(net, "ordinal")
    assert net[0] is net[2] and net[1][1] is net[3][1] and len(found.changed) == 2
    assert found.changed[0].paths == ("0", "2") and found.changed[1].paths == ("1.1", "3.1")
    assert len(list(pool_parameters(net))) == 2
    found.undo()
    assert net[0] is net[2] is pool
    # A place of a shared layer can be had alone; a place in a shared block cannot.
    assert swap(net, "soft", where="2").changed[0].paths == ("2",) and net[0] is pool
    assert swap(net, "soft", where="1").changed[0].paths == ("1.1", "3.1")


def test_mode_hooks_device_and_type_are_kept() -> None:
    seen: list[str] = []
    net = small().double().eval()
    handle = net[1].register_forward_hook(lambda layer, inputs, y: seen.append(type(layer).__name__))
    net[2].train()
    swap(net, "lp:p=learn")
    net(picture(2, 3, 17, 17).double())
    assert seen == ["Pool2d"] and [layer.training for layer in net] == [False, False, True, False, False]
    assert all(p.dtype == torch.float64 for p in pool_parameters(net)) and len(list(pool_parameters(net))) == 3
    handle.remove()
    net(picture(2, 3, 17, 17).double())
    assert seen == ["Pool2d"]
    ghost = nn.Sequential(nn.Conv2d(3, 4, 3, device="meta"), nn.MaxPool2d(2))
    swap(ghost, "soft:beta=learn")
    assert next(pool_parameters(ghost)).device.type == "meta"
    narrow = nn.Sequential(nn.Conv2d(3, 4, 3).to(torch.float8_e4m3fn), nn.MaxPool2d(2))
    swap(narrow, "gem:p=learn")
    assert torch.isfinite(narrow[1](picture(1, 4, 6, 6))).all()  # computes in a type that can


@pytest.mark.parametrize(
    ("where", "paths"),
    [
        (None, ["a.pool", "a.deep.pool", "b.pool", "end"]),
        ("a", ["a.pool", "a.deep.pool"]),
        ("a.pool", ["a.pool"]),
        ("*.pool", ["a.pool", "a.deep.pool", "b.pool"]),
        (["a.deep", "e?d"], ["a.deep.pool", "end"]),
        (nn.AdaptiveAvgPool2d, ["end"]),
        ((nn.AvgPool2d, nn.AdaptiveAvgPool2d), ["b.pool", "end"]),
        (nn.ModuleDict, ["a.pool", "a.deep.pool", "b.pool"]),
        (lambda path, layer: path.startswith("b") or getattr(layer, "stride", 0) == 3, ["a.deep.pool", "b.pool"]),
    ],
)
def test_where_takes_paths_globs_types_and_functions(where: Any, paths: list[str]) -> None:
    net = nn.Module()
    net.a = nn.ModuleDict({"pool": nn.MaxPool2d(2), "deep": nn.ModuleDict({"pool": nn.MaxPool2d(3)})})
    net.b = nn.ModuleDict({"pool": nn.AvgPool2d(2)})
    net.end = nn.AdaptiveAvgPool2d(1)
    assert [path for change in swap(net, "soft", where).changed for path in change.paths] == paths


class Functional(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3)

    def _pooled(self, x: torch.Tensor) -> torch.Tensor:
        return F.max_pool2d(x, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return F.adaptive_avg_pool2d(self._pooled(self.conv(x)), 1)


class OwnWay(nn.MaxPool2d):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return super().forward(-x)


@pytest.mark.parametrize(
    ("layer", "why"),
    [
        (nn.AdaptiveAvgPool2d(7), "adapts its windows to give 7 cells"),
        (nn.AdaptiveMaxPool2d((1, None)), r"adapts its windows to give \(1, None\) cells"),
        (nn.AdaptiveMaxPool2d(1, return_indices=True), "return_indices=True"),
        (nn.MaxPool2d(2, return_indices=True), "return_indices=True"),
        (nn.AvgPool2d(2, divisor_override=3), "divides sums of 4 cells by 3, which is no mean"),
        (nn.FractionalMaxPool2d(2, output_ratio=0.5), "places its windows at random"),
        (nn.MaxUnpool2d(2), "a kind of layer that swap does not know"),
        (OwnWay(2), "computes in its own way, not as MaxPool2d does"),
        (Functional(), r"its code calls adaptive_avg_pool2d\(\), max_pool2d\(\), which swap cannot replace"),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, nn.Module) else "",
)
def test_what_is_left_says_why(layer: nn.Module, why: str) -> None:
    with pytest.raises(ValueError, match=why):
        swap(nn.Sequential(nn.Linear(2, 2), layer), "soft")
    net = nn.Sequential(layer, nn.MaxPool2d(2))
    found = swap(net, "soft")
    assert [one.paths for one in found.left] == [("0",)] and net[0] is layer
    assert why.replace("\\", "") in str(found)
    found.undo()
    with pytest.raises(ValueError, match=f'nothing at "0" can be replaced\n  0: {type(layer).__name__}, .*'):
        swap(net, "soft", where=["0", "1"])
    assert isinstance(net[1], nn.MaxPool2d)  # refused before anything was changed


def test_refusals_say_what_was_expected() -> None:
    with pytest.raises(ValueError, match="Linear has no pooling layer\n  pooling by a function inside a forward"):
        swap(nn.Linear(2, 2), "soft")
    with pytest.raises(ValueError, match='nothing at "pool3"\n  nearest: pool2, pool1'):
        swap(nets.build("tutorial", "max", (3, 32, 32), 10, 0), "soft", where="pool3")
    with pytest.raises(ValueError, match='nothing at "0" can be replaced\n  no pooling layer is there'):
        swap(small(), "soft", where="0")
    with pytest.raises(ValueError, match="no pooling method"):
        swap(small(), "sotf")
    with pytest.raises(ValueError, match="empty list"):
        swap(small(), "soft", where=[])
    with pytest.raises(TypeError, match="wants a torch.nn.Module, got type"):
        swap(nn.MaxPool2d, "soft")  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="expected paths, a type of layer, or a function"):
        swap(small(), "soft", where=3)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="OptimizedModule: swap first, then script, compile or wrap"):
        swap(torch.compile(small(), backend="eager"), "soft")


def test_poolkits_own_layers_are_changed_where_they_are_asked_for() -> None:
    net = nn.Sequential(Pool2d("stochastic", 3, 2, padding="same", seed=5), GlobalPool2d("max", flatten=True))
    once = swap(net, "soft")
    assert not once.changed and len(once.left) == 2 and "where they are asked for" in str(once)
    swap(net, "mixed", where="0")
    assert repr(net[0]) == "Pool2d('mixed', 3, stride=2, padding='same', seed=5)"
    swap(net, "gem:p=learn", where=GlobalPool2d)
    kept = net[1]
    assert isinstance(kept, GlobalPool2d) and kept.flatten and kept.method.learned
    again = swap(net, "gem:p=learn", where="1")
    assert net[1] is kept and "already" in str(again) and not again.changed  # what it has learned is not lost


def test_what_a_method_learns_for_cells_needs_windows_and_for_channels_meets_them() -> None:
    net = small()
    found = swap(net, "ordinal")
    assert [p.numel() for p in pool_parameters(net)] == [4, 9] and "13 more numbers are learned" in str(found)
    assert [one.paths for one in found.left] == [("3",)] and "does not know" in found.left[0].why
    found.undo()
    swap(net, Soft(beta=learn(1.0, channels=4)))
    assert net(picture(2, 3, 17, 17)).shape == (2, 4) and len(list(pool_parameters(net))) == 3


@pytest.mark.parametrize("size", [8, 9, 11])
@pytest.mark.parametrize(
    "conv",
    [
        nn.Conv2d(3, 4, 3, stride=2, padding=1),
        nn.Conv2d(3, 4, 1, stride=2, bias=False),
        nn.Conv2d(3, 6, (3, 2), stride=(3, 1), dilation=2, groups=3, padding=1, padding_mode="reflect"),
        nn.utils.parametrizations.weight_norm(nn.Conv2d(3, 4, 2, stride=3)),
    ],
    ids=["3x3", "1x1", "all arguments", "weight norm"],
)
def test_a_strided_convolution_becomes_a_dense_one_and_a_pool(conv: nn.Module, size: int) -> None:
    x, net = picture(2, 3, size, size), nn.Sequential(copy.deepcopy(conv), nn.ReLU())
    want, weights = net(x), list(net.parameters())
    with pytest.raises(ValueError, match="strided_convs=True replaces strided convolutions"):
        swap(net, "soft")
    found = swap(net, "strided", strided_convs=True)  # keeping the first cell is what a stride does
    torch.testing.assert_close(net(x), want)
    assert all(a is b for a, b in zip(net.parameters(), weights, strict=True))
    assert "times its arithmetic" in str(found)
    found.undo()
    assert torch.equal(net(x), want)
    swap(net, "soft", strided_convs=True)
    assert net(x).shape == want.shape and not torch.allclose(net(x), want)
    net(x).sum().backward()
    assert all(p.grad is not None for p in weights)


def test_an_undone_convolution_has_the_weights_of_now() -> None:
    net = nn.Sequential(nn.Conv2d(3, 4, 3, stride=2))
    found = swap(net, "soft", strided_convs=True)
    net.double()
    with torch.no_grad():
        net[0][0].weight.zero_()
    found.undo()
    assert net[0].weight.dtype == torch.float64 and not net[0].weight.any() and net[0].stride == (2, 2)


def test_the_tutorials_net() -> None:
    net = nets.build("tutorial", lambda: nn.MaxPool2d(2), (3, 32, 32), 10, 0).eval()
    x = picture(2, 3, 32, 32)
    want = net(x)
    found = swap(net, "max")
    assert [change.paths for change in found.changed] == [("pool1",), ("pool2",)]
    assert torch.equal(net(x), want)
    swap(net, "avg-topk:k=2", where="pool*")
    assert torch.equal(net(x), nets.build("tutorial", "avg-topk:k=2", (3, 32, 32), 10, 0).eval()(x))


def test_a_swapped_model_copies_saves_and_compiles() -> None:
    net = small().eval()
    swap(net, "soft:beta=learn")
    x = picture(2, 3, 17, 17)
    fresh = copy.deepcopy(net)
    fresh.load_state_dict(net.state_dict())
    assert torch.equal(fresh(x), net(x))
    torch.testing.assert_close(torch.compile(net, backend="aot_eager", fullgraph=True)(x), net(x))


WINDOWED = [name for name, cls in MAP_METHODS.items() if cls.takes_window != "never"]


@pytest.mark.parametrize("name", WINDOWED)
def test_map_methods_that_take_a_window_take_the_place_of_pools(name: str) -> None:
    """The sizes are those of the old pools; nothing but the maps' pooling changes; undone, the numbers are back."""
    net, x = small().eval(), picture(2, 3, 17, 17)
    want, sizes = net(x), [net[:2](x).shape, net[:3](x).shape]
    found = swap(net, name, where=["1", "2"], example=x)
    assert [type(change.new) for change in found.changed] == [MapPool2d] * 2 and not net.training
    assert [net[:2](x).shape, net[:3](x).shape] == sizes
    assert net(x).isfinite().all() and not torch.allclose(net(x), want)
    assert torch.equal(found.undo()(x), want)


def test_the_window_of_a_map_method_is_the_old_ones() -> None:
    x = picture(2, 3, 9, 8)
    new = swap(nn.MaxPool2d(3, 2, 1, ceil_mode=True), "blur:taps=3").model
    assert torch.equal(new(x), Pool2d("blur:taps=3", 3, 2, 1, ceil_mode=True)(x))
    net = nn.Sequential(nn.Conv2d(3, 4, 3, stride=2, padding=1), nn.ReLU())
    swap(net, "lip", strided_convs=True)  # a convolution tells its channels
    assert repr(net[0][1]) == "MapPool2d('lip', 2, ceil_mode=True, channels=4)" and net[0][1].last.shape == (4, 4, 1, 1)
    assert net(x).shape == (2, 4, 5, 4)


def test_what_a_map_method_cannot_pool_is_left_and_says_why() -> None:
    net, x = small(), picture(2, 3, 17, 17)
    found = swap(net, "wavelet")
    assert [one.paths for one in found.left] == [("3",)] and "no statistic of one window" in str(found)
    found.undo()
    with pytest.raises(ValueError, match="1: MaxPool2d, lip keeps weights for each channel: example=x has the model"):
        swap(net, "lip", where="1")
    for pool, method, why in (
        (nn.MaxPool2d(3), "wavelet", "the stride must be 2"),
        (nn.MaxPool2d(3), "s3", "a grid of 4 is no multiple of the stride 3"),
        (nn.MaxPool2d(3, 1, 1), "wavelet", "the stride must be 2"),
        (MapPool2d("spp"), "blur", "has no window that blur could take"),
        (nn.AdaptiveMaxPool2d(7), "blur", "adapts its windows"),
    ):
        with pytest.raises(ValueError, match=why):
            swap(pool, method, where=type(pool))
    for name, kind in (("spp", "map method without a window"), ("netvlad", "head method")):
        with pytest.raises(TypeError, match=f"{name} is a {kind}; swap takes window methods, and map methods that"):
            swap(net, name)
    shared = nn.MaxPool2d(2)
    deep = nn.Sequential(nn.Conv2d(3, 4, 1), shared, nn.Conv2d(4, 6, 1), shared, nn.AvgPool2d(2))
    both = swap(deep, "universal", example=x)
    assert [change.paths for change in both.changed] == [("4",)] and "where there are 4 and 6 channels" in str(both)
    assert deep[4].filter.shape[0] == 6 and len(list(pool_parameters(deep))) == 1


def test_an_example_leaves_the_model_as_it_was() -> None:
    norm = nn.BatchNorm2d(3)
    net = nn.Sequential(norm, nn.MaxPool2d(2), nn.Dropout(0.5)).train()
    norm.eval()
    swap(net, "lip", example=picture(2, 3, 8, 8))
    assert net.training and net[2].training and not norm.training and not norm.num_batches_tracked
    assert all(not layer._forward_pre_hooks for layer in net)


def test_poolkits_map_pools_are_changed_where_they_are_asked_for() -> None:
    net = nn.Sequential(Pool2d("blur", 3, 2, 1), MapPool2d("spp"))
    assert not swap(net, "soft").changed
    swap(net, "s3", where="0")
    assert repr(net[0]) == "MapPool2d('s3', 3, stride=2, padding=1)"
    assert "already" in str(swap(net, "s3", where="0"))
    swap(net, "soft", where="0")
    assert repr(net[0]) == "Pool2d('soft', 3, stride=2, padding=1)"
    swap(net, "aps", where="0")
    assert repr(net[0]) == "MapPool2d('aps', 3, stride=2, padding=1)"


@pytest.mark.parametrize(
    ("name", "counts"),
    [
        ("resnet18", {"MaxPool2d": 1, "AdaptiveAvgPool2d": 1}),
        ("resnet18d", {"MaxPool2d": 1, "AvgPool2d": 3, "AdaptiveAvgPool2d": 1}),
        ("resnetblur18", {"MaxPool2d": 1, "BlurPool2d": 4, "AdaptiveAvgPool2d": 1}),
    ],
)
def test_networks_of_timm(timm: Any, name: str, counts: dict[str, int]) -> None:
    net = timm.create_model(name, num_classes=5).eval()
    x = picture(2, 3, 48, 48)
    with torch.no_grad():
        want = net(x)
        found = swap(net, "soft")
        names = [type(change.old).__name__ for change in found.changed]
        assert {kind: names.count(kind) for kind in names} == counts and not found.left
        got = net(x)
        assert got.shape == want.shape and bool(got.isfinite().all()) and not torch.allclose(got, want)
        assert torch.equal(found.undo()(x), want)
        if "BlurPool2d" not in counts:  # each layer by its own method: the network's numbers stay
            swap(net, "max", where=nn.MaxPool2d)
            swap(net, "avg", where=(nn.AvgPool2d, nn.AdaptiveAvgPool2d))
            torch.testing.assert_close(net(x), want, rtol=1e-4, atol=1e-5)


def test_layers_of_timm(timm: Any) -> None:
    from timm.layers import AttentionPool2d, BlurPool2d, LsePlus2d, SelectAdaptivePool2d
    from timm.layers import adaptive_avgmax_pool as fast
    from timm.layers.median_pool import MedianPool2d
    from timm.layers.pool2d_same import AvgPool2dSame, MaxPool2dSame

    x = picture(2, 3, 9, 8)
    for old, method in (
        (MaxPool2dSame(3, 2), "max"),
        (fast.FastAdaptiveAvgPool(flatten=True), "avg"),
        (fast.FastAdaptiveMaxPool(), "max"),
        (fast.FastAdaptiveAvgMaxPool(flatten=True), "blend:a=0.5"),
        (SelectAdaptivePool2d(pool_type="avgmax", flatten=True), "blend:a=0.5"),
        (SelectAdaptivePool2d(pool_type="fastmax", flatten=True), "max"),
        (MedianPool2d(3, 2), "median"),
    ):
        want = old(x)
        torch.testing.assert_close(swap(old, method).model(x), want)
    for old in (BlurPool2d(3), BlurPool2d(3, 4), AvgPool2dSame(3, 2), LsePlus2d()):
        want = old(x)
        assert swap(old, "soft").model(x).shape == want.shape
    for old, why in (
        (SelectAdaptivePool2d(pool_type="catavgmax"), "twice the channels"),
        (fast.FastAdaptiveAvgPool(input_fmt="NHWC"), "channels last"),
        (BlurPool2d(3, 2, stride=4), "at most half of the window"),
        (AttentionPool2d(64, feat_size=7), "does not know"),
    ):
        with pytest.raises(ValueError, match=why):
            swap(old, "soft")


def test_importing_poolkit_torch_does_not_import_swap() -> None:
    with pytest.raises(AttributeError, match="no attribute 'swop'"):
        _: Callable[..., Any] = face.swop  # type: ignore[attr-defined]
    assert Max() == face.swap(nn.MaxPool2d(2), "max").method
