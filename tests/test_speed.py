"""The bench of the pooling layers: it times fairly, believes nothing, and judges what it measured."""

from __future__ import annotations

import csv
import gc
import io
import itertools
import json
import math
import time

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("safetensors")  # the lab's

import numpy as np  # noqa: E402
from scipy import stats  # noqa: E402
from torch.nn import functional as F  # noqa: E402

import poolkit  # noqa: E402
from poolkit.cli import main  # noqa: E402
from poolkit.lab import footprint as weighing  # noqa: E402
from poolkit.lab import rivals, speed, speed_bars, speed_words, stage, stopwatch  # noqa: E402
from poolkit.lab.speed import DEFAULTS, GEOMETRIES, Plan, measure, measure_case  # noqa: E402
from poolkit.lab.speed_bars import BARS, Bar, gate, judge  # noqa: E402
from poolkit.lab.stage import Case, Stage, _parameters_outside, _reference_step  # noqa: E402
from poolkit.torch import Pool2d  # noqa: E402

SMALL = (3, 2, 8, 8)


def case(method="max", geometry="2x2/2", shape=SMALL, layout="contiguous"):
    return Case(poolkit.method(method), geometry, GEOMETRIES[geometry], shape, layout)


# --- timing -----------------------------------------------------------------------------------------------------------


def test_a_ratio_is_the_median_of_pairs_with_its_order_statistics():
    ours, theirs = [1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 60.0], [2.0] * 7
    ratio = stopwatch.Ratio.of(ours, theirs)
    assert (ratio.low, ratio.median, ratio.high) == (0.5, 2.0, 30.0)
    with pytest.raises(ValueError, match="fewer than 6"):
        stopwatch.Ratio.of(ours[:5], theirs[:5])


@pytest.mark.parametrize("rounds", [6, 7, 11, 100, 3000])
def test_an_interval_leaves_out_as_many_values_as_five_per_cent_allow(rounds):
    out, chance = stopwatch.outside(rounds), stats.binom(rounds, 0.5)
    assert chance.cdf(out) <= 0.025 < chance.cdf(out + 1)


def test_contestants_take_turns_and_neither_always_goes_first():
    calls = []
    contestants = {name: lambda name=name: (calls.append(name), time.sleep(0.004)) for name in "ab"}
    taken = stopwatch.take_turns(contestants, rounds=6, seconds=60)
    assert "".join(calls[-12:]) == "abbaabbaabba"
    assert all(len(times) == 6 and min(times) >= 0.004 for times in taken.values())


def test_a_short_call_is_repeated_until_its_block_is_long_enough_to_time():
    calls = []
    stopwatch.take_turns({"a": lambda: (calls.append(0), time.sleep(0.0002))}, rounds=6, seconds=60)
    assert len(calls) > 6 * 4


def test_time_that_is_up_ends_the_rounds_but_not_before_an_interval_exists():
    taken = stopwatch.take_turns({"a": lambda: time.sleep(0.004)}, rounds=100, seconds=0)
    assert len(taken["a"]) == stopwatch.LEAST_ROUNDS


def test_the_garbage_collector_waits_and_comes_back():
    seen = []
    stopwatch.take_turns({"a": lambda: (seen.append(gc.isenabled()), time.sleep(0.004))}, rounds=6, seconds=0)
    assert not any(seen) and gc.isenabled()


# --- belief -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", DEFAULTS, ids=str)
def test_every_method_stands_the_check(method):
    for geometry, layout in itertools.product(GEOMETRIES, speed.LAYOUTS):
        if method.tables and geometry == "global":
            continue
        shape = (3, 2, 7, 7) if geometry == "ceil" else SMALL
        fault, error = Stage(Case(method, geometry, GEOMETRIES[geometry], shape, layout)).check()
        assert not fault and error < 32, (geometry, layout, fault)


class Wrapped(torch.nn.Module):
    """A layer of ours whose output passes a function that breaks it; the reference path stays right."""

    def __init__(self, inner, breaks):
        super().__init__()
        self.inner, self.breaks = inner, breaks
        self.path = None

    def __deepcopy__(self, memo):
        return stage.copy.deepcopy(self.inner, memo)

    def explain(self, x):
        return self.inner.explain(x)

    @property
    def seen(self):
        return self.inner.seen

    def forward(self, x):
        return self.breaks(self.inner, x)


class SlightlyOffGradient(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        return x.clone()

    @staticmethod
    def backward(ctx, g):
        return g * 1.0001


class Leaks(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        return x.clone()

    @staticmethod
    def backward(ctx, g):
        return g + g.mean()


def cached():
    first = {}

    def run(layer, x):
        if x.data_ptr() not in first:
            first[x.data_ptr()] = layer(x)
        return first[x.data_ptr()] + 0 * layer(x)

    return run


def last_example_off(layer, x):
    y = layer(x)
    return torch.cat([y[:-1], y[-1:] * 1.001])


BROKEN = {
    "values": lambda layer, x: layer(x) * 1.0001,
    "nan": lambda layer, x: layer(x) + float("nan"),
    "the last example": last_example_off,
    "a result kept for the same buffer": cached(),
    "gradient": lambda layer, x: SlightlyOffGradient.apply(layer(x)),
    "gradient across examples": lambda layer, x: Leaks.apply(layer(x)),
    "shape": lambda layer, x: layer(x)[..., :-1],
    "evaluation only": lambda layer, x: layer(x) if layer.training else layer(x) + 0.01,
    "an exception": lambda layer, x: layer(x)[99],
}


@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_layer_gets_a_reason_and_no_speed(name, monkeypatch):
    # More cells than are checked at once: examples must be left over for the leak to show.
    monkeypatch.setattr(stage, "_CHECKED_CELLS", 1)
    build = stage.layer_of
    monkeypatch.setattr(stage, "layer_of", lambda c: Wrapped(build(c), BROKEN[name]))
    row = measure_case(case("avg"), rounds=6, seconds=0)
    assert row["status"] == "wrong" and row["detail"]
    assert not {"forward", "step", "kept", "error"} & set(row)


def test_a_layer_that_breaks_while_it_is_timed_loses_its_speed(monkeypatch):
    timed, build = [], stage.layer_of

    def drifts(layer, x):
        return layer(x) * (1.001 if timed else 1)

    def take_turns(*arguments):
        timed.append(0)
        return stopwatch.take_turns(*arguments)

    monkeypatch.setattr(stage, "layer_of", lambda c: Wrapped(build(c), drifts))
    monkeypatch.setattr(speed, "take_turns", take_turns)
    row = measure_case(case("avg"), rounds=6, seconds=0)
    assert timed and row["status"] == "wrong" and "forward" not in row


def test_other_draws_than_the_seed_s_are_found(monkeypatch):
    def skips(layer, x):
        if layer.training:
            layer.seen += 1
        return layer(x)

    build = stage.layer_of
    monkeypatch.setattr(stage, "layer_of", lambda c: Wrapped(build(c), skips))
    fault, _ = Stage(case("stochastic")).check()
    assert "training" in fault


def test_a_parameter_s_gradient_is_checked(monkeypatch):
    def detached(layer, x):
        y = layer(x)
        return y + 0.001 * (layer.raw_beta - layer.raw_beta.detach())

    build = stage.layer_of
    monkeypatch.setattr(stage, "layer_of", lambda c: Wrapped(build(c), detached))
    fault, _ = Stage(case("soft:beta=learn")).check()
    assert "parameter" in fault


def test_each_check_sees_fresh_numbers_in_the_same_buffers():
    tried = Stage(case())
    before, place = tried.x.detach().clone(), tried.x.data_ptr()
    tried.check()
    assert tried.x.data_ptr() == place and not torch.equal(tried.x, before)
    assert float(tried.g.min()) >= 0.5  # a gradient for every example again, for the timing


def test_a_right_row_has_every_measure():
    row = measure_case(case("avg-topk"), rounds=6, seconds=9, with_rivals=True)
    assert row["status"] == "measured" and row["error"] <= 4 and row["first_ms"] > 0
    for word in ("forward", "step"):
        assert row[word]["low"] <= row[word]["ratio"] <= row[word]["high"]
        assert row["rivals"]["unfold"][word]["ratio"] > 0
    x_and_y = 4 * (3 * 2 * 8 * 8 + 3 * 2 * 4 * 4)
    assert row["forward"]["gb_per_s"] == pytest.approx(x_and_y / row["forward"]["ms"] / 1e6)
    assert row["forward"]["suspicious"] == (row["forward"]["copy_share"] > 1)
    json.dumps(row, allow_nan=False)


# --- memory -----------------------------------------------------------------------------------------------------------


def weighed(layer):
    x = torch.randn(8, 8, 64, 64, requires_grad=True)
    return weighing.footprint(layer, x, torch.ones(8, 8, 32, 32), ()), x.nbytes, 4 * 8 * 8 * 32 * 32


def test_max_pooling_keeps_an_index_of_eight_bytes_a_cell():
    found, cells, outputs = weighed(torch.nn.MaxPool2d(2))
    assert (found.kept, found.peak) == (2 * outputs, cells + 3 * outputs)


def test_what_autograd_keeps_beyond_the_input_counts_and_the_input_does_not():
    assert weighed(torch.nn.AvgPool2d(2))[0].kept == 0
    assert weighed(lambda x: F.avg_pool2d(x * x * x, 2))[0].kept > 0


class Hides(torch.autograd.Function):
    """Keeps a copy of the input on the context, where autograd's hooks do not see it."""

    @staticmethod
    def forward(ctx, x):
        ctx.hidden = x.clone()
        return F.avg_pool2d(x, 2)

    @staticmethod
    def backward(ctx, g):
        return F.interpolate(g, scale_factor=2) * ctx.hidden


def test_what_is_hidden_from_autograd_counts():
    found, cells, _ = weighed(Hides.apply)
    assert found.kept == cells


def test_numpy_s_arrays_count_in_the_peak():
    plain, cells, _ = weighed(torch.nn.AvgPool2d(2))

    def with_array(x):
        np.zeros(cells, dtype=np.uint8)[:] = 1
        return F.avg_pool2d(x, 2)

    assert weighed(with_array)[0].peak >= plain.peak + cells


# --- rivals -----------------------------------------------------------------------------------------------------------


def test_the_usual_code_of_every_method_computes_the_same():
    assert set(rivals.FORMULAS) <= set(poolkit.WINDOW_METHODS)
    for method in (method for method in DEFAULTS if method.card.name in rivals.FORMULAS):
        tried = Stage(case(method.spelling))
        found = dict(rivals.rivals(method, GEOMETRIES["2x2/2"]))
        assert not tried.differs(found["unfold"]), method


def test_the_usual_code_learns_what_ours_learns():
    found = dict(rivals.rivals(poolkit.method("gem:p=learn"), GEOMETRIES["2x2/2"]))["unfold"]
    found(torch.rand(1, 1, 4, 4)).sum().backward()
    assert found.p.grad is not None and float(found.p.detach()) == 3.0


@pytest.mark.parametrize("other", ["min", "rank-avg:t=3", "soft:beta=learn"])
def test_a_rival_that_computes_something_else_is_not_timed(other, monkeypatch):
    strange = rivals.Unfolded(poolkit.method(other), GEOMETRIES["2x2/2"])
    monkeypatch.setattr(speed, "rivals", lambda method, geometry: [("strange", strange)])
    row = measure_case(case("avg-topk"), rounds=6, seconds=0, with_rivals=True)
    assert row["rivals"]["strange"]["status"] == "another function"
    assert any("strange: another function" in line for line in speed_words.others([row]))


def test_a_rival_that_would_take_all_the_time_is_left_out():
    row = measure_case(case("avg-topk"), rounds=6, seconds=1e-9, with_rivals=True)
    assert row["rivals"]["unfold"]["status"] == "no time" and row["status"] == "measured"
    assert any("too slow" in line for line in speed_words.others([row]))


def test_a_package_that_is_not_here_is_named_and_skipped(monkeypatch):
    monkeypatch.setattr(rivals, "find_spec", lambda name: None)
    monkeypatch.setattr(speed, "find_spec", lambda name: None)
    assert [name for name, _ in rivals.rivals(poolkit.method("avg"), None)] == []
    monkeypatch.setattr(speed.os, "getloadavg", lambda: (0.0, 0.0, 0.0), raising=False)
    notes = speed.circumstances(Plan(), "poolkit bench", "kept")["notes"]
    assert len(notes) == len(rivals.PACKAGES)


# --- plans ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        ({"geometries": ("2x2",)}, "allowed: 2x2/2"),
        ({"layouts": ("nhwc",)}, "channels-last"),
        ({"shapes": ((3, 3),)}, "batch, channels"),
        ({"shapes": ((1, 1, 2, 2),)}, "at least 4×4"),
        ({"rounds": 5}, "fewer than 6"),
        ({"seconds": 0}, "more than 0"),
    ],
)
def test_a_plan_that_cannot_be_measured_says_what_can(asked, said):
    with pytest.raises(ValueError, match=said):
        Plan(**asked)


def test_the_default_plan_has_every_method_and_learns_what_can_be_learned():
    cases = Plan().cases()
    tables = [method for method in DEFAULTS if method.tables]  # no global layer
    assert len(tables) == 4
    assert len(cases) == (len(poolkit.WINDOW_METHODS) * 5 - len(tables)) * 3 * 2
    for method in DEFAULTS:
        assert set(method.learned) == {n for n, p in method.params().items() if p.learnable and not p.surrogate}
    assert {c.shape[2:] for c in cases if c.geometry == "ceil"} == {(29, 29), (31, 31), (55, 55)}


def test_the_groups_are_those_of_the_bars():
    groups = {method.card.name: speed.group(method) for method in DEFAULTS}
    assert groups["max"] == groups["avg-topk"] == "plain"
    assert groups["lp"] == groups["soft"] == "learnable" and groups["mixed"] == groups["stochastic"] == "random"


def test_rows_that_the_budget_leaves_out_are_there_without_numbers():
    plan = Plan(methods=DEFAULTS[:1], geometries=("2x2/2",), shapes=(SMALL,), seconds=1e-9)
    rows = list(measure(plan))
    assert [row["status"] for row in rows] == ["no time"] * 2


def test_a_busy_machine_is_said_to_be_busy(monkeypatch):
    monkeypatch.setattr(speed.os, "getloadavg", lambda: (3.0, 0.0, 0.0), raising=False)
    about = speed.circumstances(Plan(), "poolkit bench", "kept")
    assert about["machine"]["load_before"] == 3.0 and "busy" in about["notes"][0]


# --- bars -------------------------------------------------------------------------------------------------------------


def row_of(ratio=0.5, low=None, high=None, **more):
    found = {"ratio": ratio, "low": ratio if low is None else low, "high": ratio if high is None else high}
    forward = {**found, "gb_per_s": 9.0, "copy_share": 0.9, "ms": 1.0, "suspicious": False}
    return {
        "method": "avg", "family": "mean", "group": "plain", "geometry": "2x2/2", "shape": "128x64x32x32",
        "layout": "contiguous", "status": "measured", "detail": "", "path": "cpu", "forward_path": "cpu",
        "first_ms": 1.0, "forward": forward, "step": found, "kept": 0.0, "peak": 0.5, "error": 1.0, "rivals": {},
        **more,
    }  # fmt: skip


MEAN = Bar("mean", ("step", "ratio"), "mean", 0.8)
MOST = Bar("most", ("step", "ratio"), "most", 1.2)


def test_a_bar_on_the_mean_takes_the_geometric_one_and_names_the_worst_row():
    (verdict,) = judge([row_of(0.25), row_of(1.0, geometry="global")], [MEAN])
    assert verdict.value == pytest.approx(0.5) and verdict.kept and "global" in verdict.at


@pytest.mark.parametrize(("ratio", "kept"), [(1.2, True), (1.21, False)])
def test_a_bar_on_the_worst_row(ratio, kept):
    (verdict,) = judge([row_of(0.1), row_of(ratio)], [MOST])
    assert verdict.value == ratio and verdict.kept is kept


def test_wrong_values_miss_every_bar_and_missing_rows_leave_it_open():
    wrong = {**row_of(), "status": "wrong"}
    late = {**row_of(), "status": "no time"}
    for row in (wrong, late):
        for name in ("forward", "step"):
            del row[name]
    assert [judge([row_of(), other], [MOST])[0].kept for other in (wrong, late)] == [False, None]
    assert judge([row_of(9.0), late], [MOST])[0].kept is False
    assert judge([], [MOST])[0].kept is None


def test_every_declared_bar_can_be_kept_and_missed():
    unfold = {"unfold": {"status": "measured", "step": {"ratio": 0.01}, "forward": {"ratio": 0.01}}}
    slow = {"unfold": {"status": "measured", "step": {"ratio": 5.0}, "forward": {"ratio": 5.0}}}
    kinds = [("plain", "mean"), ("plain", "rank"), ("learnable", "power mean"), ("random", "random")]
    good = [row_of(0.1, group=g, family=f, rivals=unfold) for g, f in kinds]
    bad = [row_of(9.0, group=g, family=f, kept=3.0, peak=3.0, error=99.0, rivals=slow) for g, f in kinds]
    for row in bad:
        row["forward"]["copy_share"] = 0.1
    assert [v.kept for v in judge(good)] == [True] * len(BARS)
    assert [v.kept for v in judge(bad)] == [False] * len(BARS)


@pytest.mark.parametrize(("low", "closed"), [(0.7, False), (0.8 * 1.25, False), (0.8 * 1.25 + 0.01, True)])
def test_the_gate_closes_only_where_the_whole_interval_is_past_the_bar_by_a_quarter(low, closed, monkeypatch):
    monkeypatch.setattr(speed_bars, "BARS", (MEAN,))
    assert bool(gate([row_of(5.0, low=low, high=9.0)])) is closed


def test_the_gate_lets_known_losses_of_single_rows_pass(monkeypatch):
    monkeypatch.setattr(speed_bars, "BARS", (MOST, MEAN))
    assert not gate([row_of(0.1), row_of(3.0)])


def test_the_gate_closes_on_wrong_values_and_on_nothing():
    assert "numbers" in gate([{**row_of(), "status": "wrong", "detail": "other numbers"}])[0]
    assert gate([])
    assert not gate([row_of()])


def test_a_row_names_what_it_loses():
    assert speed_bars.losses(row_of()) == []
    lost = speed_bars.losses(row_of(2.0, error=5.0))
    assert {"forward", "step", "step/ratio", "error"} == set(lost)


# --- words ------------------------------------------------------------------------------------------------------------


WRONG_ROW = {
    **{k: row_of()[k] for k in ("method", "family", "group", "geometry", "shape", "layout", "path", "first_ms")},
    "status": "wrong",
    "detail": "the values differ",
}


def stored(rows, complete=True):
    return speed_words.record(speed.circumstances(Plan(), "poolkit bench", "kept"), rows, complete)


def test_a_wrong_row_shows_no_number():
    cells = speed_words.cells(WRONG_ROW)
    assert cells[-1] == "WRONG: the values differ"
    assert not any(any(sign in cell for sign in ".%") for cell in cells[5:-1])
    assert len(cells) == len(speed_words.cells(row_of())) == len(speed_words.COLUMNS)


@pytest.mark.parametrize(
    ("row", "mark"),
    [(row_of(), ""), (row_of(1.1), "▲"), (row_of(2.0), "▲!"), (row_of(peak=2.0), "!"), (WRONG_ROW, "wrong")],
)
def test_a_narrow_terminal_gets_lines_that_fit_and_the_marks(row, mark):
    longest = {**row, "method": "soft:beta=learn@1", "layout": "channels-last", "shape": "128x64x32x32"}
    lines = speed_words.table([longest], 80)
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    assert lines[1][-1] == mark and sum(widths) + 2 * len(widths) <= 80
    assert speed_words.legend(80) != speed_words.legend(None)


def test_a_row_faster_than_the_copy_is_suspicious_not_a_record():
    row = row_of()
    row["forward"] |= {"copy_share": 1.2, "suspicious": True}
    assert "suspicious" in speed_words.cells(row)[-1]
    assert any("suspicious" in line for line in speed_words.summary([row]))


def test_markdown_says_wrong_instead_of_a_speed_and_where_it_was_measured():
    text = speed_words.markdown(stored([row_of(0.5), row_of(0.2, layout="channels-last"), row_of(0.125)]))
    line = next(line for line in text.splitlines() if line.startswith("| `avg`"))
    assert line == "| `avg` | 0.25 | 0.20 | 0.50 | 0.25 | 0.20 | 0.50 |  |"
    assert "`poolkit bench`" in text and torch.__version__ in text
    assert "Not complete" not in text
    assert "Not complete" in speed_words.markdown(stored([row_of()], complete=False))
    assert "| wrong | wrong |" in speed_words.markdown(stored([row_of(), WRONG_ROW]))


def test_csv_has_a_line_a_row_with_machine_date_and_command():
    found = stored([row_of(), WRONG_ROW])
    lines = list(csv.DictReader(io.StringIO(speed_words.as_csv(found))))
    assert [line["status"] for line in lines] == ["measured", "wrong"]
    assert lines[0]["step_ratio"] == "0.5" and lines[1]["step_ratio"] == ""
    for name in ("date", "command", "processor", "cores", "threads", "platform", "torch", "poolkit", "python"):
        assert lines[0][name] and lines[1][name]


# --- the command ------------------------------------------------------------------------------------------------------

WORDS = ("bench", "--method", "avg", "--geometry", "2x2/2", "--shape", "2x2x8x8", "--rounds", "6", "--budget", "0.01")


@pytest.fixture
def call(capsys, monkeypatch):
    monkeypatch.setattr("poolkit.lab.terminal.keep_memory", lambda: None)

    def run(*words):
        code = main(words)
        return code, *capsys.readouterr()

    return run


def test_the_command_prints_one_table_the_bars_and_the_machine(call):
    code, out, err = call(*WORDS)
    assert (code, err) == (0, "")  # no progress where stderr is no terminal
    assert [line.split()[0] for line in out.splitlines()[:3]] == ["method", "avg", "avg"]
    assert "geometric mean ≤ 0.8" in out and "cores" in out and "poolkit bench --method avg" in out


def test_json_and_files_hold_every_row(call, tmp_path):
    code, out, _ = call(*WORDS, "--json", "--out", str(tmp_path / "t.json"))
    found = json.loads(out)
    assert code == 0 and found == json.loads((tmp_path / "t.json").read_text())
    assert [row["layout"] for row in found["rows"]] == ["contiguous", "channels-last"]
    assert found["machine"]["processor"] and found["date"] and found["command"].startswith("poolkit bench")
    call(*WORDS, "--out", str(tmp_path / "t.csv"))
    assert len((tmp_path / "t.csv").read_text().splitlines()) == 3
    code, out, _ = call("bench", "--markdown", str(tmp_path / "t.json"))
    assert code == 0 and out.strip() == speed_words.markdown(found)


def test_ctrl_c_leaves_what_was_measured(call, tmp_path, monkeypatch):
    def interrupted(plan, watch):
        yield row_of()
        raise KeyboardInterrupt

    monkeypatch.setattr(speed, "measure", interrupted)
    code, out, err = call(*WORDS, "--out", str(tmp_path / "t.json"))
    found = json.loads((tmp_path / "t.json").read_text())
    assert code == 130 and len(found["rows"]) == 1 and not found["complete"]
    assert out.splitlines()[1].startswith("avg") and "stopped after 1 of 2 rows" in err


def test_ctrl_c_before_the_first_row_leaves_an_earlier_table_alone(call, tmp_path, monkeypatch):
    def interrupted(plan, watch):
        raise KeyboardInterrupt
        yield

    (tmp_path / "t.json").write_text("{}")
    monkeypatch.setattr(speed, "measure", interrupted)
    code, _, err = call(*WORDS, "--out", str(tmp_path / "t.json"))
    assert code == 130 and (tmp_path / "t.json").read_text() == "{}" and "stopped after 0 of 2 rows" in err


@pytest.mark.parametrize(("gated", "code"), [((), 0), (("--gate",), 1)])
def test_only_the_gate_makes_a_missed_bar_a_failure(call, monkeypatch, gated, code):
    monkeypatch.setattr(speed, "measure", lambda plan, watch: iter([row_of(9.0)]))
    ended, out, err = call("bench", *gated)
    assert ended == code and "✗" in out
    assert ("the gate is closed" in err) is bool(gated)


def test_a_parameter_whose_terms_cancel_is_measured_by_them_and_a_wrong_one_is_found() -> None:
    got, want = (torch.tensor(3.001),), [torch.tensor(3.0, dtype=torch.float64)]
    # 10⁶ terms of 1 that leave 3: rounding of each to 64 eps adds up to 8·10⁻³.
    assert _parameters_outside(got, want, [1000.0]) == ""
    assert "not [3.0]" in _parameters_outside(got, want, [3.0])
    assert _parameters_outside((torch.tensor(math.nan),), want, [1000.0])


def test_the_terms_of_a_parameter_are_those_of_the_windows() -> None:
    x = torch.tensor([[[[1.0, 2.0], [3.0, 5.0]]]], dtype=torch.float64)
    layer = Pool2d("blend", (1, 2)).double()
    g = torch.tensor([[[[2.0], [-3.0]]]])
    *_, slopes, roots = _reference_step(layer, x, g, torch.tensor([0]), 0)
    assert [float(s) for s in slopes] == [2 * 0.5 - 3 * 1.0]
    assert roots == [pytest.approx(math.hypot(2 * 0.5, 3 * 1.0))]
