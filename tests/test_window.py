"""Where windows lie: torch's sizes, TensorFlow's rule, and errors that name the argument."""

from __future__ import annotations

import itertools
import math
from typing import Any

import numpy as np
import pytest

from poolkit.window import Window, window
from poolkit.xp import numpy_words


def test_a_window_says_its_dimensions_and_cells() -> None:
    w = window((3, 2), dims=2)
    assert (w.dims, w.k, w.stride, w.padding, w.dilation, w.ceil_mode) == (2, 6, (3, 2), (0, 0), (1, 1), False)
    assert window([3], dims=3).size == (3, 3, 3)


def test_sizes_are_those_of_torch_wherever_torch_accepts() -> None:
    torch = pytest.importorskip("torch")
    compared = 0
    for k, s, d, ceil in itertools.product(range(1, 5), range(1, 5), range(1, 4), (False, True)):
        for pad, length in itertools.product(range(k // 2 + 1), range(1, 13)):
            layer = torch.nn.MaxPool1d(k, s, pad, d, ceil_mode=ceil)
            try:
                want = layer(torch.zeros(1, 1, length)).shape[-1]
            except RuntimeError:
                with pytest.raises(ValueError, match="larger than the picture"):
                    window(k, s, pad, d, ceil, dims=1).output_size((length,))
                continue
            arguments = {"k": k, "s": s, "pad": pad, "d": d, "ceil": ceil, "length": length}
            try:
                got = window(k, s, pad, d, ceil, dims=1).output_size((length,))
            except ValueError as refused:
                assert "wholly outside" in str(refused), arguments  # torch gives −∞ there
                continue
            assert got == (want,), arguments
            compared += 1
    assert compared > 1500


@pytest.mark.parametrize("dims", [2, 3])
def test_sizes_in_two_and_three_dimensions_are_those_of_torch(dims: int) -> None:
    torch = pytest.importorskip("torch")
    layer = (torch.nn.MaxPool2d, torch.nn.MaxPool3d)[dims - 2]
    sizes = (7, 10, 9)[:dims]
    for k, s, pad, d, ceil in itertools.product((2, 3), (1, 2, 3), (0, 1), (1, 2), (False, True)):
        per_axis = (
            tuple(k + i % 2 for i in range(dims)),
            tuple(s + i % 2 for i in range(dims)),
            (pad,) * dims,
            (d,) * dims,
        )
        got = window(*per_axis, ceil, dims=dims).output_size(sizes)
        want = layer(*per_axis, ceil_mode=ceil)(torch.zeros(1, 1, *sizes)).shape[2:]
        assert got == tuple(want), (per_axis, ceil)


def tensorflow_same(length: int, k: int, s: int, d: int) -> tuple[int, int, int]:
    """Output size and padding as TensorFlow's documentation states them: by the remainder of length and stride."""
    reach = (k - 1) * d + 1
    rest = length % s
    total = max(reach - s, 0) if rest == 0 else max(reach - rest, 0)
    return math.ceil(length / s), total // 2, total - total // 2


def test_same_is_the_rule_of_tensorflow() -> None:
    for length, k, s, d in itertools.product(range(1, 13), range(1, 5), range(1, 5), range(1, 4)):
        (axis,) = _axes(window(k, s, "same", d, dims=1), length)
        if axis is not None:
            assert (axis.out, axis.before, axis.after) == tensorflow_same(length, k, s, d), (length, k, s, d)


def _axes(w: Window, length: int) -> tuple[Any, ...]:
    try:
        return w.axes((length,))
    except ValueError as refused:
        assert "wholly outside" in str(refused)
        return (None,)


@pytest.mark.parametrize(
    ("length", "k", "s", "out", "before", "after"),
    [(5, 2, 2, 3, 0, 1), (224, 3, 2, 112, 0, 1), (7, 3, 1, 7, 1, 1), (6, 4, 1, 6, 1, 2), (6, 2, 3, 2, 0, 0)],
)
def test_same_by_hand(length: int, k: int, s: int, out: int, before: int, after: int) -> None:
    (axis,) = window(k, s, "same", dims=1).axes((length,))
    assert (axis.out, axis.before, axis.after) == (out, before, after)


def test_an_axis_counts_as_one_counts_on_paper() -> None:
    grid = itertools.product(
        range(1, 8),
        range(1, 4),
        range(1, 4),
        (1, 2, 3),
        ((0, False), (1, False), (0, True), (1, True), ("same", False)),
    )
    for length, k, s, d, (pad, ceil) in grid:
        if isinstance(pad, int) and pad > (d * (k - 1) + 1) // 2:
            continue
        try:
            (axis,) = window(k, s, pad, d, ceil, dims=1).axes((length,))
        except ValueError:
            continue
        windows = [[o * s - axis.before + j * d for j in range(k)] for o in range(axis.out)]
        inside = [[j for j, cell in enumerate(cells) if cell in range(length)] for cells in windows]
        about = (length, k, s, d, pad, ceil)
        assert axis.extent == windows[0][-1] - windows[0][0] + 1, about
        assert [axis.start(o) for o in range(axis.out)] == [cells[0] for cells in windows], about
        assert [axis.inside(o) for o in range(axis.out)] == inside, about
        assert axis.complete == sum(len(cells) == k for cells in inside), about
        assert axis.dropped == max(0, length - 1 - windows[-1][-1]), about
        assert axis.overhang == max(0, windows[-1][-1] - (length - 1 + axis.after)), about
        assert axis.reaches_out or all(len(cells) == k for cells in inside), about
        assert not axis.reaches_out or axis.before or axis.after or windows[-1][-1] >= length, about


GEOMETRIES = [
    ((5,), {"kernel_size": 3, "stride": 2, "padding": 1}),
    ((7,), {"kernel_size": 2, "stride": 3, "ceil_mode": True}),
    ((9,), {"kernel_size": 3, "stride": 1, "dilation": 3, "padding": 2}),
    ((6, 5), {"kernel_size": (2, 3), "padding": "same", "dilation": (1, 2)}),
    ((5, 6), {"kernel_size": 3, "stride": 2, "padding": 1, "ceil_mode": True}),
    ((4, 3, 5), {"kernel_size": (2, 3, 2), "stride": 2, "padding": 1, "ceil_mode": True}),
]


@pytest.mark.parametrize(("sizes", "geometry"), GEOMETRIES, ids=str)
def test_walk_and_cells_agree(sizes: tuple[int, ...], geometry: dict[str, Any]) -> None:
    w = window(**geometry, dims=len(sizes))
    x = np.arange(1.0, 1 + math.prod(sizes)).reshape(1, 1, *sizes)
    cells = w.cells(x, numpy_words())
    inside = np.ones_like(cells.x, dtype=bool) if cells.inside is None else np.broadcast_to(cells.inside, cells.x.shape)
    padded = np.broadcast_to(cells.padded, cells.x.shape[1:])
    places = 0
    for place, members, numbers in w.walk(sizes):
        at = (0, 0, *place)
        assert np.flatnonzero(inside[(slice(None), *at)]).tolist() == numbers
        assert cells.x[(numbers, *at)].tolist() == [x[(0, 0, *cell)] for cell in members]
        assert padded[at] == w.padded(sizes, place)
        assert w.at(sizes, place) == (members, numbers)
        places += 1
    assert places == math.prod(w.output_size(sizes)) == math.prod(cells.x.shape[3:])


def test_one_window_by_hand() -> None:
    w = window(2, 2, 1, dims=2)
    assert w.at((3, 3), (0, 1)) == ([(0, 1), (0, 2)], [2, 3])
    assert w.at((3, 3), (1, 0)) == ([(1, 0), (2, 0)], [1, 3])
    for place in ((2, 0), (0, -1), (0,), (0, 0, 0)):
        with pytest.raises(ValueError, match=r"no window at \(.*\): there are 2×2, counted from 0"):
            w.at((3, 3), place)


def test_ceil_mode_counts_padding_but_not_what_lies_beyond_it() -> None:
    # Length 4, padding 1: windows of 3 at −1, 1 and 3; the last one has a cell inside, one in the padding, one beyond.
    w = window(3, 2, 1, ceil_mode=True, dims=1)
    assert w.output_size((4,)) == (3,)
    assert [w.padded((4,), (o,)) for o in range(3)] == [3, 3, 2]


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ({"kernel_size": 0}, "kernel_size=0: must be whole numbers from 1"),
        ({"kernel_size": -2}, "kernel_size=-2"),
        ({"kernel_size": 2.0}, "kernel_size=2.0: must be an int or 2 ints"),
        ({"kernel_size": True}, "kernel_size=True"),
        ({"kernel_size": "2"}, "kernel_size='2'"),
        ({"kernel_size": None}, "kernel_size=None"),
        ({"kernel_size": (2, 2, 2)}, r"kernel_size=\(2, 2, 2\): must be an int or 2 ints"),
        ({"kernel_size": ()}, r"kernel_size=\(\)"),
        ({"kernel_size": (2, 1.5)}, r"kernel_size=\(2, 1.5\)"),
        ({"kernel_size": 2**31}, "kernel_size=2147483648: .*2³¹−1"),
        ({"kernel_size": 2, "stride": 0}, "stride=0: must be whole numbers from 1"),
        ({"kernel_size": 2, "stride": "same"}, "stride='same'"),
        ({"kernel_size": 2, "dilation": 0}, "dilation=0: must be whole numbers from 1"),
        ({"kernel_size": 2, "padding": -1}, "padding=-1: must be whole numbers from 0"),
        ({"kernel_size": 2, "padding": 2}, "padding=2: at most half of the window, here 1"),
        ({"kernel_size": (3, 2), "padding": (2, 0)}, r"padding=\(2, 0\): at most half of the window, here 1"),
        ({"kernel_size": 2, "padding": "valid"}, "padding='valid': must be cells .* or \"same\""),
        ({"kernel_size": 2, "padding": None}, "padding=None"),
        ({"kernel_size": 2, "ceil_mode": 1}, "ceil_mode=1: must be True or False"),
    ],
)
def test_an_error_names_the_argument_and_what_is_allowed(arguments: dict[str, Any], says: str) -> None:
    with pytest.raises(ValueError, match=says):
        window(**arguments, dims=2)


def test_a_window_larger_than_the_picture_is_refused_with_the_axis() -> None:
    with pytest.raises(ValueError, match=r"a window of 2×3 .* is larger than the picture: axis 1 has 2 cells and 0 of"):
        window((2, 3), dims=2).output_size((4, 2))


def test_padding_makes_room_for_a_window_larger_than_the_picture() -> None:
    assert window(3, padding=1, dims=1).output_size((1,)) == (1,)
    assert window(2, ceil_mode=True, dims=1).output_size((1,)) == (1,)


def test_a_window_wholly_outside_is_refused() -> None:
    # Cells at −2 and 2 with a picture of 2 cells between them.
    with pytest.raises(ValueError, match="wholly outside a picture of 2: use less padding or dilation"):
        window(2, stride=1, padding=2, dilation=4, dims=1).output_size((2,))
    # Of three windows only the middle one, with its cells at −1 and 3.
    with pytest.raises(ValueError, match="wholly outside a picture of 3"):
        window(2, stride=1, padding=2, dilation=4, dims=1).output_size((3,))


@pytest.mark.parametrize("sizes", [(0, 3), (3, 0)])
def test_a_picture_without_cells_is_refused(sizes: tuple[int, int]) -> None:
    with pytest.raises(ValueError, match="has no cells to pool"):
        window(1, dims=2).output_size(sizes)


def test_a_picture_of_another_rank_is_refused() -> None:
    with pytest.raises(ValueError, match="a 2-d window cannot walk a picture of sizes"):
        window(2, dims=2).output_size((4,))


def test_explain_in_words() -> None:
    assert window(2, dims=2).explain((4, 4)) == "4×4 cells → 2×2 windows of 2×2, stride 2×2"
    assert window(3, 2, 1, dims=2).explain((4, 4)).splitlines()[1].startswith("3 of 4 windows reach over the edge")
    assert "axis 0: the last 1 of 5 cells are read by no window (ceil_mode=True reads more)" in window(
        2, dims=1
    ).explain((5,))


def test_explain_offers_ceil_mode_only_where_it_helps() -> None:
    # A third window of 2 cells, 3 apart, would start after 6 cells: ceil mode drops it too.
    assert window(2, 3, dims=1).explain((6,)).endswith("the last 1 of 6 cells are read by no window")
    assert window(2, 3, ceil_mode=True, dims=1).explain((6,)).endswith("the last 1 of 6 cells are read by no window")


@pytest.mark.parametrize(("sizes", "geometry"), GEOMETRIES, ids=str)
def test_explain_counts_the_windows_at_the_edge_as_walking_does(
    sizes: tuple[int, ...], geometry: dict[str, Any]
) -> None:
    w = window(**geometry, dims=len(sizes))
    short = sum(len(numbers) < w.k for _, _, numbers in w.walk(sizes))
    said = [line for line in w.explain(sizes).splitlines() if "reach over the edge" in line]
    assert said == (
        [f"{short} of {math.prod(w.output_size(sizes))} windows reach over the edge; cells outside never count"]
        if short
        else []
    )


def test_numpy_integers_are_whole_numbers() -> None:
    w = window(np.int64(3), (np.int32(2), np.uint8(1)), np.int8(1), np.int16(2), dims=2)
    assert w == window(3, (2, 1), 1, 2, dims=2)
    assert all(type(v) is int for v in (*w.size, *w.stride, *w.padding, *w.dilation))
    for wrong in (np.bool_(True), np.float64(2), np.int64(0), (np.bool_(True), 1), True):
        with pytest.raises(ValueError, match="kernel_size"):
            window(wrong, dims=2)


@pytest.mark.parametrize("length", [16_777_217, 2**31 + 1, 2**40])
def test_large_pictures_are_counted_exactly(length: int) -> None:
    assert window(2, dims=1).output_size((length,)) == (length // 2,)
    assert window(3, 2, 1, dims=1).output_size((length,)) == ((length - 1) // 2 + 1,)
    assert window(2, padding="same", dims=1).output_size((length,)) == ((length + 1) // 2,)
    assert window(2, dims=1).explain((length,))  # by arithmetic: counting would take minutes


def test_a_global_window_is_the_picture() -> None:
    w = Window.whole((3, 5))
    assert w.output_size((3, 5)) == (1, 1)
    assert w == window((3, 5), dims=2)
    assert next(iter(w.walk((3, 5))))[2] == list(range(15))
