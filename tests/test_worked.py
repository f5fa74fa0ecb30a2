"""The equation of each window method, step by step, leads to the answer of its scalar form."""

from __future__ import annotations

import itertools
import json
import math
import random
from collections.abc import Iterator
from typing import Any

import pytest

torch = pytest.importorskip("torch")

from poolkit import WINDOW_METHODS, OneWindow, Values, WindowMethod, cards, method  # noqa: E402
from poolkit.cli import main  # noqa: E402
from poolkit.method import Step  # noqa: E402
from poolkit.steps import BEYOND, NOT_FINITE, flaw, of_rank, ranks, steps  # noqa: E402
from poolkit.subject import tried  # noqa: E402

K = 9
WINDOWS = (
    [1, 3, 5, 6],
    [-3, -1, -2, -4],
    [2, -1, 0.5, 0, -2.5, 1.25],
    [2, 1, 2, 1, 2],
    [-1, -1, -1],
    [0, 0, 0, 0],
    [0, 0, -2, 0],
    [1, -1],
    [0.7],
    [-0.7],
    [0],
)
HUGE = (
    [1e4, 9999, 0, 0],
    [-1e4, -9999, -1e4],
    [1e4, -1e4, 0, 1],
    [1e200, -1e200, 1e180],
    [1e-200, 3e-200],
    [1e-4, -1e-4, 0],
    [-800, -801],
)
DRAWS = (0.0, 0.123, 0.456, 0.789, 0.999)


def windows(cells: Any) -> Iterator[OneWindow]:
    """The cells as a whole window, and at a border: in the last places of nine, some padding counted."""
    x = [float(v) for v in cells]
    yield OneWindow.of(x)
    yield OneWindow(x, list(range(K - len(x), K)), K, len(x) + (K - len(x)) // 2)


def trained(found: WindowMethod) -> Values:
    """The method's numbers, those of what it learns off their start."""
    generator = random.Random(found.spelling)
    learned: dict[str, Any] = {}
    for name in found.learned:
        rows = found.tables.get(name)
        if name in found.tables:
            table = [[generator.uniform(-1, 1) for _ in range(K)] for _ in range(rows or 1)]
            learned[name] = table[0] if rows is None else table
        else:
            learned[name] = found.values().__dict__[name] + 0.07
    if found.counts:
        learned[found.counts] = 3.0
    return found.values(**learned)


VARIANTS = [(found, trained(found)) for cls in WINDOW_METHODS.values() for found in tried(cls)]
EACH = pytest.mark.parametrize(("found", "p"), VARIANTS, ids=[str(found) for found, _ in VARIANTS])


@pytest.mark.parametrize("cls", WINDOW_METHODS.values(), ids=list(WINDOW_METHODS))
def test_every_window_method_states_its_steps(cls: type[WindowMethod]) -> None:
    assert cls.worked is not WindowMethod.worked
    assert (cls.worked_sample is not WindowMethod.worked_sample) == any(v.draws for v in tried(cls))


@EACH
def test_the_steps_lead_to_the_answer(found: WindowMethod, p: Values) -> None:
    for one in itertools.chain.from_iterable(map(windows, WINDOWS)):
        for values in (found.values(), p):
            stated = found.worked(one, values)
            assert not flaw(stated, one, found.oracle(one, values)), one.x
            assert "xᵢ" not in [step.text for step in stated], "the cells stand above the steps"
            assert steps(found, one, values) == stated


@EACH
def test_the_steps_of_a_draw_lead_to_the_drawn(found: WindowMethod, p: Values) -> None:
    for one, u in itertools.product(itertools.chain.from_iterable(map(windows, WINDOWS)), DRAWS):
        if found.draws:
            assert not flaw(found.worked_sample(one, p, u), one, found.oracle_sample(one, p, u)), (one.x, u)


@EACH
def test_cells_of_any_size_give_steps_with_the_right_answer(found: WindowMethod, p: Values) -> None:
    for one in itertools.chain.from_iterable(map(windows, HUGE)):
        got, want = steps(found, one, p), found.oracle(one, p)
        assert not flaw(got, one, want), one.x
        assert all(math.isfinite(v) for step in got for v in numbers(step))
        assert "worked failed" not in got[-1].text
        if found.draws:
            got = steps(found, one, p, 0.4)
            assert not flaw(got, one, found.oracle_sample(one, p, 0.4)), one.x
            assert "worked failed" not in got[-1].text


def numbers(step: Step) -> list[float]:
    return step.numbers if isinstance(step.numbers, list) else [step.numbers]


def test_soft_by_hand() -> None:
    half = math.log(2)
    stated = method("soft").worked(OneWindow.of([half, 0]), method("soft").values())
    assert [step.text for step in stated] == [
        "exp(β xᵢ)",
        "Σ exp(β xⱼ)",
        "wᵢ = exp(β xᵢ) / Σ exp(β xⱼ)",
        "wᵢ xᵢ",
        "y = Σ wᵢ xᵢ",
    ]
    for step, want in zip(stated, ([2, 1], 3, [2 / 3, 1 / 3], [2 / 3 * half, 0], 2 / 3 * half), strict=True):
        assert step.numbers == pytest.approx(want, abs=1e-15)


def test_stochastic_shows_the_cell_that_was_drawn() -> None:
    one, found = OneWindow.of([1, 4, 3, 2]), method("stochastic")
    stated = {step.text: step.numbers for step in found.worked_sample(one, found.values(), 0.55)}
    assert stated["pᵢ = aᵢ / Σ aⱼ"] == [0.1, 0.4, 0.3, 0.2]
    assert stated["p₁ + … + pᵢ"] == pytest.approx([0.1, 0.5, 0.8, 1])
    assert stated["y = x_l, l the first i with p₁ + … + pᵢ > u"] == 3


def test_of_equal_cells_the_first_has_the_first_rank() -> None:
    assert ranks([2, 3, 2, 3, 1]) == [3, 1, 4, 2, 5]
    assert [of_rank(r, [2, 3, 1]) for r in (1, 2, 3)] == [3, 2, 1]


@pytest.mark.parametrize(
    ("spelling", "cells", "says"),
    [
        ("lehmer", [0, 0], "y = 0, as Σ xᵢᵖ = 0"),
        ("value-weighted:negative=clamp", [-1, 0], "y = 0, as Σ max(xᵢ, 0) = 0"),
        ("stochastic", [-1, 0], "y = 0, as no cell is above 0"),
        ("edscw", [0, 0], "dᵢ = 2 |xᵢ m| / (xᵢ² + m²), 1 where both are 0"),
        ("t-max-avg:t=2", [3, 2, 2], "y = x₍₁₎, as x₍K₎ ≥ T"),
        ("t-max-avg:t=2", [3, 2, 1], "y = (1/K) Σ_{r ≤ K} x₍ᵣ₎, as x₍K₎ < T"),
        ("fuzzy", [5, 6], "μ = μ₃, which has the largest sum"),
        ("avg:count_include_pad=true", [1], "n, padding counted"),
        ("mixed:test=frequency", [1, 2], "λ = 0, as nothing was drawn yet, or both equally often"),
        ("lse:r=0", [1, 2], "y = (1/n) Σ xᵢ, the limit for r → 0"),
        ("alpha-integration:alpha=1", [1, 2], "f(xᵢ), f(x) = ln x"),
    ],
)
def test_a_step_says_which_case_applies(spelling: str, cells: list[float], says: str) -> None:
    found = method(spelling)
    assert says in [step.text for step in found.worked(OneWindow.of(cells), found.values())]


@pytest.mark.parametrize(
    ("spelling", "cells"),
    [("soft", [1e4, 0]), ("soft", [-1e4, -1e4]), ("lp:p=100", [1e4]), ("gem", [1e150]), ("edscw", [1e200])],
)
def test_where_the_equation_overflows_the_answer_stands_alone(spelling: str, cells: list[float]) -> None:
    found, one = method(spelling), OneWindow.of(cells)
    assert steps(found, one, found.values()) == [Step(BEYOND, found.oracle(one, found.values()))]


@EACH
def test_cells_that_are_no_numbers_give_what_the_scalar_form_gives(found: WindowMethod, p: Values) -> None:
    for cells in ([math.inf, 1, 800], [0, -math.inf, 1], [math.nan, 1, 2], [1, math.nan]):
        one = OneWindow.of(cells)
        got = steps(found, one, p)
        assert not flaw(got, one, found.oracle(one, p))
        assert "worked failed" not in got[-1].text


def test_a_cell_that_is_no_number_is_named_as_the_reason() -> None:
    one, found = OneWindow.of([math.inf, 800]), method("soft")
    (step,) = steps(found, one, found.values())
    assert step.text == NOT_FINITE and math.isnan(step.number)
    assert steps(method("max"), one, Values())[-1] == Step("y = max xᵢ", math.inf)


class Halved(WINDOW_METHODS["avg"]):
    """A formula of its own, and no steps."""

    def oracle(self, w, p):
        return 0.5 * math.fsum(w.x) / w.n


def test_a_class_that_changes_the_formula_alone_does_not_keep_its_steps() -> None:
    one = OneWindow.of([1, 3])
    assert steps(Halved(), one, Halved().values()) == [Step("y = (1/n) Σ xᵢ", 1.0)]
    found = WINDOW_METHODS["stochastic"]()
    assert type("Same", (type(found),), {}).worked is type(found).worked


ONE = OneWindow.of([1, 2])


@pytest.mark.parametrize(
    ("stated", "says"),
    [
        ([], "must start with"),
        ([Step("Σ xᵢ", 3)], "must start with"),
        ([Step("", [1, 2]), Step("y = Σ xᵢ", 3)], "text of its own"),
        ([Step("xᵢ", [1, 2]), Step("xᵢ", [1, 2]), Step("y = Σ xᵢ", 3)], "text of its own"),
        ([Step("xᵢ", [1, 2, 3]), Step("y = Σ xᵢ", 3)], "3 numbers, for 2 cells"),
        ([Step("y = xᵢ", [3, 3])], "lead to"),
        ([Step("y = Σ xᵢ", 3 + 1e-8)], "lead to"),
        ([Step("y = Σ xᵢ", math.nan)], "lead to"),
        ([Step("xᵢ", [1, math.nan]), Step("y = Σ xᵢ", 3)], '"xᵢ" is [1, nan], for cells that are finite numbers'),
        ([Step("Σ 1", math.inf), Step("y = Σ xᵢ", 3)], '"Σ 1" is inf'),
    ],
)
def test_wrong_steps_have_a_flaw(stated: list[Step], says: str) -> None:
    assert says in flaw(stated, ONE, 3.0)
    assert not flaw([Step("xᵢ", [1, 2]), Step("y = Σ xᵢ", 3 + 1e-13)], ONE, 3.0)


def test_wrong_steps_are_not_shown() -> None:
    class Wrong(WINDOW_METHODS["avg"]):
        def worked(self, w, p):
            return [Step("y = Σ xᵢ", math.fsum(w.x))]

    assert steps(Wrong(), ONE, Wrong().values())[-1].number == 1.5


@pytest.mark.parametrize("spelling", ["soft:beta=1000", "lp:p=1e3"])
def test_where_a_parameter_is_large_no_cell_is_said_to_be(spelling: str) -> None:
    found = method(spelling)
    (step,) = steps(found, OneWindow.of([1, 3, 5, 6]), found.values())
    assert step.text == "y = … (numbers too large or small for the equation as it is written)"
    assert step.number == pytest.approx(6, rel=0.01)


def test_what_was_drawn_more_often_in_training_counts() -> None:
    found, one = method("mixed:test=frequency"), OneWindow.of([1, 2])
    for balance, says, y in ((2.0, "λ = 1, as the maximum was", 2.0), (-2.0, "λ = 0, as the average was", 1.5)):
        stated = steps(found, one, found.values(balance=balance))
        assert stated[-2].text == f"{says} drawn more often in training"
        assert stated[-1].number == y


@pytest.mark.parametrize(
    ("fails", "says"),
    [
        (lambda w: w.x[w.n], "IndexError: list index out of range"),
        (lambda w: {}["no"], "KeyError: 'no'"),
        (lambda w: next(iter(())), "StopIteration"),
        (lambda w: [Step("y = Σ wᵢ xᵢ", w.x)], "TypeError: y = Σ wᵢ xᵢ has a number for each cell"),
        (lambda w: [Step("y = xᵢ", 1j)], "TypeError: must be real number, not complex"),
        (lambda w: None, "TypeError: 'NoneType' object is not subscriptable"),
        (lambda w: [], "IndexError: list index out of range"),
    ],
)
def test_steps_that_fail_leave_the_answer_and_say_how(fails: Any, says: str) -> None:
    class Fails(WINDOW_METHODS["stochastic"]):
        def worked(self, w, p):
            return fails(w)

        def worked_sample(self, w, p, u):
            return fails(w)

    found, one = Fails(), OneWindow.of([1, 3])
    for u, y in ((None, 2.5), (0.9, 3.0)):
        assert steps(found, one, found.values(), u) == [Step(f"y = … (worked failed: {says})", y)]


def test_steps_do_not_change_the_window() -> None:
    class Sorts(WINDOW_METHODS["avg"]):
        def worked(self, w, p):
            w.x.sort()
            w.at.clear()
            return super().worked(w, p)

    one = OneWindow.of([3, 1, 2])
    assert steps(Sorts(), one, Sorts().values())[-1].number == 2
    assert one == OneWindow.of([3, 1, 2])


def test_show_prints_the_steps_in_columns(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["show", "soft"]) == 0
    lines = capsys.readouterr().out.partition("its first window, step by step\n")[2].splitlines()
    assert lines[0].split() == ["xᵢ", "1", "3", "5", "6"]
    assert lines[1].split() == ["exp(β", "xᵢ)", "2.718", "20.09", "148.4", "403.4"]
    assert lines[-1].split() == ["y", "=", "Σ", "wᵢ", "xᵢ", "5.613"]
    assert len({len(lines[row]) for row in (0, 1, 3, 4)}) == 1, "columns are aligned"


@pytest.mark.parametrize("name", WINDOW_METHODS)
def test_show_gives_the_steps_as_json_too(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["show", name, "--json"]) == 0
    page = json.loads(capsys.readouterr().out)
    assert page["steps"][0] == {"text": "xᵢ", "numbers": [1, 3, 5, 6]}
    assert page["steps"][-1]["numbers"] == pytest.approx(page["example"]["output"][0][0])
    assert len(page["steps"]) >= 2 and page["steps"][-1]["text"] != BEYOND


def test_a_method_on_maps_has_no_steps() -> None:
    assert cards.page_values(method("blur"))["steps"] == []
    assert "step by step" not in cards.page(method("blur"))


def test_a_number_that_json_does_not_have_is_null(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cards, "worked", lambda _: [Step("a", [1.0, math.inf]), Step("y = a", math.nan)])
    assert [step["numbers"] for step in cards.page_values(method("max"))["steps"]] == [[1.0, None], None]
