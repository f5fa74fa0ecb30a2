"""Tree pooling (Lee 2016): learned filters at the leaves of a tree, learned gates at its inner nodes."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, ClassVar

from poolkit.method import Card, Learn, Values, WindowMethod, param
from poolkit.steps import Step, at_places, below, products
from poolkit.xp import Cells, OneWindow


@dataclass(frozen=True)
class Tree(WindowMethod):
    """A binary tree of learned filters, mixed by gates that look at the window.

        leaf m: fₘ = vₘ·x
        inner node: f = σ(ω·x) f_left + (1 − σ(ω·x)) f_right,   σ(z) = 1 / (1 + exp(−z))

    `levels` counts the leaves' level too: 2 levels are 2 leaves and 1 gate, 3 levels 4 and 3. Gates are numbered from
    the root down, node j has the children 2j + 1 and 2j + 2, leaves are numbered from left to right. All filters are
    learned, one number for each place in the window, row-major, for the layer or with `learn(channels=C)` for each
    channel, and none is constrained: the result need not lie between the cells.

    The layer learns the leaves as u = n v, so that fₘ = (1/n) Σ uᵢ xᵢ over the n cells inside the picture: a leaf then
    means the same in windows of all sizes and at the border. A gate gets nothing from a cell outside. Gates start at 0
    and leaves in pairs at 1 ± a fixed pattern below 1/2, so that a new tree is average pooling but its leaves differ.

    Example:
        >>> round(Tree().oracle(OneWindow.of([1, 4, 3, 2]), Tree().values()), 4)
        2.5
    """

    levels: int = param(2, low=2, high=6, says="levels of the tree, leaves included", tries=(3,))
    leaves: Learn = param(1.0, table="cell", says="the leaves' weights times the number of cells, a row each")
    gates: Learn = param(0.0, table="cell", says="the gates, a row each, the root first")

    card: ClassVar[Card] = Card(
        name="tree",
        title="Tree pooling",
        equation="leaf: fₘ = vₘ·x;  node: f = σ(ω·x) f_left + (1 − σ(ω·x)) f_right;  y = f_root",
        source="C.-Y. Lee, P. W. Gallagher, Z. Tu, Generalizing pooling functions in convolutional neural networks: "
        "mixed, gated, and tree, AISTATS 2016, arXiv:1509.08985",
        family="learned filters",
        released="The authors' code starts all filters from a normal distribution of deviation 0.1, so that a new tree "
        "has small outputs of any sign, and runs on GPUs alone; its file for 2 levels says 1 layer. A port in a "
        "benchmark makes new random weights in every forward pass, so that nothing is learned. Only the code was "
        "verified, not the paper's text; it seems to count levels as here.",
    )

    def table_rows(self, name: str) -> int:
        """2^(levels − 1) leaves and one gate fewer."""
        count: int = 2 ** (self.levels - 1)
        return count if name == "leaves" else count - 1

    def table_start(self, name: str, row: int, cell: int) -> float:
        """Gates of 0; leaves of 1 plus or minus a pattern, so that the two of a pair have the mean 1."""
        if name == "gates":
            return 0.0
        # Multiples of two irrational numbers spread evenly: no two cells or pairs of leaves are alike.
        spread = ((cell + 1) * 0.6180339887 + (row // 2) * 0.4142135624) % 1.0 - 0.5
        return 1.0 + spread if row % 2 == 0 else 1.0 - spread

    def reduce(self, w: Cells, p: Values) -> Any:
        """The array formula."""
        inner = self.table_rows("gates")
        f = [None] * inner + [w.mean(w.table(p.leaves, m) * w.x) for m in range(inner + 1)]
        for node in reversed(range(inner)):
            gate = w.xp.sigmoid(w.sum(w.table(p.gates, node) * w.x))
            f[node] = gate * f[2 * node + 1] + (1.0 - gate) * f[2 * node + 2]
        return f[0]

    def oracle(self, w: OneWindow, p: Values) -> float:
        """The scalar form: from the root down."""

        def dot(row: Any) -> float:
            return math.fsum(row[place] * v for place, v in zip(w.at, w.x, strict=True))

        def at(level: int, number: int) -> float:
            if level == self.levels:
                return dot(p.leaves[number]) / w.n
            z = dot(p.gates[2 ** (level - 1) - 1 + number])
            small = math.exp(-abs(z))
            left = (1.0 if z >= 0 else small) / (1.0 + small)
            return left * at(level + 1, 2 * number) + (1.0 - left) * at(level + 1, 2 * number + 1)

        return at(1, 0)

    def worked(self, w: OneWindow, p: Values) -> list[Step]:
        """One window step by step."""
        gates, found, f = 2 ** (self.levels - 1) - 1, [], {}
        for m in range(gates + 1):
            terms = products([u / w.n for u in at_places(p.leaves[m], w)], w.x)
            f[gates + m], v, name = math.fsum(terms), f"v{below(m)}", f"f{below(gates + m)}"
            found += [Step(f"{v}ᵢ xᵢ", terms), Step(f"leaf {m}: {name} = {v}·x", f[gates + m])]
        for j in reversed(range(gates)):
            terms, z = products(at_places(p.gates[j], w), w.x), f"ω{below(j)}·x"
            gate, left, right = 1.0 / (1.0 + math.exp(-math.fsum(terms))), f[2 * j + 1], f[2 * j + 2]
            f[j], name = gate * left + (1.0 - gate) * right, f"f{below(j)}" if j else "y = f_root"
            found += [Step(f"ω{below(j)}ᵢ xᵢ", terms), Step(f"σ({z}) = 1 / (1 + exp(−{z}))", gate)]
            found.append(Step(f"{name} = σ({z}) f{below(2 * j + 1)} + (1 − σ({z})) f{below(2 * j + 2)}", f[j]))
        return found

    def kernel(self, s: Any, p: Any) -> Any:
        """One window for the CPU engine, and its gradient."""
        return _Kernel(s, p, self.table_rows("gates")).functions()


class _Kernel:
    """The tree in the engine's words; the kernel has the nodes written out, one function each."""

    def __init__(self, s: Any, p: Any, inner: int) -> None:
        self.s, self.p, self.inner = s, p, inner

    def _weighted(self, table: Any, row: int) -> Any:
        s = self.s

        @s.inline
        def weighted(w: Any) -> Any:
            total = s.wide(0.0)
            for j in range(s.count(w)):
                total = s.plus(total, table(w, row, s.index(w, j)), s.cell(w, j))
            return s.real(total)

        return weighted

    def _value(self, node: int) -> Any:
        """A node's value, and with a gate that and what the two below it are: each is computed once."""
        s, p = self.s, self.p
        if node >= self.inner:
            weighted = self._weighted(p.leaves, node - self.inner)
            return s.inline(lambda w: (weighted(w) / s.count(w), 0))
        gate, first, second = self._weighted(p.gates, node), self._value(2 * node + 1), self._value(2 * node + 2)

        @s.inline
        def mixture(w: Any) -> Any:
            a, left, right = s.sigmoid(gate(w)), first(w), second(w)
            return a * left[0] + (1.0 - a) * right[0], (a, left, right)

        return mixture

    def _back(self, node: int) -> Any:
        """Add the gradients of a node and of all below it, given that of its value, to the notes and the tables."""
        s, p, row = self.s, self.p, node - self.inner

        @s.inline
        def leaf(w: Any, g: Any, known: Any) -> None:
            share = g / s.count(w)
            for j in range(s.count(w)):
                place = s.index(w, j)
                s.note(w, j, s.noted(w, j) + share * p.leaves(w, row, place))
                p.slope_leaves(w, row, place, share * s.cell(w, j))

        if row >= 0:
            return leaf
        left, right = self._back(2 * node + 1), self._back(2 * node + 2)

        @s.inline
        def mixture(w: Any, g: Any, known: Any) -> None:
            a, first, second = known[1]
            turn = g * (first[0] - second[0]) * a * (1.0 - a)
            for j in range(s.count(w)):
                place = s.index(w, j)
                s.note(w, j, s.noted(w, j) + turn * p.gates(w, node, place))
                p.slope_gates(w, node, place, turn * s.cell(w, j))
            left(w, g * a, first)
            right(w, g * (1.0 - a), second)

        return mixture

    def functions(self) -> tuple[Any, Any]:
        """Forward and gradient of the root."""
        s, value, back = self.s, self._value(0), self._back(0)

        def forward(w: Any) -> Any:
            return value(w)[0]

        def gradient(w: Any, g: Any) -> None:
            known = value(w)
            for j in range(s.count(w)):
                s.note(w, j, s.real(0.0))
            back(w, g, known)
            for j in range(s.count(w)):
                s.give(w, j, s.noted(w, j))

        return forward, gradient
