"""One layer, one input, one gradient: what is timed, and what its values and gradients are compared with."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from poolkit.method import WindowMethod
from poolkit.subject import TOLERANCE
from poolkit.torch import GlobalPool2d, Pool2d

FORMATS = {"contiguous": torch.contiguous_format, "channels-last": torch.channels_last}
_EPS = torch.finfo(torch.float32).eps
# The reference computes in float64 on stacked windows: it sees whole examples, so many cells each time.
_CHECKED_CELLS = 1 << 18
# A sum over all cells, in float32: wider than one cell's tolerance, narrow enough for a term that is missing.
_PARAMETER_SLACK = 1e-4
# A draw on the edge between two cells may fall to either side of it in float32: so many of the windows may differ.
_EDGE = 2e-5

Work = Callable[[], object]


@dataclass(frozen=True)
class Case:
    """What is measured: a method on windows, on an input."""

    method: WindowMethod
    geometry: str
    arguments: Mapping[str, Any] | None
    shape: tuple[int, ...]
    layout: str


class Stage:
    """A case set up: the layer, `nn.MaxPool2d` of the same windows, the input x and the output's gradient g.

    Argument: `case`.
    """

    def __init__(self, case: Case) -> None:
        self.case = case
        self.layer: Any = layer_of(case)
        self.maximum = nn.MaxPool2d(**case.arguments) if case.arguments else nn.MaxPool2d(case.shape[2:])
        self.random = torch.Generator().manual_seed(0)
        form = FORMATS[case.layout]
        self.x = torch.empty(case.shape).contiguous(memory_format=form).normal_(generator=self.random)
        self.g = torch.rand_like(self.maximum(self.x)).contiguous(memory_format=form)
        self.x.requires_grad_()
        self.parameters = tuple(self.layer.parameters())
        # Half of the bytes are read and half are written, as many as the pool reads and writes in all.
        self.source = torch.empty(self.bytes // 8).normal_(generator=self.random)
        self.forward, self.step = self.works(self.layer)

    @property
    def bytes(self) -> int:
        """Bytes of the input and of the output."""
        return self.x.nbytes + self.g.nbytes

    def paths(self) -> dict[str, str]:
        """Which path serves the forward pass in evaluation, and which one training."""
        known = {}
        for name, training in (("forward_path", False), ("path", True)):
            known[name] = str(self.layer.train(training).explain(self.x).path)
        return known

    def works(self, layer: nn.Module) -> tuple[Work, Work]:
        """Forward in evaluation without gradients, and a step of training, of any layer on this input."""
        wanted = (self.x, *layer.parameters())

        def forward() -> Tensor:
            if layer.training:
                layer.eval()
            with torch.no_grad():
                return layer(self.x)

        def step() -> tuple[Tensor, ...]:
            if not layer.training:
                layer.train()
            return torch.autograd.grad(layer(self.x), wanted, self.g)

        return forward, step

    def baselines(self) -> dict[str, tuple[Work, Work]]:
        """Max pooling, and a plain copy of as many bytes as the pool reads and writes."""
        return {"max": self.works(self.maximum), "copy": (self.source.clone, self.source.clone)}

    def check(self) -> tuple[str, float]:
        """Compare the layer with its reference path in float64 on fresh numbers in the timed buffers.

        Some whole examples are compared, others each time, the first and the last always; the others get no gradient,
        so theirs must be 0.
        Returns what is wrong, or "", and the largest error of the values in eps·mean|x|.
        """
        chosen = self._fresh()
        reference = copy.deepcopy(self.layer).double()
        reference.path = "reference"
        if (path := reference.explain(self.x.double()).path) != "reference":
            raise RuntimeError(f"a layer asked for its reference path takes {path}")
        with torch.no_grad():
            got = self.layer.eval()(self.x)
            if hasattr(self.layer, "learned"):  # the very numbers of the layer: float64 would make others
                reference.learned = lambda: {name: value.double() for name, value in self.layer.learned().items()}
            want = reference.eval()(self.x[chosen].double())
        vars(reference).pop("learned", None)
        fault = _outside(got[chosen], want, self.x.detach(), "in evaluation the values", 0)
        error = float((got[chosen].double() - want).abs().max() / (_EPS * self.x.detach().abs().mean()))
        fault = fault or self._check_step(reference, chosen)
        self.g.uniform_(0.5, 1.5, generator=self.random)
        return fault, error

    def differs(self, rival: nn.Module) -> str:
        """What a rival computes otherwise than we do, or "": values in evaluation, and its gradient without draws."""
        self._fresh()
        with torch.no_grad():
            want, got = self.layer.eval()(self.x), rival.eval()(self.x)
        if got.shape != want.shape:
            return f"its output has shape {tuple(got.shape)}, ours {tuple(want.shape)}"
        fault = _outside(got, want, self.x.detach(), "in evaluation its values", 0)
        self.g.uniform_(0.5, 1.5, generator=self.random)
        if fault or self.case.method.draws:
            return fault
        want, got = (torch.autograd.grad(pool.train()(self.x), self.x, self.g)[0] for pool in (self.layer, rival))
        return _outside(got, want, want, "its gradient", 0)

    def _fresh(self) -> Tensor:
        """New cells, a new gradient for some examples, zero for the others; the numbers of those examples."""
        n = len(self.x)
        count = min(n, max(2, _CHECKED_CELLS // self.x[0].numel()))
        inner = torch.randperm(max(0, n - 2), generator=self.random)[: max(0, count - 2)] + 1
        chosen = torch.cat([torch.tensor(sorted({0, n - 1})), inner]).sort().values
        with torch.no_grad():
            self.x.normal_(generator=self.random)
        self.g.zero_()
        self.g[chosen] = torch.rand(len(chosen), *self.g.shape[1:], generator=self.random) + 0.5
        return chosen

    def _check_step(self, reference: Any, chosen: Tensor) -> str:
        """Values and gradients in training, with the same draws."""
        draws = self.case.method.draws is not None
        seen = int(self.layer.seen) if draws else 0
        y = self.layer.train()(self.x)
        got = torch.autograd.grad(y, (self.x, *self.parameters), self.g)
        if y[chosen].shape[1:] != self.g.shape[1:]:
            return f"the output has shape {tuple(y.shape)}"
        values, gradients, of_parameters, terms = _reference_step(reference.train(), self.x, self.g, chosen, seen)
        edge = _EDGE if draws else 0
        others = got[0].index_fill(0, chosen, 0.0)
        return (
            _outside(y.detach()[chosen], values, self.x.detach(), "in training the values", edge)
            or _outside(got[0][chosen], gradients, gradients, "the gradients of the input", edge)
            or ("examples without a gradient get one" if bool(others.any()) else "")
            or _parameters_outside(got[1:], of_parameters, terms)
        )


def layer_of(case: Case) -> Any:
    """Poolkit's layer; a random one draws by a seed, so that the reference can draw the same."""
    seed = 0 if case.method.draws is not None else None
    return Pool2d(case.method, **case.arguments, seed=seed) if case.arguments else GlobalPool2d(case.method, seed=seed)


def _reference_step(
    reference: Any, x: Tensor, g: Tensor, chosen: Tensor, seen: int
) -> tuple[Tensor, Tensor, list[Tensor], list[float]]:
    """Values and gradients of the chosen examples, in float64; of each parameter √Σ(its windows' terms)²."""
    values, gradients, of_parameters = [], [], [torch.zeros_like(p) for p in reference.parameters()]
    squares = [0.0 for _ in of_parameters]
    draws = reference.method.draws is not None
    # Draws go by an example's number, so a random method takes one at a time.
    for part in chosen.split(1) if draws else (chosen,):
        if draws:
            reference.seen.fill_(seen + int(part))
        some = x.detach()[part].double().requires_grad_()
        y = reference(some)
        weights = g[part].double().requires_grad_()
        found = torch.autograd.grad(y, (some, *reference.parameters()), weights, create_graph=bool(of_parameters))
        values.append(y.detach())
        gradients.append(found[0].detach())
        for k, slope in enumerate(found[1:]):
            of_parameters[k] += slope.detach()
            if slope.numel() == 1:  # linear in the weights: what it has of each window is its derivative for that one
                (each,) = torch.autograd.grad(slope, weights, retain_graph=True)
                squares[k] += float((each * weights).detach().square().sum())
    return torch.cat(values), torch.cat(gradients), of_parameters, [math.sqrt(total) for total in squares]


def _outside(got: Tensor, want: Tensor, cells: Tensor, about: str, share: float) -> str:
    """A sentence if more than a share of the numbers miss the tolerance, measured by the largest of the cells."""
    if got.shape != want.shape:
        return f"{about} have shape {tuple(got.shape)}, expected {tuple(want.shape)}"
    slack = TOLERANCE[torch.float32] * want.abs().clamp(min=float(cells.abs().max()))
    bad = ~((got.double() - want.double()).abs() <= slack)  # NaN is bad
    count = int(bad.sum())
    # A window that differs may put two gradients in other places.
    if count <= 2 * share * bad.numel() + (4 if share else 0):
        return ""
    at = tuple(int(i) for i in bad.nonzero()[0])
    first = f"at {at} {float(got[at]):.9g}, not {float(want[at]):.9g}"
    return f"{about} differ at {count:,} of {bad.numel():,} places; {first}"


def _parameters_outside(got: tuple[Tensor, ...], want: list[Tensor], terms: list[float]) -> str:
    """A sentence if a parameter's gradient is wrong.

    Where the terms of the windows nearly cancel, what each of them rounds is more than a share of their sum: as errors
    of either sign they add up like √Σ terms², far below what a missing term would change.
    """
    for mine, right, root in zip(got, want, terms, strict=True):
        slack = max(_PARAMETER_SLACK * float(right.abs().max()), TOLERANCE[torch.float32] * root)
        if not bool(((mine.double() - right).abs() <= slack).all()):
            return f"the gradient of a parameter is {mine.flatten().tolist()[:3]}, not {right.flatten().tolist()[:3]}"
    return ""
