"""The pictures and numbers of the page "From convolution to pooling".

    python docs/tools/convolution.py           # write them
    python docs/tools/convolution.py --check   # say which are not what the code computes now

The page holds its tables between `<!-- NAME: made -->` and `<!-- end -->`; its pictures lie in docs/convolution/.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from functools import lru_cache
from pathlib import Path

import numpy as np
import torch
from cells import BLUE, ORANGE, Sheet
from sklearn.datasets import load_digits, load_sample_image
from torch import Tensor, nn
from torch.nn import functional as F

import poolkit
from poolkit.lab.data import digits
from poolkit.lab.nets import build, layers
from poolkit.method import WindowMethod
from poolkit.torch import Pool2d
from poolkit.window import window

DOCS = Path(__file__).parents[1]
PAGE, PICTURES = DOCS / "from-convolution-to-pooling.md", DOCS / "convolution"
CIFAR = (3, 32, 32)
EDGE = 8  # cells of a map that a moved picture may bring in from outside the part looked at
Change = Callable[[Tensor], Tensor]

# A stroke that leans to the left, and a filter that answers where it gets brighter from left to right.
STROKE = np.array([[0, 0, 0, 2, 2], [0, 0, 1, 2, 1], [0, 0, 2, 2, 0], [0, 1, 2, 1, 0], [0, 2, 2, 0, 0]], float)
FILTER = np.array([[-1, 0, 1]] * 3, float)
MAP = np.array([[1, 3, 2, 1], [4, 6, 5, 0], [3, 1, 1, 0], [1, 2, 4, 8]], float)
WINDOWS = {
    "peak": (8, 0, 0, 0), "edge": (8, 8, 0, 0), "diagonal": (8, 0, 0, 8), "full": (8, 8, 8, 8), "grey": (2, 2, 2, 2)
}  # fmt: skip
TELLING = ("max", "avg", "median", "avg-topk:k=2", "soft", "lp:p=2", "strided")


def pooling(method: str | WindowMethod, size: int = 2, stride: int | None = None) -> Change:
    """A method as a function; its formula in float64, at test time, so that a random method gives its expectation."""
    layer = Pool2d(method, size, stride).double().eval()
    layer.path = "reference"
    return lambda x: layer(x).detach()


# --- the pictures


def convolution() -> Sheet:
    """A 3×3 filter on 5×5 cells."""
    found = F.conv2d(torch.from_numpy(STROKE)[None, None], torch.from_numpy(FILTER)[None, None])[0, 0].numpy()
    sheet = Sheet(760, 250, "A 3 by 3 filter gives 3 by 3 sums of 5 by 5 cells; ReLU keeps the positive ones")
    cell = 32
    for x, name, values, end in (
        (20, "picture, 5×5", STROKE, 2), (235, "filter, 3×3", FILTER, 2), (420, "map, 3×3", found, 6),
        (610, "after ReLU, 3×3", found.clip(min=0), 6),
    ):  # fmt: skip
        side = len(values) * cell
        sheet.text(x + side / 2, 28, name)
        sheet.grid(x, 130 - side / 2, values, cell, end=end)
    sheet.frame(20 + cell, 50, 3 * cell, 3 * cell)
    sheet.frame(420 + cell, 82, cell, cell)
    for x, sign in ((207, "∗"), (375, "="), (564, "→")):
        sheet.text(x, 136, sign, size=20, soft=True)
    pairs = zip(STROKE[:3, 1:4].flat, FILTER.flat, strict=True)
    sums = " + ".join(f"{v:g}·{w:g}".replace("-1", "(−1)") for v, w in pairs if v * w)
    sheet.text(380, 236, f"framed: {sums} = {found[0, 1]:g}; the other products are 0", size=13, soft=True)
    return sheet


def strides() -> Sheet:
    """Where a 3×3 filter stops on 5×5 cells."""
    sheet = Sheet(760, 246, "The places of a 3 by 3 filter for stride 1 and 2, without and with padding")
    cell = 22
    for number, (stride, padding) in enumerate(((1, 0), (1, 1), (2, 0), (2, 1))):
        out = window(3, stride, padding, dims=2).output_size((5, 5))[0]
        x, y = 36 + number * 185, 70
        sheet.text(x + 2.5 * cell, 24, f"stride {stride}, padding {padding}")
        sheet.grid(x, y, np.zeros((5, 5)), cell, end=1, numbers=False)
        if padding:
            sheet.frame(x - cell, y - cell, 7 * cell, 7 * cell, "#8a93a3", dashed=True)
        first = 1 - padding
        sheet.frame(x - padding * cell, y - padding * cell, 3 * cell, 3 * cell)
        for row in range(out):
            for column in range(out):
                sheet.dot(x + (first + column * stride + 0.5) * cell, y + (first + row * stride + 0.5) * cell)
        sheet.text(x + 2.5 * cell, 228, f"{out}×{out} sums")
    return sheet


def max_and_average() -> Sheet:
    """4×4 cells to 2×2."""
    sheet = Sheet(640, 240, "4 by 4 cells become 2 by 2: the largest cell of each window, or their mean")
    cell, x = torch.from_numpy(MAP)[None, None], 30
    side = 42
    sheet.text(x + 2 * side, 28, "map, 4×4")
    sheet.grid(x, 44, MAP, side, end=10)
    for row in range(2):
        for column in range(2):
            sheet.frame(x + 2 * column * side, 44 + 2 * row * side, 2 * side, 2 * side)
    for left, name in ((290, "max"), (490, "avg")):
        sheet.text(left + side, 28, f"{name}, 2×2")
        sheet.grid(left, 44 + side, pooling(name)(cell)[0, 0].numpy(), side, end=10)
    sheet.text(244, 134, "→", size=22, soft=True)
    sheet.text(432, 134, "or", soft=True)
    return sheet


def moved() -> Sheet:
    """A scanned digit, moved by one cell, and what three pools make of both."""
    digit = np.pad(load_digits().images[4][:, 1:7] / 16, ((0, 0), (1, 1)))
    both = [torch.from_numpy(np.roll(digit, by, axis=1))[None, None] for by in (0, 1)]
    sheet = Sheet(700, 470, "A digit, the same moved by one cell, and the difference, without a pool and after three")
    ways: list[tuple[str, Change]] = [("no pool", lambda x: x)] + [(n, pooling(n)) for n in ("strided", "max", "avg")]
    for number, (name, way) in enumerate(ways):
        before, after = (way(x)[0, 0].numpy() for x in both)
        x, cell = 120 + number * 145, 120 / len(before)
        sheet.text(x + 60, 26, name)
        for row, values in enumerate((before, after, after - before)):
            sheet.grid(x, 40 + row * 136, values, cell, end=1, numbers=False)
        sheet.text(x + 60, 458, f"{np.abs(after - before).mean():.2f}", size=13)
    for row, words in enumerate(("digit", "moved by one", "difference")):
        sheet.text(104, 104 + row * 136, words, size=13, place="end", soft=True)
    sheet.text(104, 458, "mean |difference|", size=11, place="end", soft=True)
    return sheet


def tolerance() -> Sheet:
    """How the answer changes with the distance, for windows of several sizes."""
    sheet = Sheet(700, 350, "Change of the answer against the cells moved, for four window sizes")
    x, y, width, height = 60, 50, 500, 240
    sheet.text(16, 28, "change of the answer (1.41: nothing in common)", place="start")
    sheet.axes(x, y, width, height, range(9), (0, 0.5, 1.0, 1.5))
    sheet.text(x + width / 2, 338, "cells moved", size=13, soft=True)
    names = {1: "no pool", 2: "max 2×2", 4: "max 4×4", 8: "max 8×8"}
    colours = ("#8a93a3", BLUE, ORANGE, "#2a9d6f")
    below = y
    for (size, name), colour, dashes in zip(names.items(), colours, ("", "", "8 4", "2 4"), strict=True):
        seen = [change(pooling("max", size), feature_maps(), by) for by in range(9)]
        points = [(x + width * by / 8, y + height * (1 - value / 1.5)) for by, value in enumerate(seen)]
        below = max(points[-1][1], below + 17)  # the names stand apart where the ends do not
        sheet.curve(points, colour, dashes)
        sheet.text(x + width + 10, below + 4, name, size=13, place="start")
    return sheet


def windows() -> Sheet:
    """Windows that a pool cannot tell apart."""
    sheet = Sheet(700, 160, "Five windows of 2 by 2 cells with their largest cell and their mean")
    cell = 36
    for number, (name, cells) in enumerate(WINDOWS.items()):
        x = 130 + number * 112
        values = torch.tensor(cells, dtype=torch.float64).reshape(1, 1, 2, 2)
        sheet.text(x + cell, 24, name)
        sheet.grid(x, 36, values[0, 0].numpy(), cell, end=10)
        for row, method in enumerate(("max", "avg")):
            sheet.text(x + cell, 130 + 20 * row, f"{pooling(method)(values).item():g}")
    for row, method in enumerate(("max", "avg")):
        sheet.text(100, 130 + 20 * row, method, place="end", soft=True)
    return sheet


# --- what is measured


@lru_cache
def feature_maps() -> Tensor:
    """Maps (8, 1, 104, 158) as a first convolution makes them: edges to four sides in two photographs, after ReLU."""
    found = []
    edge = torch.from_numpy(FILTER)
    filters = torch.stack([edge, -edge, edge.T, -edge.T])[:, None]
    for name in ("china.jpg", "flower.jpg"):
        grey = torch.from_numpy(load_sample_image(name).astype(np.float64)).mean(2)[None, None] / 255
        found.append(F.conv2d(F.interpolate(grey, size=(106, 160), mode="area"), filters).relu()[0])
    return torch.cat(found)[:, None]


def change(way: Change, x: Tensor, by: int) -> float:
    """How much an answer changes when the picture moves right by so many cells: the mean over maps of

        √(mean (answer moved − answer)²) / standard deviation of the answer

    0: the same answer; √2 ≈ 1.41: as different as two answers that have nothing to do with each other.
    """
    right = x.shape[-1] - EDGE
    answer, then = way(x[..., EDGE:right]), way(x[..., EDGE - by : right - by])
    return float(((then - answer) ** 2).mean((1, 2, 3)).sqrt().div(_spread(answer)).mean())


def lost(way: Change, x: Tensor) -> float:
    """What is missing when each answer of a 2×2 pool is written back into its four cells, in the same unit."""
    back = F.interpolate(way(x), scale_factor=2, mode="nearest")
    return float(((back - x) ** 2).mean((1, 2, 3)).sqrt().div(_spread(x)).mean())


def _spread(x: Tensor) -> Tensor:
    return x.std((1, 2, 3), correction=0)


# --- the tables


def sizes() -> str:
    """Sizes of a 5×5 and a 32×32 picture after a filter or a pool."""
    rows = []
    for size, stride, padding in ((3, 1, 0), (3, 1, 1), (3, 2, 0), (3, 2, 1), (2, 2, 0)):
        where = window(size, stride, padding, dims=2)
        out = [where.output_size((side, side))[0] for side in (5, 13, 32)]
        rows.append([f"{size}×{size}", stride, padding, *(f"{side}×{side}" for side in out)])
    return table(["window", "stride", "padding", "of 5×5", "of 13×13", "of 32×32"], rows)


def costs() -> str:
    """What the tutorial's net computes and learns, with its pools and without."""
    rows = []
    counted = [_counted(build("tutorial", pool, CIFAR, 10, 0)) for pool in ("max", nn.Identity)]
    for (name, shape, learns, products), (_, bare_shape, bare_learns, bare_products) in zip(*counted, strict=True):
        if name.startswith("Pool"):
            bare_shape = "left out"
        cells = [learns, products, bare_learns, bare_products]
        learned, computed, bare_learned, bare_computed = (f"{n:,}" if n else "" for n in cells)
        rows.append([name, shape, learned, computed, bare_shape, bare_learned, bare_computed])
    learns, products, bare_learns, bare_products = (sum(row[k] for row in part) for part in counted for k in (2, 3))
    all_of = ["**all**", "", f"{learns:,}", f"{products:,}", "", f"{bare_learns:,}", f"{bare_products:,}"]
    ratio = ["without ÷ with", "", "", "", "", f"{bare_learns / learns:.1f}", f"{bare_products / products:.1f}"]
    head = ["layer", "output", "parameters", "multiplications", "output without pools", "parameters", "multiplications"]
    return table(head, [*rows, all_of, ratio])


def _counted(net: nn.Module) -> list[tuple[str, str, int, int]]:
    """Name, output, parameters and multiplications of each layer, for one picture."""
    rows = []
    for row in layers(net, CIFAR):
        name, shape, learns = row["layer"], row["output"], row["parameters"]
        places = shape[1] * shape[2] if len(shape) == 3 else 1  # a convolution uses its filters at each of them
        products = (learns - shape[0]) * places if learns else 0  # a bias is added, not multiplied
        rows.append((name, "×".join(map(str, shape)), learns, products))
    return rows


def answers() -> str:
    """Every method's change and loss, methods with the smallest change first."""
    x, scans = feature_maps(), torch.from_numpy(digits().test_x).double() / 255
    part = x[..., EDGE:-EDGE]

    def row(name: str, method: WindowMethod) -> list[str]:
        small, wide, large = pooling(method), pooling(method, 3, 2), pooling(method, 4)
        numbers = [change(small, x, by) for by in (1, 2, 4)] + [change(way, x, 1) for way in (wide, large)]
        return [name, *(f"{number:.2f}" for number in (*numbers, change(small, scans, 1), lost(small, part)))]

    rows = [row(f"`{name}`", cls()) for name, cls in poolkit.WINDOW_METHODS.items()]
    rows.sort(key=lambda cells: cells[1])
    bare = [f"{change(lambda t: t, t, by):.2f}" for t, by in ((x, 1), (x, 2), (x, 4), (scans, 1))]
    head = ["method", "2×2, by 1", "by 2", "by 4", "3×3/2, by 1", "4×4, by 1", "digits, by 1", "lost"]
    return table(head, [["no pool", *bare[:3], "", "", bare[3], "0.00"], *rows])


def told_apart() -> str:
    """Which windows the methods tell apart."""
    rows = []
    for method in TELLING:
        x = torch.tensor(list(WINDOWS.values()), dtype=torch.float64).reshape(-1, 1, 2, 2)
        values = [f"{v:.3g}" for v in pooling(method)(x).flatten().tolist()]
        rows.append([f"`{method}`", *values, f"{len(set(values))} of {len(values)}"])
    return table(["method", *WINDOWS, "told apart"], rows)


def table(head: Sequence[object], rows: Sequence[Sequence[object]]) -> str:
    """A Markdown table with numbers to the right."""
    lines = [head, ["---", *["--:"] * (len(head) - 1)], *rows]
    return "\n".join("| " + " | ".join(map(str, line)) + " |" for line in lines)


DRAWN = {
    "convolution": convolution, "strides": strides, "max-and-average": max_and_average, "moved": moved,
    "tolerance": tolerance, "windows": windows,
}  # fmt: skip
TABLES = {"sizes": sizes, "costs": costs, "answers": answers, "told-apart": told_apart}


def made() -> dict[Path, str]:
    """Every file and its text as the code computes it now."""
    page = PAGE.read_text(encoding="utf-8")
    for name, compute in TABLES.items():
        start = f"<!-- {name}: made -->"
        before, found, rest = page.partition(start)
        if not found:
            raise SystemExit(f"{PAGE.name}: wanted is {start} … <!-- end -->")
        page = f"{before}{start}\n{compute()}\n<!-- end -->{rest.partition('<!-- end -->')[2]}"
    return {PAGE: page, **{PICTURES / f"{name}.svg": draw().svg() for name, draw in DRAWN.items()}}


def main() -> int:
    """Write or check; 1 if something is out of date."""
    words = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    words.add_argument("--check", action="store_true", help="write nothing, name what is out of date")
    check = words.parse_args().check
    stale = [(p, t) for p, t in made().items() if not p.exists() or p.read_text(encoding="utf-8") != t]
    for path, text in stale:
        print(f"{'out of date' if check else 'written'}: {path.relative_to(DOCS.parent)}")
        if not check:
            path.write_text(text, encoding="utf-8")
    if stale and check:
        print("run: python docs/tools/convolution.py", file=sys.stderr)
    return int(bool(stale) and check)


if __name__ == "__main__":
    sys.exit(main())
