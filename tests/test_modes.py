"""What a pooling layer meets in use: odd gradients, odd memory, odd sizes, odd numbers, and torch's other modes."""

from __future__ import annotations

import itertools
import math
import subprocess
import sys

import numpy as np
import pytest

from conftest import PATIENCE

torch = pytest.importorskip("torch")

from poolkit import WINDOW_METHODS, Avg, Lp, Max  # noqa: E402
from poolkit.subject import Subject, picture, uneven  # noqa: E402
from poolkit.torch import GlobalPool2d, Pool1d, Pool2d, Pool3d, pool  # noqa: E402

PATHS = ("cpu", "reference")
SMOOTH = ["soft:beta=2", "lse", "avg", "lehmer:form=soft", "blend:a=0"]
every_method = pytest.mark.parametrize("name", WINDOW_METHODS)
both_paths = pytest.mark.parametrize("path", PATHS)


def layer_of(name: str, path: str | None = None, dims: int = 2, **geometry: object) -> torch.nn.Module:
    return Subject(WINDOW_METHODS[name](), path).layer(dims, **(geometry or {"kernel_size": 2}))


# Gradients


@every_method
@both_paths
def test_a_gradient_of_any_layout_counts_by_its_numbers(name: str, path: str) -> None:
    x = picture((6, 4), 1).requires_grad_()
    y = layer_of(name, path)(x)
    g = uneven(y)
    turned, one = g.transpose(2, 3).contiguous().transpose(2, 3), torch.ones(1, dtype=g.dtype).expand_as(g)
    plain = [torch.autograd.grad(y, x, some, retain_graph=True)[0] for some in (g, torch.ones_like(g))]
    odd = [torch.autograd.grad(y, x, some, retain_graph=True)[0] for some in (turned, one)]
    assert all(torch.equal(a, b) for a, b in zip(odd, plain, strict=True))


@pytest.mark.filterwarnings("ignore:.*torch.jit:DeprecationWarning")  # torch's own, of what it uses itself
@every_method
def test_forward_over_reverse_is_reverse_over_reverse(name: str) -> None:
    layer, x, v = layer_of(name), picture((4, 4), 2), picture((4, 4), 3)

    def slope(t: torch.Tensor) -> torch.Tensor:
        return torch.func.grad(lambda u: (layer(u) * uneven(layer(u))).sum())(t)

    _, forward = torch.func.jvp(slope, (x,), (v,))
    _, pull = torch.func.vjp(slope, x)
    torch.testing.assert_close(forward, pull(v)[0], rtol=1e-9, atol=1e-9)  # a Hessian is symmetric


@pytest.mark.parametrize("spelling", SMOOTH)
def test_third_derivatives_are_those_of_finite_differences(spelling: str) -> None:
    x, direction = picture((4,), 4, 1, 1), torch.tensor([[[0.3, -0.5, 0.2, 0.7]]], dtype=torch.float64)

    def curvature(t: torch.Tensor, graph: bool) -> torch.Tensor:
        t = t if t.requires_grad else t.clone().requires_grad_()
        (first,) = torch.autograd.grad(Pool1d(spelling, 4).double()(t).sum(), t, create_graph=True)
        if not first.requires_grad:
            return torch.zeros_like(t)
        (second,) = torch.autograd.grad((first * direction).sum(), t, create_graph=graph, allow_unused=True)
        return torch.zeros_like(t) if second is None else second

    leaf, h = x.clone().requires_grad_(), 1e-5
    second = curvature(leaf, True)
    third = torch.zeros_like(x)
    if second.requires_grad:
        (third,) = torch.autograd.grad((second * direction).sum(), leaf)
    for i in range(4):
        step = torch.zeros_like(x)
        step[..., i] = h
        change = (curvature(x + step, False) - curvature(x - step, False)) / (2 * h)
        assert float((change * direction).sum()) == pytest.approx(float(third[0, 0, i]), rel=1e-6, abs=1e-7)


@both_paths
@pytest.mark.parametrize("method", [Max(), Avg()], ids=str)
def test_all_of_the_gradient_arrives(method: object, path: str) -> None:
    for kernel, stride in ((2, 2), (3, 1), (3, 2)):
        x = picture((7, 7), 5).requires_grad_()
        y = Subject(method, path).layer(2, kernel_size=kernel, stride=stride)(x)  # type: ignore[arg-type]
        (slope,) = torch.autograd.grad(y, x, uneven(y))
        torch.testing.assert_close(slope.sum(), uneven(y).sum(), rtol=1e-12, atol=0)


@every_method
@both_paths
def test_backward_after_the_input_was_changed_is_refused(name: str, path: str) -> None:
    # Or it is the gradient of the input that was pooled.
    first, layer = picture((4, 4), 6).requires_grad_(), layer_of(name, path)
    (want,) = torch.autograd.grad(layer(first * 1.0).sum(), first)
    x = first * 1.0
    y = layer(x)
    x.mul_(2)
    try:
        (got,) = torch.autograd.grad(y.sum(), first)
    except RuntimeError as refused:
        assert "modified by an inplace operation" in str(refused)
    else:  # the formula keeps copies of the cells; the engine keeps the input itself and cannot know what it was
        assert path == "reference" and torch.equal(got, want)


@every_method
@both_paths
def test_frozen_unused_and_doubly_used(name: str, path: str) -> None:
    layer, x = layer_of(name, path), picture((4, 4), 7)
    for parameter in layer.parameters():
        parameter.requires_grad_(False)
    assert not layer(x).requires_grad
    leaf = x.clone().requires_grad_()
    layer(leaf)  # used by nobody
    y = layer(leaf)
    (once,) = torch.autograd.grad(y.sum(), leaf, retain_graph=True)
    (twice,) = torch.autograd.grad(y.sum() + y.sum(), leaf)
    torch.testing.assert_close(twice, 2 * once, rtol=0, atol=0)


# Sizes and places


@every_method
def test_order_of_pictures_and_channels_and_a_shift_by_a_stride(name: str) -> None:
    for path in PATHS:
        layer, x = layer_of(name, path, kernel_size=3, stride=2), picture((9, 9), 8, 3, 4)
        y = layer(x)
        order, channels = torch.tensor([2, 0, 1]), torch.tensor([3, 1, 0, 2])
        pairs = [
            (layer(x[order][:, channels]), y[order][:, channels]),
            (layer(x[:, :, 2:, 2:].contiguous()), y[:, :, 1:, 1:]),
        ]
        for got, want in pairs:  # torch's operators round by place in memory, the engine does not
            torch.testing.assert_close(got, want, rtol=0, atol=0.0 if path == "cpu" else 1e-12)


@every_method
@both_paths
def test_no_pictures_and_no_channels_are_no_error_either_way(name: str, path: str) -> None:
    for shape in ((0, 2, 4, 4), (2, 0, 4, 4)):
        x = torch.zeros(shape, dtype=torch.float64, requires_grad=True)
        y = layer_of(name, path)(x)
        y.sum().backward()
        assert y.shape == (*shape[:2], 2, 2) and x.grad is not None and x.grad.shape == shape


def test_windows_whose_cells_no_integer_counts_are_refused() -> None:
    with pytest.raises(ValueError, match="larger than the picture"):
        Pool3d("max", 2**31 - 1)(torch.zeros(1, 1, 4, 4, 4))
    with pytest.raises(ValueError, match="larger than the picture|wholly outside"):
        Pool3d("max", 3, dilation=2**31 - 1)(torch.zeros(1, 1, 4, 4, 4))


@pytest.mark.parametrize(
    "shape",
    [(1, 1, 1, 100_003), (1, 1, 100_003, 1), (70_001, 1, 2, 3), (3, 65_537, 2, 2), (1, 1, 2**17 + 1, 2)],
    ids=str,
)
def test_long_thin_and_many(shape: tuple[int, ...]) -> None:
    x = torch.randn(shape, generator=torch.Generator().manual_seed(9)).requires_grad_()
    geometry = {"kernel_size": tuple(min(3, n) for n in shape[2:]), "stride": 2, "padding": 0}
    found = []
    for layer in (Pool2d("max", **geometry), torch.nn.MaxPool2d(**geometry)):
        y = layer(x)
        found.append((y, torch.autograd.grad(y, x, uneven(y))[0]))
    assert torch.equal(found[0][0], found[1][0])
    torch.testing.assert_close(found[0][1], found[1][1], rtol=1e-6, atol=0)


@every_method
def test_strides_of_axes_with_one_cell_mean_nothing(name: str) -> None:
    dense = picture((4, 4), 10, 1, 2)
    memory = torch.cat([dense.flatten(), torch.full((50,), math.nan, dtype=dense.dtype)])
    odd = memory.as_strided((1, 2, 4, 4), (7, 16, 4, 1))
    thin = memory.as_strided((1, 2, 16, 1), (3, 16, 1, 29))
    assert torch.equal(layer_of(name)(odd), layer_of(name)(dense))
    want = layer_of(name, kernel_size=(2, 1))(dense.reshape(1, 2, 16, 1))
    assert torch.equal(layer_of(name, kernel_size=(2, 1))(thin), want)


# Numbers


@both_paths
def test_a_window_of_nothing_but_minus_infinity(path: str) -> None:
    layer, x = layer_of("max", path), torch.full((1, 1, 4, 4), -math.inf, dtype=torch.float64, requires_grad=True)
    y = layer(x)
    y.sum().backward()
    assert bool((y == -math.inf).all())
    assert torch.equal(x.grad[0, 0, ::2, ::2], torch.ones(2, 2).double()) and float(x.grad.sum()) == 4.0


@both_paths
def test_of_two_zeros_the_first_gets_the_gradient(path: str) -> None:
    for cells in ((-0.0, 0.0), (0.0, -0.0)):
        x = torch.tensor([[cells]], dtype=torch.float64, requires_grad=True)
        y = layer_of("max", path, dims=1)(x)
        y.sum().backward()
        assert y.tolist() == [[[0.0]]]
        assert x.grad.tolist() == [[[1.0, 0.0]]]


@both_paths
def test_infinities_of_both_signs_meet_only_in_their_window(path: str) -> None:
    x = torch.ones(1, 2, 1, 8, dtype=torch.float64)
    x[0, 0, 0, 2], x[0, 0, 0, 3], x[0, 0, 0, 4] = math.inf, -math.inf, math.inf
    y = layer_of("avg", path, kernel_size=(1, 2))(x)
    assert y[0, 0, 0].tolist()[::3] == [1.0, 1.0] and y[0, 0, 0, 1].isnan() and float(y[0, 0, 0, 2]) == math.inf
    assert torch.equal(y[0, 1], torch.ones(1, 4).double())


@both_paths
def test_the_divisors_at_the_edge_in_ceil_mode(path: str) -> None:
    # Length 6, windows of 3 at −1, 1, 3, 5: 2, 3, 3 and 1 cells inside; with the padding 3, 3, 3 and 2.
    x = torch.ones(1, 1, 6, 6, dtype=torch.float64)
    geometry = {"kernel_size": 3, "stride": 2, "padding": 1, "ceil_mode": True}
    inside, framed = torch.tensor([2.0, 3, 3, 1]).double(), torch.tensor([3.0, 3, 3, 2]).double()
    own = Subject(Avg(), path).layer(2, **geometry)(x)[0, 0]
    counted = Subject(Avg(count_include_pad=True), path).layer(2, **geometry)(x)[0, 0]
    torch.testing.assert_close(own, torch.ones(4, 4).double(), rtol=1e-15, atol=0)
    torch.testing.assert_close(counted, torch.outer(inside, inside) / torch.outer(framed, framed), rtol=1e-15, atol=0)


@both_paths
def test_half_precision_sums_of_large_windows_are_right(path: str) -> None:
    x = torch.full((1, 2, 256, 256), 256.0, dtype=torch.float16)
    x[:, 1] = -256.0
    layer = GlobalPool2d("avg")
    if path == "reference":
        layer.path = path
    assert layer(x).flatten().tolist() == [256.0, -256.0]


@both_paths
def test_subnormal_numbers_are_kept(path: str) -> None:
    x = torch.tensor([[[[1e-40, 3e-40], [2e-40, 0.0]]]])
    for name, want in (("max", 3e-40), ("min", 0.0), ("avg", 1.5e-40)):
        layer = Pool2d(name, 2)
        layer.path = path
        assert float(layer(x)) == pytest.approx(want, rel=1e-4)


@both_paths
@pytest.mark.parametrize("name", ["lehmer", "lehmer:p=2.5", "value-weighted", "stochastic", "lp", "lp:p=3.5", "lp:p=1"])
def test_the_slopes_of_a_mean_do_not_change_with_the_scale_down_to_subnormal_cells(name: str, path: str) -> None:
    layer = Pool2d(name, 2).eval()
    layer.path = path
    found = []
    for scale in (1.0, 2.0**-130):  # exact: the cells have three digits
        x = (torch.tensor([[[[1.0, 4.0], [2.0, 7.0]]]]) * scale).requires_grad_()
        y = layer(x)
        found.append((float(y.detach()) / scale, torch.autograd.grad(y, x, torch.ones_like(y))[0]))
    assert found[0][0] == pytest.approx(found[1][0], rel=2.0**-16)  # as many digits as subnormal numbers have here
    torch.testing.assert_close(*(slopes for _, slopes in found), rtol=1e-5, atol=1e-6)


def test_slopes_at_the_ends_of_the_range_are_finite() -> None:
    x = torch.full((1, 1, 2, 2), 3e38, requires_grad=True)
    layer = Pool2d("stochastic", 2).eval()
    torch.testing.assert_close(torch.autograd.grad(layer(x), x, torch.ones(1, 1, 1, 1))[0], torch.full_like(x, 0.25))
    learned = Pool2d("lse:r=learn", 2)
    y = learned(torch.tensor([[[[1.0, 4.0], [2.0, 7.0]]]]) * 2.0**-140)
    assert [g.item() for g in torch.autograd.grad(y.sum(), learned.parameters())] == [0.0]


def test_pooling_leaves_the_processor_s_flags_alone() -> None:
    code = (
        "import numpy as np, torch, poolkit; from poolkit.torch import pool\n"
        "pool(torch.randn(8, 16, 64, 64), 'soft', 2)\n"
        "print(np.float32(1e-39) * np.float32(0.5) != 0, torch.tensor(1e-39).mul(0.5).item() != 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=PATIENCE, check=False)
    assert done.stdout.split() == ["True", "True"], done.stderr


@both_paths
def test_a_sum_of_powers_at_the_edge_sums_what_is_there(path: str) -> None:
    layer = Subject(Lp(p=2, reduction="sum"), path).layer(2, kernel_size=2, ceil_mode=True)
    y = layer(torch.ones(1, 1, 3, 3, dtype=torch.float64)).flatten().tolist()
    assert y == pytest.approx([2, math.sqrt(2), math.sqrt(2), 1], rel=1e-15)


@pytest.mark.parametrize("dtype", [torch.float8_e4m3fn, torch.float8_e5m2])
def test_types_too_narrow_to_pool_are_refused(dtype: torch.dtype) -> None:
    with pytest.raises(TypeError, match="float8"):
        pool(torch.ones(1, 1, 4, 4).to(dtype), "max", 2)


# torch's other modes


@pytest.mark.parametrize("name", ["max", "soft", "avg-topk", "ordinal"])
def test_one_compiled_graph_serves_pictures_of_any_size(name: str) -> None:
    torch.compiler.reset()
    layer = layer_of(name, kernel_size=3, stride=2, padding=1)
    fast = torch.compile(layer, fullgraph=True, dynamic=True, backend="aot_eager")
    for number, sizes in enumerate(((7, 8), (11, 5), (6, 6))):
        x = picture(sizes, number)
        torch.testing.assert_close(fast(x), layer(x), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("form", [torch.contiguous_format, torch.channels_last], ids=["contiguous", "channels-last"])
@pytest.mark.parametrize("name", ["max", "soft:beta=learn", "ordinal"])
def test_the_operator_keeps_what_torch_asks_of_operators(name: str, form: torch.memory_format) -> None:
    from poolkit.kernels.rows import to_rows

    layer = Pool2d(name, 2, 1, 1).double()
    values = {**layer._fixed, **{n: v.detach() for n, v in layer.learned().items()}}
    rows = to_rows(values, layer.method.tables, 4, torch.float64).requires_grad_(bool(layer.method.learned))
    x = picture((5, 4), 11).contiguous(memory_format=form).requires_grad_()
    cls = type(layer.method)
    spelling = f"{cls.__module__}:{cls.__qualname__} {layer.method.spelling}"
    arguments = (x, rows, None, None, spelling, 2, [2, 2, 1, 1, 1, 1, 0, 1, 1])
    torch.library.opcheck(torch.ops.poolkit.window_pool.default, arguments)


@every_method
def test_without_numbers_shapes_and_strides_are_the_same(name: str) -> None:
    for form, (k, s, pad, ceil) in itertools.product(
        (torch.contiguous_format, torch.channels_last), ((2, 2, 0, False), (3, 2, 1, True), (3, 1, 1, False))
    ):
        layer = layer_of(name, kernel_size=k, stride=s, padding=pad, ceil_mode=ceil)
        x = picture((7, 6), 12).contiguous(memory_format=form)
        y, shell = layer(x), layer.to("meta")(x.to("meta"))
        assert (shell.shape, shell.stride(), shell.dtype) == (y.shape, y.stride(), y.dtype)


def test_eight_threads_may_share_a_layer() -> None:
    from concurrent.futures import ThreadPoolExecutor

    layer = Pool2d("soft", 3, 2, 1)
    pictures = [torch.randn(2, 3, 8 + i, 9, generator=torch.Generator().manual_seed(i)) for i in range(8)]
    want = [layer(x).detach().numpy() for x in pictures]
    with ThreadPoolExecutor(8) as pool_of_threads:
        for _ in range(20):
            got = list(pool_of_threads.map(lambda x: layer(x).detach().numpy(), pictures))
            assert all(np.array_equal(a, b) for a, b in zip(got, want, strict=True))
