"""timm and torchvision, which poolkit does without: whether they are here, whether they can be imported, what to do."""

from __future__ import annotations

import signal
import subprocess
import sys
from typing import Any

#: What each is for. timm imports torchvision, so that this comes first.
USES = {"torchvision": "timm, which imports it", "timm": "poolkit train --net timm:NAME"}
PATIENCE = 60.0  # seconds for an import, which reads a thousand files, perhaps from a slow disk

# The modules are those that this process would find: -c by itself would look in the current folder first.
_IMPORT = """
import sys
sys.path[:] = sys.argv[2:]
try:
    __import__(sys.argv[1])
except BaseException as error:
    print("\\ncannot:", f"{type(error).__name__}: {error}".split("\\n")[0], file=sys.stderr)
    sys.exit(1)
"""


def state(versions: dict[str, str | None], torch: str | None) -> dict[str, dict[str, Any]]:
    """What there is of each of `USES`: `version`, whether it `works`, else why not, `error`, and what to do, `advice`.

    Each is imported by a process of its own: what crashes there crashes nothing here, and what it loads is gone after.
    Arguments: `versions` of those that are installed, else None; `torch`, its version, or None.
    """
    found: dict[str, dict[str, Any]] = {}
    for name in USES:
        if (version := versions[name]) is None:
            found[name] = {"version": None, "works": False, "error": None, "advice": f"pip install {name}"}
            continue
        error = failure(name)
        found[name] = {"version": version, "works": error is None, "error": error, "advice": None}
        if error is not None:
            sound = found.get("torchvision", {}).get("works", False)
            found[name]["advice"] = f"pip install --upgrade {name}" if sound else for_torch(torch)
    return found


def sentence(name: str, found: dict[str, Any]) -> str:
    """An entry of `state` in one line."""
    if found["version"] is None:
        return f"not installed; for {USES[name]}: {found['advice']}"
    if found["works"]:
        return f"{found['version']}, works"
    return f"{found['version']}, {unusable(found['error'])}; {found['advice']}"


def unusable(error: object) -> str:
    """What is said of a library that is installed and does not work."""
    return f"installed but cannot be imported: {error}"


def for_torch(version: str | None) -> str:
    """What helps where a torchvision is why: its operators belong to one version and kind of torch."""
    if version is None:
        return 'torchvision and timm need torch: pip install "poolkit[lab]"'
    return f"where torchvision is why: install the one that is built for torch {version}, from the same package index"


def failure(name: str, patience: float = PATIENCE) -> str | None:
    """Why a module cannot be imported, in one line; None where it can. It is imported by a process of its own."""
    words = [sys.executable, "-c", _IMPORT, name, *sys.path]
    pipes: dict[str, Any] = {"stdin": subprocess.DEVNULL, "stdout": subprocess.DEVNULL, "stderr": subprocess.PIPE}
    try:
        done = subprocess.run(words, timeout=patience, **pipes)  # noqa: S603 - this very Python, with a program of ours
    except subprocess.TimeoutExpired:
        return f"importing it took more than {patience:g} seconds"
    except OSError as error:
        return f"no process could be begun to import it: {error.strerror}"
    if done.returncode == 0:
        return None
    said = done.stderr.decode(errors="replace").splitlines()
    told = [line.removeprefix("cannot: ") for line in said if line.startswith("cannot: ")]
    return told[-1] if told else _ended(done.returncode)


def _ended(code: int) -> str:
    """What is said of a process that ended without a word."""
    if code >= 0:
        return f"importing it ended the process with code {code}"
    known = {int(one): one.name for one in signal.Signals}
    return f"importing it ended the process by signal {known.get(-code, -code)}"
