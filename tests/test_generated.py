"""Two hundred generated cases for every method: engine, formula and scalar form agree on any window of any picture.

The cases are the same at every run (`derandomize`); a failing one is shrunk to a small one before it is shown.
"""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import pytest

torch = pytest.importorskip("torch")

from hypothesis import HealthCheck, assume, given, settings  # noqa: E402
from hypothesis import strategies as st  # noqa: E402

from poolkit import WINDOW_METHODS, WindowMethod  # noqa: E402
from poolkit.check import variants  # noqa: E402
from poolkit.draws import draw_shape, uniform  # noqa: E402
from poolkit.method import Learn  # noqa: E402
from poolkit.subject import TOLERANCE, Subject, agree, expected, for_channels, uneven  # noqa: E402
from poolkit.window import Window, window  # noqa: E402

LAST = {4: torch.channels_last, 5: torch.channels_last_3d}
LAYOUTS = (
    "contiguous",
    "channels-last",
    "crop",
    "every second channel",
    "transposed",
    "between NaNs",
    "channels-last between NaNs",
)
VALUES = ("normal", "ties", "zeros", "constant", "negative", "one large")
SCALES = (1.0, 1e-8, 1e-4, 1e4)
LARGEST = 27  # cells of a window: one kernel for all of them
GRADIENT_TYPES = (torch.float32, torch.float64)
# Methods that compare cells with their mean: where a cell equals it, rounding chooses the side of the kink.
KINK_AT_MEAN = ("edscw", "ada")


@dataclasses.dataclass(frozen=True)
class Drawn:
    """A generated case; its cells follow from `seed`."""

    variant: int
    blend: float
    sizes: tuple[int, ...]
    geometry: tuple[tuple[str, Any], ...]
    examples: int
    channels: int
    layout: str
    dtype: torch.dtype
    values: str
    scale: float
    train: bool
    seed: int

    @property
    def window(self) -> Window:
        return window(**dict(self.geometry), dims=len(self.sizes)) if self.geometry else Window.whole(self.sizes)


@st.composite
def drawn(draw: st.DrawFn) -> Drawn:
    """Windows in one to three dimensions, with all that a window may have, on small pictures."""
    dims = draw(st.integers(1, 3))
    side = (12, 7, 4)[dims - 1]
    sizes = tuple(draw(st.lists(st.integers(1, side), min_size=dims, max_size=dims)))
    geometry: dict[str, Any] = {}
    if draw(st.integers(0, 5)):
        kernel = [draw(st.integers(1, (9, 5, 3)[dims - 1])) for _ in sizes]
        gaps = [draw(st.integers(1, 3)) for _ in sizes]
        geometry = {"kernel_size": tuple(kernel), "dilation": tuple(gaps)}
        geometry["stride"] = tuple(draw(st.integers(1, 4)) for _ in sizes)
        if draw(st.integers(0, 3)):
            most = [(g * (k - 1) + 1) // 2 for k, g in zip(kernel, gaps, strict=True)]
            geometry["padding"] = tuple(draw(st.integers(0, m)) for m in most)
            geometry["ceil_mode"] = draw(st.booleans())
        else:
            geometry["padding"] = "same"
    assume(math.prod(geometry.get("kernel_size", sizes)) <= LARGEST)
    return Drawn(
        variant=draw(st.integers(0, 10**6)),
        blend=draw(st.floats(0, 1, width=16)),
        sizes=sizes,
        geometry=tuple(geometry.items()),
        examples=draw(st.integers(1, 3)),
        channels=draw(st.sampled_from((1, 2, 3, 17))),
        layout=draw(st.sampled_from(LAYOUTS)),
        dtype=draw(st.sampled_from((torch.float64, torch.float64, torch.float32, torch.float16, torch.bfloat16))),
        values=draw(st.sampled_from(VALUES)),
        scale=draw(st.sampled_from(SCALES)),
        train=draw(st.booleans()),
        seed=draw(st.integers(0, 2**31)),
    )


def method_of(cls: type[WindowMethod], case: Drawn) -> WindowMethod:
    """A variant of the method, with its fixed numbers anywhere between those worth trying."""
    choices = list(variants(cls))
    one = choices[case.variant % len(choices)]
    fields: dict[str, Any] = {}
    for number, (name, declared) in enumerate(cls.params().items()):
        value, tries = getattr(one, name), [declared.default, *declared.tries]
        if isinstance(value, Learn) or isinstance(value, bool) or not isinstance(value, (int, float)):
            continue
        if (case.variant >> number) % 2:  # half of them stay at a value worth trying
            share = math.modf(case.blend * (number + 1))[0]
            value = type(value)(min(tries) + share * (max(tries) - min(tries)))
        fields[name] = value
    return for_channels(dataclasses.replace(one, **fields), case.channels)


def cells_of(case: Drawn) -> torch.Tensor:
    """Cells of size about 1, times the scale; ranks and ties are the same in every type."""
    generator = torch.Generator().manual_seed(case.seed)
    shape = (case.examples, case.channels, *case.sizes)
    x = torch.randn(shape, generator=generator, dtype=torch.float64).clamp(-3, 3)
    if case.values == "ties":
        x = torch.randint(-2, 3, shape, generator=generator).double()
    elif case.values == "zeros":
        x = x.clamp(min=0) * (x > 0.5)
    elif case.values == "constant":
        x = x[:, :, :1].mean(tuple(range(2, x.dim())), keepdim=True).expand(shape)
    elif case.values == "negative":
        x = -x.abs()
    elif case.values == "one large":
        x = torch.where(torch.rand(shape, generator=generator) < 0.1, 3.0, x / 1000)
    half = case.dtype in (torch.float16, torch.bfloat16)
    return (x * (1.0 if half else case.scale)).to(case.dtype)


def laid_out(x: torch.Tensor, layout: str) -> torch.Tensor:
    """The same numbers in another place of memory; what lies around them is NaN."""
    if layout == "channels-last":
        return x.contiguous(memory_format=LAST[x.dim()]) if x.dim() in LAST else x
    if layout == "transposed":
        return x.transpose(0, -1).contiguous().transpose(0, -1)
    if layout.endswith("between NaNs"):
        memory = torch.full((x.numel() + 200,), math.nan, dtype=x.dtype)
        strides = laid_out(x, layout.split()[0]).stride() if layout.startswith("channels") else x.contiguous().stride()
        view = memory[100:].as_strided(x.shape, strides, 100)
    else:
        every = layout == "every second channel"
        memory = torch.full(
            (x.shape[0], x.shape[1] * (1 + every), *(n + 2 for n in x.shape[2:])), math.nan, dtype=x.dtype
        )
        view = memory[(slice(None), slice(None, None, 1 + every), *[slice(1, -1)] * (x.dim() - 2))]
    if layout == "contiguous":
        return x.clone()
    view.copy_(x)
    return view


def outcome(method: WindowMethod, case: Drawn, x: torch.Tensor, path: str, wide: bool = False) -> list[torch.Tensor]:
    """Output, and in wide types the gradients, on a path; `wide`: in float64."""
    geometry = dict(case.geometry) or ({"kernel_size": case.sizes} if method.tables else {})
    layer = Subject(method, path).layer(len(case.sizes), seed=case.seed, train=case.train, **geometry)
    x = x.double() if wide else x
    layer = layer if x.dtype == torch.float64 else layer.float()
    leaf = x.detach().requires_grad_()
    y = layer(leaf)
    slopes = torch.autograd.grad(y, [leaf, *layer.parameters()], uneven(y)) if case.dtype in GRADIENT_TYPES else ()
    return [y.detach(), *slopes]


def compare(found: list[torch.Tensor], wanted: list[torch.Tensor], case: Drawn, about: str) -> None:
    """Within the tolerance of the type, of the largest number of each tensor; outputs in units of the scale."""
    scale = case.scale if case.dtype in GRADIENT_TYPES else 1.0
    for number, (got, want) in enumerate(zip(found, wanted, strict=True)):
        got, want = got.double(), want.double()
        if number == 0:
            got, want = got / scale, want / scale
        # A parameter's gradient is a sum over cells: where it cancels, its error is still of the cells' size.
        least = 3.0 * max(1.0, scale) if number > 1 else 3.0
        size = max(least, float(want.abs().max())) if want.numel() else least
        agree(got, want, TOLERANCE[case.dtype] * size, f"{about}, {'output' if number == 0 else 'gradient'}: {case}")


@pytest.mark.parametrize("name", WINDOW_METHODS)
def test_two_hundred_generated_cases(name: str, engine: Any) -> None:
    ran = 0

    @settings(max_examples=200, derandomize=True, database=None, deadline=None, suppress_health_check=list(HealthCheck))
    @given(drawn())
    def every(case: Drawn) -> None:
        nonlocal ran
        try:
            case.window.axes(case.sizes)
        except ValueError:  # a window that no picture of this size has; test_window knows which
            assume(False)
        method = method_of(WINDOW_METHODS[name], case)
        compare_paths(method, case)
        ran += 1

    every()
    assert ran >= 200


def compare_paths(method: WindowMethod, case: Drawn) -> None:
    """The four statements of one case."""
    cells = cells_of(case)
    x = laid_out(cells, case.layout)
    before = x.clone()
    found = outcome(method, case, x, "cpu")
    assert torch.equal(x, before), "the input was changed"
    wanted = outcome(method, case, cells, "reference", wide=True)
    at_kink = method.card.name in KINK_AT_MEAN and case.values in ("ties", "zeros", "constant")
    count = 1 if at_kink else len(found)
    compare(found[:count], wanted[:count], case, f"{method.spelling}: engine against formula")

    geometry = dict(case.geometry) or ({"kernel_size": case.sizes} if method.tables else {})
    layer = Subject(method, "reference").layer(len(case.sizes), seed=case.seed, train=case.train, **geometry)
    first, u = cells[:1, : min(2, case.channels)], None
    if case.channels <= 2:
        if method.draws and case.train:
            shape = (1, case.channels, *case.window.output_size(case.sizes))
            u = uniform(torch.tensor(layer._seed_key), 0, draw_shape(method.draws, shape)).double()
        exact = dataclasses.replace(
            case, dtype=torch.float64, scale=case.scale if case.dtype in GRADIENT_TYPES else 1.0
        )
        about = f"{method.spelling}: formula against scalar form"
        compare([wanted[0][:1]], [expected(layer, first, case.window, u)], exact, about)

    if not case.train or not method.draws:
        alone = outcome(method, case, laid_out(cells[-1:], case.layout), "cpu")
        compare(alone[:1], [found[0][-1:]], case, f"{method.spelling}: an example alone and in its batch")
