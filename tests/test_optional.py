"""What poolkit does without: whether it is here and works is found out by a process of its own, whatever that does."""

import json
import sys

import pytest

from poolkit import doctor, optional

BUILT_FOR_ANOTHER = 'raise RuntimeError("operator torchvision::nms does not exist\\nand more lines")'
SOUND = "x = 1"


@pytest.fixture
def lay(tmp_path, monkeypatch):
    """Lays a module where imports are looked for, with a version as installed ones have; its code may be anything."""
    monkeypatch.syspath_prepend(str(tmp_path))

    def put(name, code, version="9.9"):
        (tmp_path / f"{name}.py").write_text(code, encoding="utf-8")
        record = tmp_path / f"{name}-{version}.dist-info"
        record.mkdir()
        (record / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n", encoding="utf-8")

    return put


def said(torch="2.13.0+cpu"):
    """The sentences of both, as `poolkit doctor` would say them."""
    versions = {name: doctor._version(name) for name in optional.USES}
    return {name: optional.sentence(name, one) for name, one in optional.state(versions, torch).items()}


def test_a_torchvision_of_another_torch_is_why_and_what_helps_is_said(lay):
    lay("torchvision", BUILT_FOR_ANOTHER)
    lay("timm", "import torchvision")
    for text in said().values():
        assert text.startswith("9.9, installed but cannot be imported: RuntimeError: operator torchvision::nms does")
        assert "built for torch 2.13.0+cpu, from the same package index" in text and "\n" not in text
        assert "more lines" not in text
    assert all("need torch" in text for text in said(torch=None).values())


def test_what_works_is_called_so_and_this_process_stays_as_it_was(lay):
    lay("torchvision", 'import sys; print("noise"); print("cannot: tell", file=sys.stderr)')
    lay("timm", "raise ImportError('no huggingface_hub')")
    before = set(sys.modules)
    text = said()
    assert text["torchvision"] == "9.9, works"
    assert "no huggingface_hub; pip install --upgrade timm" in text["timm"]  # torchvision is sound, so it is not why
    assert not {"torchvision", "timm"} & (set(sys.modules) - before)


def test_what_is_not_installed_is_said_with_what_it_is_for(monkeypatch):
    monkeypatch.setattr(optional, "failure", lambda name: pytest.fail("nothing is there to import"))
    found = optional.state(dict.fromkeys(optional.USES), "2")
    assert optional.sentence("timm", found["timm"]) == (
        "not installed; for poolkit train --net timm:NAME: pip install timm"
    )
    assert "timm" in optional.sentence("torchvision", found["torchvision"])


@pytest.mark.parametrize(
    ("code", "words"),
    [
        ("import os, signal; os.kill(os.getpid(), signal.SIGKILL)", "signal SIGKILL"),
        ("import os; os._exit(7)", "code 7"),
        ("raise SystemExit('no GPU, no import')", "SystemExit: no GPU"),
        ("raise KeyboardInterrupt", "KeyboardInterrupt"),
        ("this is no Python", "SyntaxError"),
    ],
)
def test_a_crash_of_what_is_imported_is_an_answer(lay, code, words):
    lay("torchvision", code)
    assert words in optional.failure("torchvision")


def test_an_import_without_end_is_left(lay):
    lay("torchvision", "import time; time.sleep(600)")
    assert optional.failure("torchvision", patience=0.5) == "importing it took more than 0.5 seconds"


def test_no_file_of_the_current_folder_is_imported(tmp_path, monkeypatch):
    (tmp_path / "torchvision_x.py").write_text("", encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [entry for entry in sys.path if entry])
    assert "ModuleNotFoundError" in optional.failure("torchvision_x")


def test_doctor_says_it_in_both_forms(lay):
    pytest.importorskip("torch")
    lay("torchvision", BUILT_FOR_ANOTHER)
    lay("timm", SOUND)
    found = json.loads(json.dumps(doctor.examine()))
    assert found["optional"]["timm"] == {"version": "9.9", "works": True, "error": None, "advice": None}
    assert (
        not found["optional"]["torchvision"]["works"]
        and found["versions"]["torch"] in (found["optional"]["torchvision"]["advice"])
    )
    lines = dict(doctor.lines(found))
    assert lines["timm"] == "9.9, works" and "torchvision::nms" in lines["torchvision"]


@pytest.mark.parametrize(
    ("code", "words"),
    [
        (BUILT_FOR_ANOTHER, ["timm is installed but cannot be imported: RuntimeError", "built for torch 2"]),
        ("import no_such_part", ["No module named 'no_such_part'", "poolkit doctor"]),
    ],
)
def test_a_net_of_timms_says_the_same(lay, monkeypatch, code, words):
    torch = pytest.importorskip("torch")
    from poolkit.lab import other_nets

    monkeypatch.delitem(sys.modules, "timm", raising=False)
    lay("timm", code)
    with pytest.raises(ValueError, match='net="timm:resnet18"') as refused:
        other_nets.make("timm:resnet18", (1, 16, 16), 10)
    assert all(part in str(refused.value) for part in words)
    assert optional.for_torch(torch.__version__) in str(refused.value)


def test_a_net_of_timms_without_timm_says_how_to_get_it(monkeypatch):
    pytest.importorskip("torch")
    from poolkit.lab import other_nets

    monkeypatch.setitem(sys.modules, "timm", None)
    with pytest.raises(ValueError, match="needs timm\n  pip install timm"):
        other_nets.make("timm:resnet18", (1, 16, 16), 10)
