"""The contracts catch what they are for: wrong methods, one for each of the usual mistakes."""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch")

from poolkit import Avg, Card, Lp, Max, Min, Soft, Stochastic  # noqa: E402
from poolkit.check import CASES, CONTRACTS, Broken, Result, Subject, check  # noqa: E402
from poolkit.cli import main  # noqa: E402
from poolkit.method import MONOTONE, SHIFTS, WindowMethod, named, param  # noqa: E402


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
    card = Avg.card
    reduce, oracle = Max.reduce, Max.oracle


class TorchOnly(Max):
    def reduce(self, w, p):
        return torch.amax(w.only(w.x, -math.inf), 0)


class WrongShape(Max):
    def reduce(self, w, p):
        return w.max(w.x)[..., :1]


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
]


@pytest.mark.parametrize(("wrong", "contract", "right"), CAUGHT, ids=[f"{w.__name__}-{c}" for w, c, _ in CAUGHT])
def test_a_wrong_method_is_caught_and_its_right_twin_is_not(wrong: Any, contract: str, right: Any) -> None:
    (caught,) = check(wrong, only=(contract,))
    assert not caught.passed
    assert caught.detail.startswith(named(wrong))
    (kept,) = check(right, only=(contract,))
    assert kept.passed, kept.detail


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
    with pytest.raises(ValueError, match="no contract orakel; there are: card, oracle"):
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
