"""The contracts catch what they are for: wrong methods, one for each of the usual mistakes."""

from __future__ import annotations

import dataclasses
import math
import random
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from poolkit import METHODS, Avg, Card, Lp, MapMethod, Max, Min, Soft, Stochastic  # noqa: E402
from poolkit.check import CASES, CONTRACTS, Broken, Result, Subject, check  # noqa: E402
from poolkit.cli import main  # noqa: E402
from poolkit.layer_contracts import generators  # noqa: E402
from poolkit.method import MONOTONE, SHIFTS, Step, WindowMethod, named, param  # noqa: E402
from poolkit.subject import tried  # noqa: E402


class WrongSteps(Soft):
    def worked(self, w, p):
        weights = [v / math.fsum(w.x) for v in w.x]
        return [Step("wᵢ", weights), Step("y = Σ wᵢ xᵢ", math.fsum(map(math.prod, zip(weights, w.x, strict=True))))]


class WrongStepsOfADraw(Stochastic):
    def worked_sample(self, w, p, u):
        return [Step("y = x_l", w.x[int(u * w.n)])]


class StepsOverflow(Soft):
    def worked(self, w, p):
        return [Step("y = …", math.exp(1e4 + w.x[0]))]


class StepsDivideByZero(Soft):
    def worked(self, w, p):
        return [Step("y = …", w.x[0] / math.fsum([0.0]))]


class StepsOutsideTheDomain(Soft):
    def worked(self, w, p):
        return [Step("y = …", math.log(-abs(w.x[0])))]


class NoStepsOfADraw(Stochastic):
    def worked_sample(self, w, p, u):
        raise ValueError("no such draw")


class StepsSortTheCells(Avg):
    """The first cell; the steps tell of the smallest, and make it the first one."""

    def oracle(self, w, p):
        return w.x[0]

    def worked(self, w, p):
        w.x.sort()
        return [Step("y = min xᵢ", w.x[0])]


class StepsChangeTheCells(Soft):
    """The right steps, and a window that is another then."""

    def worked(self, w, p):
        found = super().worked(w, p)
        w.x.reverse()
        return found


class StepsOfNoNumber(Avg):
    def worked(self, w, p):
        return [Step("Σ xᵢ", math.nan), *super().worked(w, p)[-1:]]


class StepsOfNoNumbers(Avg):
    def worked(self, w, p):
        return [Step("aᵢ", [math.inf] * w.n), *super().worked(w, p)[-1:]]


class CountsPadding(Avg):
    def reduce(self, w, p):
        return w.sum(w.x) / w.k


class InfiniteBorder(Soft):
    """Right forward; backward 0 · −∞."""

    def reduce(self, w, p):
        x = w.only(w.x, -math.inf)
        return w.sum(w.softmax(p.beta * w.x) * x)


class SoftmaxOverChannels(Soft):
    def reduce(self, w, p):
        e = torch.exp(p.beta * w.x)
        return w.sum(e / e.sum(2, keepdim=True) * w.x)


class SplitsTies(Max):
    def reduce(self, w, p):
        return w.only(w.x, -math.inf).amax(0)


class LastOfEquals(Max):
    def reduce(self, w, p):
        return w.only(w.x, -math.inf).flip(0).max(0).values


class EqualChances(Stochastic):
    def sample(self, w, p, u):
        return w.draw(torch.ones_like(w.x), u)


class DrawsInEvaluation(Stochastic):
    def reduce(self, w, p):
        return w.draw(w.xp.clip(w.x, 0.0, None), torch.rand(w.x.shape[1:], dtype=w.x.dtype))


class OwnRandomNumbers(Stochastic):
    def sample(self, w, p, u):
        return w.draw(w.xp.clip(w.x, 0.0, None), torch.rand_like(u))


class DrawsByPlaceInBatch(Stochastic):
    def sample(self, w, p, u):
        return w.draw(w.xp.clip(w.x, 0.0, None), u.flip(0))


class ReplacesNaN(Avg):
    def reduce(self, w, p):
        return w.mean(torch.nan_to_num(w.x))


class Overflows(Soft):
    def reduce(self, w, p):
        e = w.xp.exp(p.beta * w.x)
        return w.sum(e * w.x) / w.sum(e)


class Clamped(Avg):
    card = dataclasses.replace(Avg.card, facts=(SHIFTS,))

    def reduce(self, w, p):
        return w.xp.clip(w.mean(w.x), 0.0, None)

    def oracle(self, w, p):
        return max(0.0, math.fsum(w.x) / w.n)


class WrongFact(Soft):
    """Soft pooling falls when a small cell of a spread window rises."""

    card = dataclasses.replace(Soft.card, facts=(MONOTONE,))


class WrongIdentity(Soft):
    card = dataclasses.replace(Soft.card, same=(("soft:beta=0", "max"),))


class WrongLimit(Soft):
    card = dataclasses.replace(Soft.card, limits=(("soft:beta=1000", "min"),))


class DeafToItsParameter(Soft):
    def reduce(self, w, p):
        beta = p.beta.detach() if torch.is_tensor(p.beta) else p.beta
        return w.sum(w.softmax(beta * w.x) * w.x)


class FirstChannelForAll(Soft):
    def reduce(self, w, p):
        beta = p.beta.flatten()[0] if torch.is_tensor(p.beta) else p.beta
        return w.sum(w.softmax(beta * w.x) * w.x)


class LowerMedian(Avg):
    """torch.median takes the lower of two middle cells, the definition their mean."""

    def reduce(self, w, p):
        return w.only(w.x, math.nan).nanmedian(0).values

    def oracle(self, w, p):
        ordered, half = sorted(w.x), w.n // 2
        return ordered[half] if w.n % 2 else 0.5 * (ordered[half - 1] + ordered[half])


class HalfPrecisionSums(Avg):
    def reduce(self, w, p):
        x = w.x.half() if w.x.dtype == torch.float32 else w.x
        return w.sum(x).to(w.x.dtype) / w.n


class SinglePrecision(Avg):
    def reduce(self, w, p):
        return w.mean(w.x.float())


class WholeNumbers(Max):
    def reduce(self, w, p):
        return w.max(w.x).long()


class SharesMemory(Max):
    def reduce(self, w, p):
        return w.x[0] if w.k == 1 else w.max(w.x)


class ChangesItsInput(Avg):
    def reduce(self, w, p):
        with torch.no_grad():
            w.x.mul_(1.0 + 1e-9)
        return w.mean(w.x)


class SubtractsBatchMean(Avg):
    def reduce(self, w, p):
        y = w.mean(w.x)
        return y - 1e-3 * y.mean(0, keepdim=True)


class AssumesContiguousMaps(Avg):
    """Reads a map's cells from memory as if the channels never came last."""

    def reduce(self, w, p):
        k, n, c = w.x.shape[:3]
        whole_maps = w.x[0].numel() == n * c
        x = w.x.as_strided(w.x.shape, (1, c * k, k, *[1] * (w.x.ndim - 3))) if whole_maps else w.x
        return w.mean(x)


class BranchesOnData(Avg):
    def reduce(self, w, p):
        return w.mean(w.x) if float(w.x.sum()) < 1e300 else w.max(w.x)


class RunningSums(Avg):
    """Cells as differences of running sums along the last axis: one NaN reaches every later window."""

    def reduce(self, w, p):
        running = w.x.cumsum(-1)
        return w.mean(running - torch.nn.functional.pad(running, (1, 0))[..., :-1])


class BiasedDenominator(Stochastic):
    def reduce(self, w, p):
        a = w.xp.clip(w.x, 0.0, None)
        return w.sum(a * a) / (w.sum(a) + 1e-12)


class WrongFromThreeHundredCells(Avg):
    def reduce(self, w, p):
        return super().reduce(w, p) * (1.0 if w.k <= 300 else 1.0 + 1e-9)


class WrongWhereManyCellsSlide(Avg):
    """Right for a large global window, wrong for a large one that is not the whole picture."""

    def reduce(self, w, p):
        return super().reduce(w, p) * (1.0 if w.k <= 300 or w.x[0, 0, 0].numel() == 1 else 1.0 + 1e-9)


class WrongFromSixteenExamples(Avg):
    def reduce(self, w, p):
        return super().reduce(w, p) * (1.0 if w.x.shape[1] <= 16 else 1.0 + 1e-9)


class TinyConstantInDenominator(Stochastic):
    def reduce(self, w, p):
        a = w.xp.clip(w.x, 0.0, None)
        return w.sum(a * a) / (w.sum(a) + 1e-20)


class WrongForTwoParametersTogether(Lp):
    def reduce(self, w, p):
        y = super().reduce(w, p)
        return 2 * y if p.reduction == "sum" and isinstance(p.p, float) and p.p != 2.0 else y


class OverflowsOnTheWay(Avg):
    """Infinite where the mean itself is a number that the type holds."""

    def reduce(self, w, p):
        return w.sum(w.x * 1e36) / w.n * 1e-36


class DetachedWeights(Soft):
    def reduce(self, w, p):
        return w.sum(w.xp.stop(w.softmax(p.beta * w.x)) * w.x)


class NoSource(Max):
    card = dataclasses.replace(Max.card, source="")


@dataclass(frozen=True)
class SilentParameter(WindowMethod):
    """A parameter that does not say what it does."""

    power: float = param(1.0)
    card = Avg.card
    reduce, oracle = Max.reduce, Max.oracle


@dataclass(frozen=True)
class UnreadableSpelling(WindowMethod):
    """A choice with a comma, which ends a value in a spelling."""

    rule: str = param("a", choices=("a", "a,b"), says="a rule", tries=("a,b",))
    card = dataclasses.replace(Avg.card, name="unreadable")
    reduce, oracle = Max.reduce, Max.oracle


class TorchOnly(Max):
    def reduce(self, w, p):
        return torch.amax(w.only(w.x, -math.inf), 0)


class WrongShape(Max):
    def reduce(self, w, p):
        return w.max(w.x)[..., :1]


class TooFewRows(Avg):
    """Torch would say that some expanded size must match; each contract in its own way."""

    def reduce(self, w, p):
        return w.mean(w.x)[:, :, 1:]


class ForgetsToReturn(Avg):
    def reduce(self, w, p):
        w.mean(w.x)


class SamplesOneChannel(Stochastic):
    def sample(self, w, p, u):
        return super().sample(w, p, u)[:, :1]


class FlatFarFromZero(Avg):
    """Right numbers everywhere, and a gradient only for cells from −5 to 5."""

    def reduce(self, w, p):
        near = w.xp.clip(w.x, -5.0, 5.0)
        return w.mean(near + w.xp.stop(w.x - near))


class FlatNearZero(Avg):
    def reduce(self, w, p):
        return w.mean(w.xp.where(abs(w.x) < 0.002, w.xp.stop(w.x), w.x))


class FlatForLargeCells(Avg):
    def reduce(self, w, p):
        return w.mean(w.xp.where(abs(w.x) > 50.0, w.xp.stop(w.x), w.x))


class DrawsForNothing(Avg):
    def reduce(self, w, p):
        torch.rand(3)
        return w.mean(w.x)


class SeedsTorch(Avg):
    def reduce(self, w, p):
        torch.manual_seed(0)
        return w.mean(w.x)


class SeedsNumPyAndPython(Avg):
    def reduce(self, w, p):
        np.random.seed(1)
        random.seed(1)
        return w.mean(w.x)


class _DrawsBackward(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        return x * 1.0

    @staticmethod
    def backward(ctx, gradient):
        random.random()
        return gradient


class DrawsBackward(Avg):
    def reduce(self, w, p):
        return w.mean(_DrawsBackward.apply(w.x))


class DrawsInTraining(Stochastic):
    """Besides its key, and only where there is one."""

    def sample(self, w, p, u):
        torch.rand(1)
        return super().sample(w, p, u)


class Noisy(Avg):
    """Another result at every call, whatever the number of threads."""

    def reduce(self, w, p):
        return w.mean(w.x) * (1.0 + 1e-6 * random.random())  # noqa: S311 - a wrong method


class DependsOnThreads(Avg):
    def reduce(self, w, p):
        return w.mean(w.x) * (1.0 if torch.get_num_threads() == 1 else 1.0 + 1e-9)


class TakenName(Avg):
    """The mean under the name of another method."""

    card = dataclasses.replace(Avg.card, name="max", same=(), limits=())


@dataclass(frozen=True)
class WrongOtherValue(WindowMethod):
    """A truth value and a word without `tries`."""

    doubled: bool = param(False, says="twice the mean")
    rule: str = param("mean", choices=("mean", "half", "third"), says="what is made of the mean")
    card = Card("other-value", "Mean, or not", "y = (1/n) Σ xᵢ", "none, a test", "mean")

    def reduce(self, w, p):
        return w.mean(w.x) * (2.0 if p.doubled else 1.0) / {"mean": 1.0, "half": 2.0, "third": 3.0}[p.rule]

    def oracle(self, w, p):
        return math.fsum(w.x) / w.n / {"mean": 1.0, "half": 2.0, "third": 3.0}[p.rule]


@dataclass(frozen=True)
class WrongLastChoice(WrongOtherValue):
    """Twice is right; a third is none."""

    def reduce(self, w, p):
        return w.mean(w.x) * (2.0 if p.doubled else 1.0) / {"mean": 1.0, "half": 2.0, "third": 4.0}[p.rule]

    def oracle(self, w, p):
        return super().oracle(w, p) * (2.0 if p.doubled else 1.0)


class _SquareOnce(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        ctx.kept = x.detach()
        return x * x

    @staticmethod
    def backward(ctx, gradient):
        return 2 * ctx.kept * gradient


class DifferentiableOnce(Avg):
    """A hand-written backward that forgets that it depends on the input."""

    def reduce(self, w, p):
        return w.mean(_SquareOnce.apply(w.x))


CAUGHT = [
    (CountsPadding, "oracle", Avg),
    (InfiniteBorder, "finite", Soft),
    (InfiniteBorder, "gradient", Soft),
    (SoftmaxOverChannels, "oracle", Soft),
    (SplitsTies, "ties", Max),
    (LastOfEquals, "ties", Min),
    (EqualChances, "distribution", Stochastic),
    (EqualChances, "seeds", Stochastic),
    (DrawsInEvaluation, "seeds", Stochastic),
    (OwnRandomNumbers, "seeds", Stochastic),
    (DrawsByPlaceInBatch, "batch", Stochastic),
    (ReplacesNaN, "nan", Avg),
    (Overflows, "finite", Soft),
    (Clamped, "facts", Avg),
    (WrongFact, "facts", Soft),
    (WrongIdentity, "identities", Soft),
    (WrongLimit, "identities", Soft),
    (DeafToItsParameter, "state", Soft),
    (FirstChannelForAll, "oracle", Soft),
    (LowerMedian, "oracle", Avg),
    (HalfPrecisionSums, "precision", Avg),
    (SinglePrecision, "oracle", Avg),
    (WholeNumbers, "oracle", Max),
    (SharesMemory, "untouched", Max),
    (ChangesItsInput, "untouched", Avg),
    (SubtractsBatchMean, "batch", Avg),
    (AssumesContiguousMaps, "layouts", Avg),
    (BranchesOnData, "compiled", Avg),
    (RunningSums, "nan", Avg),
    (RunningSums, "infinity", Avg),
    (BiasedDenominator, "oracle", Stochastic),
    (WrongFromThreeHundredCells, "oracle", Avg),
    (WrongWhereManyCellsSlide, "oracle", Avg),
    (WrongFromSixteenExamples, "batch", Avg),
    (TinyConstantInDenominator, "oracle", Stochastic),
    (WrongForTwoParametersTogether, "oracle", Lp),
    (OverflowsOnTheWay, "finite", Avg),
    (DetachedWeights, "gradient", Soft),
    (DifferentiableOnce, "second gradient", Avg),
    (NoSource, "card", Max),
    (SilentParameter, "card", Soft),
    (UnreadableSpelling, "card", Soft),
    (TorchOnly, "numpy", Max),
    (WrongShape, "oracle", Max),
    (WrongShape, "shape", Max),
    (TooFewRows, "shape", Avg),
    (ForgetsToReturn, "shape", Avg),
    (SamplesOneChannel, "shape", Stochastic),
    (FlatFarFromZero, "gradient", Avg),
    (FlatNearZero, "gradient", Avg),
    (FlatForLargeCells, "gradient", Avg),
    (DrawsForNothing, "generators", Avg),
    (SeedsTorch, "generators", Avg),
    (SeedsTorch, "compiled", Avg),
    (SeedsNumPyAndPython, "generators", Avg),
    (DrawsBackward, "generators", Avg),
    (DrawsInTraining, "generators", Stochastic),
    (Noisy, "repeats", Avg),
    (DependsOnThreads, "repeats", Avg),
    (TakenName, "card", Avg),
    (WrongOtherValue, "oracle", Avg),
    (WrongLastChoice, "oracle", Avg),
    (WrongSteps, "worked", Soft),
    (WrongStepsOfADraw, "worked", Stochastic),
    (StepsOverflow, "worked", Soft),
    (StepsDivideByZero, "worked", Soft),
    (StepsOutsideTheDomain, "worked", Soft),
    (NoStepsOfADraw, "worked", Stochastic),
    (StepsSortTheCells, "worked", Avg),
    (StepsChangeTheCells, "worked", Soft),
    (StepsOfNoNumber, "worked", Avg),
    (StepsOfNoNumbers, "worked", Avg),
]


@pytest.mark.parametrize(("wrong", "contract", "right"), CAUGHT, ids=[f"{w.__name__}-{c}" for w, c, _ in CAUGHT])
def test_a_wrong_method_is_caught_and_its_right_twin_is_not(wrong: Any, contract: str, right: Any) -> None:
    (caught,) = check(wrong, only=(contract,))
    assert not caught.passed
    assert caught.detail.startswith(named(wrong))
    (kept,) = check(right, only=(contract,))
    assert kept.passed, kept.detail


@pytest.mark.parametrize(
    ("wrong", "contract", "says"),
    [
        (TooFewRows, "shape", "reduce gave a tensor of shape (4, 2, 4, 7); a tensor of shape (4, 2, 5, 7) is wanted"),
        (ForgetsToReturn, "shape", "reduce gave None; a tensor of shape (4, 2, 5, 7) is wanted: examples, channels"),
        (SamplesOneChannel, "shape", "sample gave a tensor of shape (4, 1, 5, 7)"),
        (ForgetsToReturn, "nan", "reduce gave None"),
        (StepsOverflow, "worked", "worked gave no steps for 32 of 32 windows; the first: cells ["),
        (StepsOverflow, "worked", "]: OverflowError: math range error"),
        (NoStepsOfADraw, "worked", "worked_sample gave no steps for"),
        (NoStepsOfADraw, "worked", ", draw 0.0: ValueError: no such draw"),
        (StepsSortTheCells, "worked", "the steps change the window, whose cells are ["),
        (StepsOfNoNumber, "worked", '"Σ xᵢ" is nan, for cells that are finite numbers'),
        (FlatFarFromZero, "gradient", "cells from 17 to 23, picture 3×4"),
        (FlatNearZero, "gradient", "cells from -0.003 to 0.003, picture 3×4"),
        (FlatForLargeCells, "gradient", "cells from -3000 to 3000, picture 3×4"),
        (DrawsForNothing, "generators", "the forward pass in evaluation changes the state of torch's global random"),
        (
            SeedsTorch,
            "compiled",
            "the forward pass before compiling changes the state of torch's global random numbers",
        ),
        (SeedsNumPyAndPython, "generators", "changes the state of NumPy and Python's global random numbers"),
        (DrawsBackward, "generators", "the backward pass in evaluation changes the state of Python's global"),
        (DrawsInTraining, "generators", "the forward pass in training with a seed changes the state of torch's"),
        (Noisy, "repeats", "two calls with the same cells differ"),
        (DependsOnThreads, "repeats", "another result with "),
        (TakenName, "card", "the name max belongs to poolkit.Max: give the card another name"),
        (UnreadableSpelling, "card", 'has no parameter "b"'),
        (WrongOtherValue, "oracle", "doubled=true"),
        (WrongLastChoice, "oracle", "rule=third"),
    ],
    ids=lambda v: getattr(v, "__name__", None),
)
def test_the_failure_says_what_is_wrong(wrong: Any, contract: str, says: str) -> None:
    (caught,) = check(wrong, only=(contract,), paths=("reference",))
    assert says in caught.detail


def test_behind_a_wrong_shape_only_the_card_is_tried() -> None:
    results = check(ForgetsToReturn(), only=("card", "shape", "oracle", "compiled"))
    follows = "not tried, because it follows from the failure above"
    assert [r.passed for r in results] == [False] * 4
    assert "no docstring" in results[0].detail and "reduce gave None" in results[1].detail
    assert [r.detail for r in results[2:]] == [follows] * 2


def test_the_check_leaves_the_generators_as_they_were() -> None:
    torch.manual_seed(3)
    np.random.seed(3)
    random.seed(3)
    for wrong in (SeedsTorch, SeedsNumPyAndPython):
        with pytest.raises(Broken, match="global random numbers"):
            generators(Subject(wrong()))
    found = torch.rand(1), np.random.rand(), random.random()  # noqa: S311 - not for secrets
    torch.manual_seed(3)
    np.random.seed(3)
    random.seed(3)
    assert found == (torch.rand(1), np.random.rand(), random.random())  # noqa: S311 - not for secrets


def test_every_word_and_truth_value_is_tried_once_beside_the_defaults() -> None:
    shown = [(m.doubled, m.rule) for m in tried(WrongOtherValue)]
    assert shown == [(False, "mean"), (True, "mean"), (False, "half"), (False, "third")]
    for cls in METHODS.values():
        found = tried(cls, *((cls.try_channels, cls.tries) if issubclass(cls, MapMethod) else ()))
        assert len({m.spelling for m in found[1:]}) >= len(found[1:]) - 1  # a set of several may be there already
        for name, declared in cls.params().items():
            values = (False, True) if isinstance(declared.default, bool) else declared.choices
            left = {v for v in values if not any(getattr(m, name) == v for m in found)}
            assert left <= {v for v in values if f"{name}={v}" in getattr(cls, "untried", {})}, (cls, name, left)


def test_a_value_that_wants_another_one_is_not_tried_alone() -> None:
    class Picky(WrongOtherValue):
        def __post_init__(self):
            super().__post_init__()
            if self.doubled and self.rule == "mean":
                raise ValueError("twice the mean is not allowed")

    assert [(m.doubled, m.rule) for m in tried(Picky)] == [(False, "mean"), (False, "half"), (False, "third")]


@dataclass(frozen=True)
class WrongMap(MapMethod):
    """Each map times a half; what is wrong is said by `fault`."""

    fault: str = param("none", choices=("none", "shape", "draws", "far"), says="what is wrong")
    card = Card("wrong-map", "Half the map", "y = x / 2", "none, a test", "map")
    takes_window = "never"
    untried: ClassVar[dict[str, str]] = {f"fault={f}": "tried by name" for f in ("shape", "draws", "far")}

    def output_shape(self, shape):
        return (shape.channels, *shape.sizes)

    def pool(self, m, p):
        if p.fault == "draws":
            np.random.rand()
        if p.fault == "far":
            near = m.xp.clip(m.x, -5.0, 5.0)
            return 0.5 * (near + (m.x - near).detach())
        return 0.5 * (m.x[:, :1] if p.fault == "shape" else m.x)

    def oracle(self, m, p):
        return {(c, *place): 0.5 * m.at(c, place) for c in range(m.channels) for place in np.ndindex(*m.sizes)}


@pytest.mark.parametrize(
    ("fault", "contract", "says"),
    [
        ("shape", "shape", "pool gave a tensor of shape (2, 1, "),
        ("draws", "generators", "the forward pass in evaluation changes the state of NumPy's global"),
        ("far", "gradient", "cells from 17 to 23, "),
    ],
)
def test_a_wrong_method_on_maps_is_caught(fault: str, contract: str, says: str) -> None:
    (caught,) = check(WrongMap(fault=fault), only=(contract,))
    assert not caught.passed and says in caught.detail
    (kept,) = check(WrongMap, only=(contract,))
    assert kept.passed, kept.detail


def test_a_module_without_the_class_names_those_near_it_or_three(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    classes = "".join(f"class {name}(Avg):\n    pass\n" for name in ("Alpha", "Beta", "Gamma", "Delta", "Mean"))
    Path("five_methods.py").write_text(f"from poolkit import Avg, Max\n{classes}")
    for asked, says in (("Alphas", "it has: Alpha and 6 more"), ("Nope", "it has: Alpha, Beta, Gamma and 4 more")):
        assert main(["check", f"five_methods:{asked}"]) == 2
        assert says in capsys.readouterr().err


@dataclass(frozen=True)
class Scaled(WindowMethod):
    """The mean times a learned number: on a picture whose cells are even about 0 the gradients for it cancel."""

    a: float = param(1.0, learnable=True, says="the factor", tries=(-2.0,))
    card = Card("scaled", "Scaled mean", "y = a (1/n) Σ xᵢ", "none, a test", "mean")

    def reduce(self, w, p):
        return p.a * w.mean(w.x)

    def oracle(self, w, p):
        return p.a * math.fsum(w.x) / w.n


@dataclass(frozen=True)
class SumOfSquares(WindowMethod):
    """A sum whose true value lies outside float16's range for the cells that the contracts try."""

    card = Card("squares", "Sum of squares", "y = Σ xᵢ²", "none, a test", "sum")

    def reduce(self, w, p):
        return w.sum(w.x * w.x)

    def oracle(self, w, p):
        return math.fsum(v * v for v in w.x)


@pytest.mark.parametrize("right", [Scaled, SumOfSquares])
def test_a_right_method_keeps_its_contracts(right: Any) -> None:
    names = ("card", "oracle", "numpy", "gradient", "ties", "finite", "infinity", "precision", "batch", "state")
    results = check(right, only=names)
    assert [r.detail for r in results if not r.passed] == []


class _Complete(WindowMethod):
    card = Card("complete", "Complete", "y = x₁", "none, a test", "mean")

    def reduce(self, w, p):
        return w.x[0]

    def oracle(self, w, p):
        return w.x[0]


@dataclass(frozen=True)
class NoCard(WindowMethod):
    """No card."""


class NoDataclass(_Complete):
    power: float = param(1.0, says="a power")


@dataclass
class NotFrozen(_Complete):
    power: float = param(1.0, says="a power")


@dataclass(frozen=True)
class PlainField(_Complete):
    power: float = 1.0


@dataclass(frozen=True)
class UnknownDraws(_Complete):
    draws = "regions"


@dataclass(frozen=True)
class DrawsWithoutSample(_Complete):
    draws = "region"


@dataclass(frozen=True)
class NoOracle(WindowMethod):
    card = _Complete.card
    reduce = _Complete.reduce


@pytest.mark.parametrize(
    ("unfinished", "error", "says"),
    [
        (NoCard, TypeError, "NoCard has no card\n  write card: "),
        (_Complete, TypeError, "_Complete is not a frozen dataclass\n  write @dataclass(frozen=True) above class"),
        (NoDataclass, TypeError, "NoDataclass is not a frozen dataclass\n  write @dataclass(frozen=True) above class"),
        (NotFrozen, TypeError, "NotFrozen is not a frozen dataclass\n  write @dataclass(frozen=True) above class"),
        (PlainField, TypeError, "the field power of PlainField is not made by param\n  write power: … = param("),
        (UnknownDraws, ValueError, "UnknownDraws.draws is 'regions'\n  allowed: None, 'region', 'map', 'layer'"),
        (DrawsWithoutSample, TypeError, "DrawsWithoutSample does not define sample although it draws at random\n"),
        (NoOracle, TypeError, "NoOracle does not define oracle\n  write def oracle(self, w, p): …"),
    ],
    ids=lambda v: v.__name__ if isinstance(v, type) else None,
)
def test_an_unfinished_class_is_refused_with_what_to_write(unfinished: Any, error: Any, says: str) -> None:
    with pytest.raises(error) as refused:
        check(unfinished, only=("card",))
    assert str(refused.value).startswith(says)


def test_the_command_line_says_what_is_missing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("unfinished_methods.py").write_text("import poolkit\n\nclass Bare(poolkit.WindowMethod):\n    pass\n")
    assert main(["check", "unfinished_methods:Bare"]) == 2
    shown = capsys.readouterr().err
    assert "Bare has no card" in shown and "write card: ClassVar[Card] = Card(" in shown and "Traceback" not in shown


def test_two_parameters_are_tried_together() -> None:
    (result,) = check(WrongForTwoParametersTogether, only=("oracle",))
    assert result.detail.startswith(f"{named(WrongForTwoParametersTogether)}:p=100,reduction=sum")


def test_the_parts_are_importable_from_one_place() -> None:
    assert issubclass(Broken, AssertionError) and Subject(Max()).path is None and len(CASES) > 20
    assert all(isinstance(r, Result) for r in check(Max, only=("card",)))


def test_contracts_have_names_of_their_own_and_a_sentence() -> None:
    names = [c.name for c in CONTRACTS]
    assert len(set(names)) == len(names) >= 20
    assert all(c.sentence and c.sentence[0].islower() and not c.sentence.endswith(".") for c in CONTRACTS)


def test_results_come_in_the_order_of_the_contracts() -> None:
    assert [r.contract for r in check(Max, only=("types", "card"))] == ["card", "types"]


def test_a_method_value_is_checked_alone_with_its_own_parameters() -> None:
    class Nervous(Soft):
        def reduce(self, w, p):
            assert p.beta == 3.0, "another beta than the one given"
            return super().reduce(w, p)

    (result,) = check(Nervous(beta=3.0), only=("nan",))
    assert result.passed, result.detail
    (result,) = check(Nervous, only=("nan",))
    assert not result.passed


def test_an_unknown_contract_is_refused_with_the_known_ones() -> None:
    with pytest.raises(ValueError, match="no contract orakel; there are: card, shape, oracle"):
        check(Max, only=("orakel",))


def test_contracts_that_would_try_nothing_are_refused() -> None:
    """Otherwise a method of one's own, which has no kernel, would keep all of them on the engine's path."""
    with pytest.raises(ValueError, match="no path gpu; there are: cpu, reference"):
        check(Avg, paths=("gpu",))
    for paths in (("cpu",), ()):
        with pytest.raises(ValueError, match="no path of .* serves it"):
            check(CountsPadding, only=("oracle",), paths=paths)
    (result,) = check(CountsPadding, only=("oracle",), paths=("reference",))
    assert not result.passed


@pytest.mark.parametrize("thing", ["max", 3, None, torch.nn.MaxPool2d(2), dict])
def test_what_is_no_window_method_is_refused(thing: Any) -> None:
    with pytest.raises(TypeError, match="expected a window method or its class"):
        check(thing)


def test_a_method_that_raises_is_a_failure_with_its_reason() -> None:
    class Raises(Max):
        def reduce(self, w, p):
            raise ZeroDivisionError("no such luck\nsecond line")

    (result,) = check(Raises, only=("oracle",))
    assert not result.passed
    assert result.detail == f"{named(Raises)} (reference path): ZeroDivisionError: no such luck"


def test_a_failure_names_the_smallest_picture_that_shows_it() -> None:
    (result,) = check(CountsPadding, only=("oracle",))
    assert "picture 5, kernel_size=3, stride=2, padding=1" in result.detail
    assert "at (0, 0, 0) got" in result.detail


def test_a_formula_may_compute_in_a_wider_type() -> None:
    class Widens(Avg):
        def reduce(self, w, p):
            return w.mean(w.x.double())

    (result,) = check(Widens, only=("precision",))
    assert result.passed, result.detail


def test_a_class_derived_from_a_shipped_method_never_takes_its_kernel() -> None:
    import poolkit.torch as face

    assert face.Pool2d(Max(), 2).explain(torch.zeros(1, 1, 4, 4)).path == "cpu"
    assert face.Pool2d(WholeNumbers(), 2).explain(torch.zeros(1, 1, 4, 4)).path == "reference"
