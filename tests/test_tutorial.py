"""The tutorial as its readers meet it: two scripts, a notebook and a page, run on the embedded digits."""

from __future__ import annotations

import json
import os
import re
import runpy
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

from conftest import PATIENCE
from poolkit.lab import data

ROOT = Path(__file__).parents[1]
EXAMPLES = ROOT / "examples"
NOTEBOOK = EXAMPLES / "tutorial.ipynb"
SHORT = ["--data", "digits", "--epochs", "2", "--pool", "avg-topk:k=2"]


def _in_a_process(command: list[str], **variables: str) -> subprocess.CompletedProcess[str]:
    paths = os.pathsep.join(p for p in (str(ROOT / "src"), os.environ.get("PYTHONPATH", "")) if p)
    environment = {**os.environ, "KERAS_BACKEND": "torch", "PYTHONPATH": paths, **variables}
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=PATIENCE, check=False)


def _told(text: str, out: Path, summary: str) -> None:
    """The whole story is there: sizes, a net that has learned something, a line per class, three pictures."""
    assert summary in text
    accuracy = float(re.search(r"avg-topk:k=2: test loss .*, test accuracy ([\d.]+)%", text)[1])
    assert accuracy > 60, "two epochs on the digits give about 85 %; ten classes by chance 10 %"
    assert all(re.search(rf"^ +{digit} +[01]\.\d\d +[01]\.\d\d ", text, re.M) for digit in range(10))
    for name in ("samples", "curves", "predictions"):
        with Image.open(out / f"{name}.png") as picture:
            assert picture.width >= 600


def test_the_pytorch_script_tells_the_whole_story(tmp_path, monkeypatch, capsys, one_thread):
    monkeypatch.setattr(sys, "argv", ["tutorial_torch.py", *SHORT, "--out", str(tmp_path)])
    runpy.run_path(str(EXAMPLES / "tutorial_torch.py"), run_name="__main__")
    _told(capsys.readouterr().out, tmp_path, "Pool2d avg-topk, 2×2")


def test_the_keras_script_tells_the_whole_story(tmp_path):
    done = _in_a_process([sys.executable, str(EXAMPLES / "tutorial_keras.py"), *SHORT, "--out", str(tmp_path)])
    assert done.returncode == 0, done.stderr
    _told(done.stdout, tmp_path, "Pooling2D")


def test_without_cifar10_the_script_says_what_to_do(tmp_path, monkeypatch):
    def missing(name):
        raise data.DataMissing(f"no {name}")

    monkeypatch.setattr(data, "load", missing)
    monkeypatch.setattr(sys, "argv", ["tutorial_torch.py", "--out", str(tmp_path)])
    with pytest.raises(SystemExit, match="no cifar10\n.*--data digits"):
        runpy.run_path(str(EXAMPLES / "tutorial_torch.py"), run_name="__main__")


def test_the_notebook_runs_from_a_clean_kernel(tmp_path):
    pytest.importorskip("ipykernel")
    copy = tmp_path / NOTEBOOK.name
    copy.write_bytes(NOTEBOOK.read_bytes())
    run = "from nbclient.cli import main; main()"
    settings = {"TUTORIAL_DATA": "digits", "TUTORIAL_EPOCHS": "1", "IPYTHONDIR": str(tmp_path / "ipython")}
    done = _in_a_process([sys.executable, "-c", run, "--inplace", str(copy)], **settings)
    assert done.returncode == 0, done.stderr[-3000:]
    assert "largest difference of the scores" in _printed(json.loads(copy.read_text(encoding="utf-8")))


def test_the_stored_notebook_is_one_real_run_without_a_fault():
    stored = json.loads(NOTEBOOK.read_text(encoding="utf-8"))
    code = [cell for cell in stored["cells"] if cell["cell_type"] == "code"]
    assert [cell["execution_count"] for cell in code] == list(range(1, len(code) + 1)), "run it from a clean kernel"
    kinds = [output["output_type"] for cell in code for output in cell["outputs"]]
    assert "error" not in kinds and kinds.count("display_data") >= 4
    text = _printed(stored)
    assert "(50000, 32, 32, 3)" in text and "airplane" in text and "10 epochs" in text and "same answer" in text
    assert not re.search(r"/(home|work|tmp|root|Users)/", NOTEBOOK.read_text(encoding="utf-8")), "a path of a machine"
    assert NOTEBOOK.stat().st_size < 1_000_000


def _printed(notebook: dict) -> str:
    outputs = [output for cell in notebook["cells"] for output in cell.get("outputs", ())]
    return "".join("".join(output.get("text", "")) for output in outputs)


def test_the_page_shows_what_the_code_computes_now():
    done = _in_a_process([sys.executable, str(ROOT / "docs" / "tools" / "convolution.py"), "--check"])
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_pictures_of_the_page_are_those_that_are_drawn():
    page = (ROOT / "docs" / "from-convolution-to-pooling.md").read_text(encoding="utf-8")
    shown = set(re.findall(r"\]\(convolution/([\w-]+\.svg)\)", page))
    assert shown == {path.name for path in (ROOT / "docs" / "convolution").iterdir()}
