"""The command line: what it answers, where it says it, how it fails, and how it ends."""

from __future__ import annotations

import contextlib
import json
import os
import platform
import re
import shlex
import signal
import subprocess
import sys
import time
from contextlib import nullcontext
from pathlib import Path

import pytest

import poolkit
from conftest import PATIENCE
from poolkit import cards, console
from poolkit.cli import main

SRC = Path(poolkit.__file__).parents[1]
CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")


@pytest.fixture
def call(capsys):
    """Run the command line in this process: (exit code, stdout, stderr)."""

    def run(*words: str) -> tuple[int, str, str]:
        code = main(words)
        out, err = capsys.readouterr()
        assert "Traceback" not in out + err
        return code, out, err

    return run


@pytest.fixture
def alone(tmp_path, monkeypatch):
    """An empty folder to work in, without any data set near it."""
    for name in ("HOME", "XDG_CACHE_HOME", "LOCALAPPDATA", "POOLKIT_DATA"):
        monkeypatch.setenv(name, str(tmp_path / "home"))
    work = tmp_path / "work"
    work.mkdir()
    monkeypatch.chdir(work)
    return work


def python(code: str, *words: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run code in another Python that finds poolkit."""
    env = {**os.environ, "PYTHONPATH": str(SRC), "OMP_NUM_THREADS": "1", "PYTHONIOENCODING": "utf-8", **environment}
    return subprocess.run(
        [sys.executable, "-c", code, *words],
        env=env,
        capture_output=True,
        text=True,
        encoding="utf-8",
        timeout=PATIENCE,
    )


# --- without any heavy import -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("words", [[], ["--help"], ["--version"], ["list"], ["list", "--json"], ["show", "soft"]])
def test_looking_around_imports_no_array_library(words):
    code = (
        "import sys; from poolkit.cli import main; code = main(sys.argv[1:])\n"
        "heavy = {'torch', 'numpy', 'matplotlib', 'sklearn', 'PIL', 'scipy'} & set(sys.modules)\n"
        "assert code == 0 and not heavy, (code, heavy)"
    )
    done = python(code, *words)
    assert done.returncode == 0, done.stderr


def test_alone_it_prints_six_lines_and_three_examples(call):
    code, out, _ = call()
    about, examples = out.split("\n\n")
    assert code == 0
    assert len(about.splitlines()) == 6
    assert [line.split()[0] for line in examples.splitlines()[1:]] == ["poolkit"] * 3


COMMANDS = (
    "list",
    "show",
    "demo",
    "train",
    "predict",
    "report",
    "check",
    "doctor",
    "bench",
    "bench memory",
    "bench training",
)


@pytest.mark.parametrize("command", ["", *COMMANDS])
def test_help_starts_with_examples(call, command):
    code, out, _ = call(*command.split(), "--help")
    first, example = out.splitlines()[:2]
    assert (code, first) == (0, "examples")
    assert example.strip().startswith(f"poolkit {command}".strip())
    assert "Usage:" in out and "--quiet" in out and "--verbose" in out


def test_help_names_every_command(call):
    _, out, _ = call("--help")
    for command in COMMANDS:
        assert re.search(rf"^  {command.split()[0]} ", out, re.M)


def test_version(call):
    assert call("--version") == (0, f"poolkit {poolkit.__version__}\n", "")


def test_list_has_a_whole_line_for_each_method(call):
    code, out, err = call("list")
    lines = out.splitlines()
    assert code == 0
    assert [line.split()[0] for line in lines] == ["name", *poolkit.METHODS]
    for line, cls in zip(lines[1:], poolkit.METHODS.values(), strict=True):
        assert cls.card.title in line and cls.card.family in line and cards.defaults(cls) in line
    assert "poolkit show" in err and "poolkit show" not in out


def test_list_as_json_says_all_that_is_asked_of_it(call):
    _, out, _ = call("list", "--json")
    entries = {entry["name"]: entry for entry in json.loads(out)}
    assert list(entries) == list(poolkit.METHODS)
    soft, stochastic = entries["soft"], entries["stochastic"]
    assert set(soft) == {
        *("name", "title", "kind", "family", "parameters", "random", "learnable", "source", "equation")
    }
    assert soft["parameters"][0]["name"] == "beta" and soft["parameters"][0]["default"] == 1.0
    assert set(soft["parameters"][0]) == {"name", "default", "range", "learnable", "learned", "meaning"}
    assert (soft["random"], soft["learnable"]) == (False, True)
    assert (stochastic["random"], stochastic["learnable"]) == (True, False)


@pytest.mark.parametrize(
    ("name", "year"),
    [("soft", "2021"), ("stochastic", "2013"), ("avg-topk", "2023"), ("rank-avg", "2016"), ("min", "")],
)
def test_the_year_is_the_papers_not_a_number_of_arxiv(name, year):
    assert cards.year(poolkit.METHODS[name]) == year


def test_show_says_what_the_card_says(call):
    code, out, _ = call("show", "soft:beta=2")
    card = poolkit.Soft.card
    flat = " ".join(out.split())
    assert code == 0
    for text in (card.title, "soft:beta=2", card.source, card.released, "soft:beta=0 is avg", "any finite number"):
        assert " ".join(text.split()) in flat
    assert card.equation in out
    assert all(fact.sentence in out for fact in card.facts)


@pytest.mark.parametrize("value", ["2.123456789", "0.1", "1e-07", "-300", "123.4567891"])
def test_show_gives_every_digit_of_a_parameter(call, value):
    _, out, _ = call("show", f"soft:beta={value}")
    assert f"  beta={value}  " in out
    (declared,) = (d for d in poolkit.METHODS["fractional"].params().values() if isinstance(d.default, float))
    assert float(cards.default(declared)) == declared.default


@pytest.mark.parametrize("name", poolkit.WINDOW_METHODS)
def test_show_works_out_a_window_for_every_method(call, name):
    code, out, _ = call("show", name)
    method = poolkit.method(name)
    assert code == 0
    for row in cards.pooled(method):
        assert all(f" {value:.4g} " in out for value in row)


def test_the_worked_window_is_the_pooled_picture():
    assert cards.pooled(poolkit.Max()) == ((6, 8), (3, 4))
    assert cards.pooled(poolkit.Avg()) == ((3.75, 5.25), (2, 2))


def test_the_drawing_is_straight():
    lines = cards.drawing(poolkit.Max(), poolkit.Avg(), poolkit.Soft()).splitlines()
    assert len(lines) == 7
    assert {line[2] for line in lines} <= set("┌│├└") and {line[14] for line in lines} <= set("┐│┤┘")
    assert {lines[1][column] for column in (20, 24, 28)} == set("┌┬┐")


def test_show_as_json(call):
    code, out, _ = call("show", "avg-topk:k=3", "--json")
    page = json.loads(out)
    assert code == 0
    assert (page["name"], page["spelling"]) == ("avg-topk", "avg-topk:k=3")
    assert page["example"]["output"] == [[14 / 3, 19 / 3], [7 / 3, 8 / 3]]


def test_no_control_characters_in_a_pipe_even_with_odd_names(call, tmp_path):
    for words in (["list"], ["show", "soft"], ["show", "\x1b[31msoft"], ["predict", str(tmp_path / "\x1b]0;x\x07")]):
        _, out, err = call(*words, *(["x.png"] if words[0] == "predict" else []))
        assert not CONTROL.search(out + err)


def test_a_stream_without_unicode_gets_ascii_instead_of_an_exception():
    done = python(
        "import sys; from poolkit.cli import main; sys.exit(main(['show', 'soft']))",
        PYTHONIOENCODING="ascii",
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.isascii() and "+-----+-----+" in done.stdout and "xi" in done.stdout


def test_a_closed_pipe_is_no_stack_trace():
    code = "import sys; from poolkit.cli import main; sys.exit(main(['show', 'soft']))"
    env = {**os.environ, "PYTHONPATH": str(SRC)}
    with subprocess.Popen([sys.executable, "-c", code], env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as job:
        job.stdout.close()
        assert job.stderr.read() == b""
    assert job.returncode == 1


# --- wrong requests ---------------------------------------------------------------------------------------------------

WRONG = [
    (["sow"], ["show", "poolkit --help"]),
    (["show", "sotf"], ['"sotf"', "nearest: soft", "poolkit list"]),
    (["show", "SOFT"], ['no pooling method "SOFT"', "nearest: soft"]),
    (["show", "soft:bta=2"], ["beta"]),
    (["show", "avg-topk:k=0"], ["integer from 1"]),
    (["show"], ["METHOD", "poolkit show --help"]),
    (["train", "--pol", "max"], ["--pool"]),
    (["train", "--epochs", "many"], ["--epochs"]),
    (["train", "--threads", "0"], ["--threads"]),
    (["train", "--pool", "sotf"], ["soft"]),
    (["train", "--pool", "Avg_TopK:k=2"], ["nearest: avg-topk"]),
    (["train", "--data", "cifra10"], ["cifar10", "folder:PATH"]),
    (["train", "--data", "digits", "--epochs", "0"], ["epochs=0"]),
    (["train", "--data", "digits", "--out", ""], ["--out", "runs/"]),
    (["demo", "--out", " "], ["--out", "runs/"]),
    (["train", "--data", "digits", "--net", "tutrial"], ["tutorial"]),
    (["train", "--data", "digits", "--lr", "-1"], ["lr=-1"]),
    (["train", "--data", "digits", "--device", "abacus"], ["abacus", "poolkit doctor"]),
    (["demo", "--pool", "maxx"], ["max"]),
    (["predict", "nowhere", "x.png"], ["nowhere"]),
    (["report", "nowhere"], ["nowhere"]),
    (["check", "sotf"], ["soft"]),
    (["check", "no_such_module:X"], ['no module "no_such_module"']),
    (["check", "json:JSONDecodr"], ['"json"', '"JSONDecodr"']),
    (["check", "json:JSONDecoder"], ["poolkit.WindowMethod"]),
    (["check", "my-file.py:X"], ["module:Class"]),
    (["bench", "--method", "sotf"], ["soft"]),
    (["bench", "--geometry", "2x2"], ["2x2/2", "global"]),
    (["bench", "--shape", "3x3"], ["batch, channels"]),
    (["bench", "--layout", "nhwc"], ["channels-last"]),
    (["bench", "--rounds", "5"], ["fewer than 6"]),
    (["bench", "--budget", "0"], ["more than 0"]),
    (["bench", "--out", "table.txt"], ["FILE.csv"]),
    (["bench", "--out", "nowhere/table.csv"], ["no folder"]),
    (["bench", "--markdown", "nowhere.json"], ["nowhere.json", "poolkit bench --out"]),
    (["bench", "trainin"], ["nearest: training"]),
    (["bench", "memory", "--method", "max"], ["window method", "poolkit bench --method max"]),
    (["bench", "memory", "--shape", "8x8"], ["batch, channels"]),
    (["bench", "training", "--data", "digits", "--rounds", "2"], ["rounds=2"]),
]


@pytest.mark.parametrize(("words", "named"), WRONG, ids=[" ".join(words) for words, _ in WRONG])
def test_a_wrong_request_says_what_is_right(call, alone, words, named):
    if words[0] in ("train", "predict", "report", "bench"):
        pytest.importorskip("torch")
    code, out, err = call(*words)
    assert code == 2
    assert err.startswith("error: ") or "\nerror: " in err
    assert out == ""
    for text in named:
        assert text.lower() in err.lower()
    assert not (alone / "runs").exists()


def test_verbose_shows_the_stack_trace(capsys):
    assert main(["show", "sotf", "-v"]) == 2
    assert "Traceback" in capsys.readouterr().err


def test_an_unexpected_error_is_one_line_and_how_to_see_more(call, monkeypatch):
    def broken(method):
        raise RuntimeError("the oracle is out\nfor lunch")

    monkeypatch.setattr(cards, "page", broken)
    code, out, err = call("show", "soft")
    assert (code, out) == (1, "")
    assert err == "error: RuntimeError: the oracle is out\n  run again with --verbose for the stack trace\n"


def test_a_missing_library_says_how_to_install_it(call, monkeypatch):
    def missing(method):
        raise ModuleNotFoundError("No module named 'torch'", name="torch")

    monkeypatch.setattr(cards, "page", missing)
    code, _, err = call("show", "soft")
    assert code == 1
    assert "torch is not installed" in err and 'pip install "poolkit[lab]"' in err


def test_a_bug_of_ours_is_not_called_a_missing_library(call, monkeypatch):
    def broken(method):
        raise ModuleNotFoundError("No module named 'poolkit.nothing'", name="poolkit.nothing")

    monkeypatch.setattr(cards, "page", broken)
    assert "pip install" not in call("show", "soft")[2]


def test_interrupted_is_130(call, monkeypatch):
    def interrupted(method):
        raise KeyboardInterrupt

    monkeypatch.setattr(cards, "page", interrupted)
    assert call("show", "soft")[0] == 130


def test_quiet_and_json_do_not_last_until_the_next_call(call):
    call("list", "-q", "--json")
    assert (
        not console.settings.quiet and not console.settings.json or console.settings.words == ("list", "-q", "--json")
    )
    _, out, err = call("list")
    assert out.startswith("name") and "poolkit show" in err


@pytest.mark.parametrize("words", [("-q", "list"), ("list", "-q"), ("list", "--quiet")])
def test_quiet_may_stand_before_or_behind_the_command(call, words):
    assert call(*words)[2] == ""


def test_doctor_knows_what_the_package_declares():
    from poolkit.doctor import LAB

    tomllib = pytest.importorskip("tomllib")
    project = tomllib.loads((SRC.parent / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    lines = project["optional-dependencies"]["lab"]
    declared = {re.split(r"[<>=~]", line)[0] for line in lines if ";" not in line}  # not what old Pythons need besides
    assert set(LAB) == declared


# --- with the lab -----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A folder with a data set of our own (`data.npz`), a finished run (`run`), and what training it printed."""
    pytest.importorskip("safetensors")
    np = pytest.importorskip("numpy")
    from contextlib import redirect_stderr, redirect_stdout
    from io import StringIO

    torch = pytest.importorskip("torch")
    threads = torch.get_num_threads()
    folder = tmp_path_factory.mktemp("trained")
    rng = np.random.default_rng(0)
    y = np.arange(60) % 3
    x = (rng.integers(0, 60, (60, 16, 16, 3)) + 80 * y[:, None, None, None]).astype(np.uint8)
    names = np.array(["dark", "grey\x1b[31m", "bright"])
    np.savez(folder / "data.npz", x_train=x[:45], y_train=y[:45], x_test=x[45:], y_test=y[45:], classes=names)
    out, err = StringIO(), StringIO()
    words = ["train", "--data", f"npz:{folder / 'data.npz'}", "--epochs", "3", "--batch", "9", "--threads", "1"]
    with redirect_stdout(out), redirect_stderr(err):
        assert main([*words, "--pool", "avg-topk:k=2", "--out", str(folder / "run")]) == 0, err.getvalue()
    assert torch.get_num_threads() == 1
    torch.set_num_threads(threads)
    return folder, out.getvalue(), err.getvalue()


def picture(path: Path, level: int, size: tuple[int, int] = (20, 16)) -> str:
    from PIL import Image

    Image.new("RGB", size, (level,) * 3).save(path)
    return str(path)


def test_train_prints_what_one_looks_at(trained):
    folder, out, err = trained
    assert "(45, 3, 16, 16) uint8" in out and "(15, 3, 16, 16) uint8" in out
    assert "dark" in out and "15 for training, 5 for testing" in out
    assert re.search(r"Pool2d avg-topk, 2×2 +32×7×7 +0", out)
    assert re.search(r"^accuracy [\d.]+% on the test pictures", out, re.M)
    assert f"report: {folder / 'run' / 'report.html'}" in out
    line = r"^epoch \d/3  loss [\d.]+ \(test [\d.]+\)  accuracy [\d.]+% \(test [\d.]+%\)  [\d,]+ images/s(.*)$"
    first, second, last = re.findall(line, err, re.M)
    assert all(re.fullmatch(r"  [\d.]+ (s|min \d+ s) left", left) for left in (first, second)) and last == ""
    assert f"poolkit predict {folder / 'run'}" in err and f"poolkit report {folder / 'run'}" in err
    assert not CONTROL.search(out + err)
    assert (folder / "run" / "report.html").stat().st_size > 1000


def test_the_run_remembers_its_command(trained):
    command = json.loads((trained[0] / "run" / "run.json").read_text(encoding="utf-8"))["command"]
    assert command.startswith("poolkit train --data npz:") and "--pool avg-topk:k=2" in command


def test_train_into_a_used_folder_is_refused_and_resuming_a_finished_run_is_fine(call, trained):
    folder = trained[0]
    words = ["train", "--data", f"npz:{folder / 'data.npz'}", "--epochs", "3", "--batch", "9", "--pool", "avg-topk"]
    before = (folder / "run" / "run.json").read_bytes()
    code, _, err = call(*words, "--out", str(folder / "run"))
    assert code == 1 and "--resume" in err
    code, out, _ = call(*words, "--out", str(folder / "run"), "--resume", "--json")
    answer = json.loads(out)
    assert code == 0 and answer["status"] == "finished" and answer["folder"] == str(folder / "run")
    assert Path(answer["report"]).is_file() and len(answer["epochs"]) == 3
    assert (folder / "run" / "run.json").read_bytes() == before


@pytest.mark.parametrize("asked", ["npz:./{file}", "npz:../{folder}/{file}", "npz:~/{file}"])
def test_data_may_be_spelled_in_any_way_that_finds_them(call, trained, tmp_path, monkeypatch, asked):
    monkeypatch.chdir(trained[0])
    monkeypatch.setenv("HOME", str(trained[0]))
    monkeypatch.setenv("USERPROFILE", str(trained[0]))
    words = asked.format(file="data.npz", folder=trained[0].name)
    assert call("train", "--data", words, "--epochs", "1", "--out", str(tmp_path / "r"))[0] == 0


@pytest.mark.parametrize("ending", ["/", "/.", "//"])
def test_a_folder_of_pictures_may_end_with_a_slash(call, tmp_path, monkeypatch, ending):
    monkeypatch.chdir(tmp_path)
    for part in ("train", "test"):
        for name, level in (("dark", 20), ("bright", 230)):
            (tmp_path / "pics" / part / name).mkdir(parents=True)
            for number in range(3):
                picture(tmp_path / "pics" / part / name / f"{number}.png", level + number)
    code, _, err = call("train", "--data", f"folder:./pics{ending}", "--epochs", "1")
    assert code == 0, err
    (record,) = tmp_path.glob("runs/*/run.json")
    assert json.loads(record.read_text(encoding="utf-8"))["recipe"]["data"] == "folder:pics"


def test_an_out_folder_that_cannot_be_used_is_refused_before_anything_is_printed(call, trained, tmp_path):
    file, mine = tmp_path / "file", tmp_path / "mine"
    file.write_text("keep")
    mine.mkdir()
    (mine / "model.safetensors").write_text("keep")
    for out in (file, file / "below", mine, *([Path("/proc/poolkit")] if Path("/proc/self").exists() else [])):
        code, said, err = call("train", "--data", f"npz:{trained[0] / 'data.npz'}", "--out", str(out))
        assert (code, said) == (1, "") and str(out) in err and "--out" in err
    assert file.read_text() == (mine / "model.safetensors").read_text() == "keep"


def test_quiet_training_prints_the_result_alone(call, trained, tmp_path):
    code, out, err = call(
        *("train", "--data", f"npz:{trained[0] / 'data.npz'}", "--epochs", "1", "--out", str(tmp_path / "r"), "-q")
    )
    assert (code, err) == (0, "")
    assert [line.split()[0] for line in out.splitlines()] == ["accuracy", "report:"]


def test_a_run_that_diverges_is_reported_and_fails(call, trained, tmp_path):
    code, _, err = call(
        *("train", "--data", f"npz:{trained[0] / 'data.npz'}", "--epochs", "3", "--lr", "1e30"),
        *("--optimiser", "sgd", "--out", str(tmp_path / "r")),
    )
    assert code == 1 and "learning rate" in err
    assert (tmp_path / "r" / "report.html").is_file()
    assert json.loads((tmp_path / "r" / "run.json").read_text(encoding="utf-8"))["status"] == "failed"


def test_pictures_too_small_for_the_net_are_a_wrong_request(call, tmp_path):
    np = pytest.importorskip("numpy")
    pytest.importorskip("torch")
    x, y = np.zeros((4, 6, 6), np.uint8), np.array([0, 1, 0, 1])
    np.savez(tmp_path / "small.npz", x_train=x, y_train=y, x_test=x, y_test=y)
    code, _, err = call("train", "--data", f"npz:{tmp_path / 'small.npz'}", "--out", str(tmp_path / "r"))
    assert code == 2 and "10×10" in err


def test_predict_answers_all_it_can_and_fails_for_the_rest(call, trained, tmp_path):
    run, dark, bright = str(trained[0] / "run"), picture(tmp_path / "a.png", 20), picture(tmp_path / "b.jpg", 230)
    (tmp_path / "broken.png").write_bytes(b"no picture")
    code, out, err = call("predict", run, dark, str(tmp_path / "broken.png"), bright)
    assert code == 1
    assert [line.split(":")[0] for line in out.splitlines()] == [dark, bright]
    assert "broken.png" in err and err.count("error:") == 1
    for line in out.splitlines():
        assert re.fullmatch(r".*: \S+ [\d.]+%, \S+ [\d.]+%, \S+ [\d.]+%", line)
    assert not CONTROL.search(out)


def test_predict_as_json(call, trained, tmp_path):
    run, dark = str(trained[0] / "run"), picture(tmp_path / "a.png", 20)
    code, out, err = call("predict", run, dark, str(tmp_path / "none.png"), "--json")
    good, bad = json.loads(out)
    assert code == 1 and "none.png" in err
    assert good["image"] == dark and good["class"] == good["top"][0]["class"]
    assert sum(guess["probability"] for guess in good["top"]) == pytest.approx(1, abs=1e-5)
    assert set(bad) == {"image", "error"}
    code, out, _ = call("predict", run, dark, "--json")
    assert code == 0


def test_report_again(call, trained):
    run = trained[0] / "run"
    page = (run / "report.html").read_bytes()
    assert call("report", str(run)) == (0, f"{run / 'report.html'}\n", "")
    code, out, _ = call("report", str(run), "--json")
    assert (code, json.loads(out)) == (0, {"report": str(run / "report.html")})
    assert (run / "report.html").read_bytes() == page


@pytest.mark.parametrize("command", ["predict", "report"])
def test_a_folder_that_is_no_run_fails(call, tmp_path, command):
    pytest.importorskip("torch")
    code, _, err = call(command, str(tmp_path), *(["x.png"] if command == "predict" else []))
    assert code == 1 and "run.json" in err


def test_train_without_data_says_where_to_get_it(call, alone):
    pytest.importorskip("torch")
    code, out, err = call("train", "--data", "cifar10", "--offline")
    assert code == 1
    for text in ("error: ", "https://", "MB", "cifar-10-binary.tar.gz", "--data-dir"):
        assert text in err
    assert out == ""


def test_demo_goes_from_data_to_report_and_shows_it_again(call, alone):
    pytest.importorskip("sklearn")
    words = ["demo", "--data", "digits", "--epochs", "1", "--limit", "200"]
    code, out, err = call(*words)
    (report,) = alone.glob("runs/*/report.html")
    assert code == 0
    assert out.rstrip().endswith(f"report: {report.relative_to(alone)}")
    assert "→" in out and "(360, 1, 32, 32)" in out and "the net says" in out
    lines = err.splitlines()
    assert [line.startswith("epoch 1/1") for line in lines].count(True) == 1
    assert lines[-3].startswith("next: poolkit report")
    assert lines[-1].split() == ["poolkit", "explore", "--run", str(report.parent.relative_to(alone))]
    assert "digits" in report.read_text(encoding="utf-8")
    record = (report.parent / "run.json").read_bytes()
    code, again, err = call(*words)
    assert "finished already" in again and "training: " not in again
    assert code == 0 and "epoch 1/1" not in err and again.rstrip().endswith("report.html")
    assert (report.parent / "run.json").read_bytes() == record


def test_demo_without_data_says_so_in_a_line_and_takes_the_digits(call, alone):
    pytest.importorskip("sklearn")
    code, out, err = call("demo", "--offline", "--epochs", "1", "--limit", "64")
    assert code == 0
    assert err.splitlines()[0].startswith("CIFAR-10 is not on this machine") and "digits" in err.splitlines()[0]
    (record,) = alone.glob("runs/*/run.json")
    assert json.loads(record.read_text(encoding="utf-8"))["data"]["name"] == "digits"
    assert "report: " in out


@pytest.fixture
def unfinished(trained, tmp_path, monkeypatch, capsys):
    """A folder whose run was stopped after epoch 1 of 3, and the words that began it."""
    from poolkit.lab.train import Watch

    class Stop(Watch):
        def epoch(self, row):
            raise KeyboardInterrupt

    words = ["train", "--data", f"npz:{trained[0] / 'data.npz'}", "--epochs", "3", "--batch", "9", "--lr", "0.0005"]
    words += ["--out", str(tmp_path / "a run")]
    with monkeypatch.context() as patch:
        patch.setattr("poolkit.lab.terminal.watching", lambda epochs: nullcontext(Stop()))
        assert main(words) == 130
    capsys.readouterr()
    return tmp_path / "a run", words


def test_resuming_says_after_which_epoch(call, unfinished):
    code, out, _ = call(*unfinished[1], "--resume")
    assert code == 0 and "going on after epoch 1 of 3" in out


@pytest.mark.parametrize("command", ["report", "predict"])
def test_an_unfinished_run_says_so_and_names_the_command_that_finishes_it(call, unfinished, command):
    folder, _ = unfinished
    code, out, err = call(command, str(folder), *(["x.png"] if command == "predict" else []))
    assert (code, out) == (1, "") and "1 of 3 epochs" in err
    program, *words = shlex.split(err.partition("Finish it: ")[2])
    assert program == "poolkit" and words[-1] == "--resume"
    assert call(*words)[0] == 0 and call("report", str(folder))[0] == 0


def test_a_pool_that_does_not_fit_the_net_names_the_layer(call, trained, tmp_path):
    words = ["train", "--data", f"npz:{trained[0] / 'data.npz'}", "--pool", "gem:p=learn@3x32"]
    code, out, err = call(*words, "--out", str(tmp_path / "r"))
    assert (code, out) == (2, "") and "pooling layer 2" in err and "64×5×5" in err and "32 channels" in err
    assert not (tmp_path / "r").exists()


def test_ctrl_c_keeps_the_finished_epochs_and_says_how_to_go_on(tmp_path):
    pytest.importorskip("torch")
    code = "import sys; from poolkit.cli import main; sys.exit(main(sys.argv[1:]))"
    words = ["train", "--data", "digits", "--epochs", "500", "--limit", "64", "--out", str(tmp_path / "a run")]
    env = {**os.environ, "PYTHONPATH": str(SRC), "OMP_NUM_THREADS": "1", "PYTHONIOENCODING": "utf-8"}
    with subprocess.Popen(
        [sys.executable, "-c", code, *words],
        env=env,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        encoding="utf-8",
        # A suite in the background has it ignored, and what it starts inherits that.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    ) as job:
        first = next(line for line in job.stderr if not line.startswith("poolkit: preparing"))
        job.send_signal(signal.SIGINT)
        rest = job.stderr.read()
    assert first.startswith("epoch   1/500"), first + rest
    assert job.returncode == 130
    assert re.search(r"stopped. \d+ of 500 epochs are finished and safe", rest)
    assert rest.rstrip().endswith(f"continue: poolkit {' '.join(words[:-1])} '{words[-1]}' --resume")
    assert "Traceback" not in rest and list((tmp_path / "a run").glob("checkpoint-*.json"))


def test_an_interrupt_that_a_library_swallows_still_stops_the_training():
    pytest.importorskip("torch")
    from poolkit.lab.terminal import heeded
    from poolkit.lab.train import Watch

    watch, seen = Watch(), []
    watch.epoch = seen.append
    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # a suite in the background has it ignored
    try:
        with pytest.raises(KeyboardInterrupt), heeded(watch):
            watch.epoch({"epoch": 1})
            with contextlib.suppress(KeyboardInterrupt):  # the library
                signal.raise_signal(signal.SIGINT)
            watch.epoch({"epoch": 2})
        assert seen == [{"epoch": 1}, {"epoch": 2}]
        assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    finally:
        signal.signal(signal.SIGINT, before)


# --- check, doctor, bench ---------------------------------------------------------------------------------------------

MINE = '''
import math
from dataclasses import dataclass
from typing import ClassVar
from poolkit import Card, WindowMethod


@dataclass(frozen=True)
class Middle(WindowMethod):
    """The mean of the largest and the smallest cell."""

    card: ClassVar[Card] = Card("middle", "Middle", "y = (max x + min x)/2", "nobody", "test")

    def reduce(self, w, p):
        return (w.max(w.x) + w.min(w.x)) / 2

    def oracle(self, w, p):
        return (max(w.x) + min(w.x)) / {divisor}
'''


@pytest.fixture
def mine(tmp_path, monkeypatch):
    """Write a module with a method `Middle` into the current folder; a divisor other than 2 makes it a wrong one."""
    pytest.importorskip("torch")
    monkeypatch.chdir(tmp_path)
    written = []

    def write(divisor: int) -> str:
        name = f"mine_{time.monotonic_ns()}"
        (tmp_path / f"{name}.py").write_text(MINE.replace("{divisor}", str(divisor)), encoding="utf-8")
        written.append(name)
        return name

    yield write
    for name in written:
        sys.modules.pop(name, None)


def test_check_a_method_of_ones_own(call, mine):
    code, out, _ = call("check", f"{mine(2)}:Middle", "--only", "card", "--only", "oracle")
    assert code == 0
    assert "✓ oracle: " in out and out.rstrip().endswith("2 of 2 contracts hold")


def test_check_shows_the_smallest_failing_input(call, mine):
    name = mine(3)
    code, out, _ = call("check", f"{name}:Middle", "--only", "card", "--only", "oracle")
    assert code == 1
    assert "✗ oracle: " in out and "picture 1, kernel_size=1" in out and "1 of 2 contracts hold" in out
    code, out, _ = call("check", f"{name}:Middle", "--only", "oracle", "--json")
    (result,) = json.loads(out)
    assert code == 1 and result["contract"] == "oracle" and not result["passed"] and result["detail"]


def test_check_names_the_class_that_was_meant(call, mine):
    code, _, err = call("check", f"{mine(2)}:Midle")
    assert code == 2 and "Middle" in err


def test_a_module_that_fails_when_imported_is_told_from_one_that_is_not_there(call, mine, tmp_path):
    (tmp_path / "mine_broken.py").write_text("import no_such_thing_at_all", encoding="utf-8")
    code, _, err = call("check", "mine_broken:Middle")
    assert code == 1 and "importing" in err and "no_such_thing_at_all" in err


def test_check_one_spelling_and_all(call):
    pytest.importorskip("torch")
    code, out, _ = call("check", "soft:beta=2", "--only", "card", "--json")
    assert code == 0 and [r["method"] for r in json.loads(out)] == ["soft:beta=2"]
    code, out, _ = call("check", "all", "--only", "card", "--json")
    assert code == 0 and [r["method"] for r in json.loads(out)] == list(poolkit.METHODS)
    assert call("check", "soft", "--only", "crad")[0] == 2


def test_doctor_says_what_is_here(call, alone):
    pytest.importorskip("torch")
    code, out, _ = call("doctor")
    assert code == 0
    assert poolkit.__version__ in out and "not needed" in out and "cpu" in out
    code, out, _ = call("doctor", "--json")
    found = json.loads(out)
    assert code == 0 and "cpu" in found["torch"]["devices"]
    assert sorted(sum(found["paths"].values(), [])) == sorted(poolkit.WINDOW_METHODS)
    if not found["missing"]:
        assert found["data"]["cifar10"].startswith("not here") and "digits" in found["data"]


def test_doctor_names_what_is_missing_and_how_to_get_it(monkeypatch):
    from poolkit import doctor

    monkeypatch.setattr(doctor, "_version", lambda name: None if name in doctor.LAB else "1.0")
    said = dict(doctor.lines(doctor.examine()))
    assert "torch" in said["missing"] and doctor.INSTALL in said["missing"]


def test_bench_memory(call):
    words = ["bench", "memory", "--method", "netvlad:clusters=4", "--shape", "2x8x8x8"]
    code, out, _ = call(*words)
    assert code == 0 and re.search(r"netvlad:clusters=4 +[\d.]+ +[\d.]+ +[\d.]+ +[\d.]+", out)
    code, out, _ = call(*words, "--json")
    (row,) = json.loads(out)["rows"]
    assert code == 0 and 0 < row["largest"] <= row["peak"]


def test_bench_training(call, trained):
    words = ["bench", "training", "--data", f"npz:{trained[0] / 'data.npz'}", "--steps", "1", "--rounds", "6"]
    code, out, err = call(*words)
    assert code == 0
    assert len(re.findall(r"poolkit trains [\d.]+ times as fast .*interval", out)) == 2
    assert "channels-last" in out and "torch" in out and "rounds" in err
    code, out, _ = call(*words, "--json")
    found = json.loads(out)
    assert code == 0 and found["interval"][0] <= found["ratio"] <= found["interval"][1]


RESIDENT = """
import ctypes, sys
from poolkit.lab import terminal
def pages():
    return int(open("/proc/self/statm").read().split()[1])
if sys.argv[1] == "keep":
    terminal.keep_memory()
libc = ctypes.CDLL(None)
libc.malloc.restype, libc.free.argtypes = ctypes.c_void_p, [ctypes.c_void_p]
block = libc.malloc(ctypes.c_size_t(100_000_000))
ctypes.memset(block, 1, 100_000_000)
held = pages()
libc.free(block)
print((held - pages()) * 4096)
"""


@pytest.mark.skipif("glibc" not in platform.libc_ver()[0], reason="needs glibc")
def test_a_large_block_that_is_freed_stays_with_the_process_only_if_asked_for():
    pytest.importorskip("torch")
    returned, kept = (int(python(RESIDENT, word).stdout) for word in ("leave", "keep"))
    assert kept < 10_000_000 < 90_000_000 < returned


def test_training_and_the_benchmark_keep_memory_and_importing_does_not(call, trained, tmp_path, monkeypatch):
    calls = []
    monkeypatch.setattr("poolkit.lab.terminal.keep_memory", lambda: calls.append(0))
    data = f"npz:{trained[0] / 'data.npz'}"
    call("train", "--data", data, "--epochs", "1", "--out", str(tmp_path / "r"))
    call("bench", "training", "--data", data, "--steps", "1", "--rounds", "6")
    call("report", str(tmp_path / "r"))
    assert len(calls) == 2


def test_keeping_memory_does_nothing_where_there_is_no_glibc(monkeypatch):
    terminal = pytest.importorskip("poolkit.lab.terminal")
    monkeypatch.setattr(platform, "libc_ver", lambda: ("", ""))
    monkeypatch.setattr("ctypes.CDLL", lambda name: pytest.fail("asked for a C library"))
    terminal.keep_memory()
