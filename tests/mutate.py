"""Small faults on purpose: how many of them do the tests see?

    make mutants                 # all targets
    python tests/mutate.py --sample 20 soft

Each mutant is one changed operator, comparison, number or word in a copy of `src`; the tests named in TARGETS run
against it until the first one fails. A mutant that no test notices has survived. Those that compute the same as the
original are in `mutants.toml`, each with its reason. Results go to `results/mutation.json` after each mutant; a mutant
that stands there already is not run again. pytest and the heavy libraries are imported once, each mutant is a fork.
"""

from __future__ import annotations

import argparse
import ast
import copy
import datetime
import hashlib
import json
import multiprocessing
import os
import platform
import random
import shutil
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

try:
    import tomllib
except ImportError:  # Python 3.10; pytest brings it there
    import tomli as tomllib  # type: ignore[no-redef]

ROOT = Path(__file__).resolve().parent.parent
RESULT = ROOT / "results" / "mutation.json"
LIMIT = 240  # seconds for one mutant's tests; a mutant that makes them endless is caught
#: Contracts that judge, the quick ones first.
JUDGES = (
    "oracle numpy facts nan infinity precision gradient ties finite state identities seeds distribution batch".split()
)


def _judged_by(name: str, *others: str) -> list[str]:
    by_contract = [f"tests/test_methods.py::test_contract[{name}-{contract}]" for contract in JUDGES]
    return [*by_contract, *others, f"tests/test_generated.py::test_two_hundred_generated_cases[{name}]"]


METHODS = "tests/test_methods.py::test_"
#: What is mutated, and the tests that judge it, in this order.
TARGETS: dict[str, tuple[str, list[str]]] = {
    "window": (
        "window.py",
        [
            "tests/test_window.py",
            *_judged_by("avg", METHODS + "avg_is_torch_avg_pool", METHODS + "contract[max-sizes]"),
        ],
    ),
    "soft": (
        "methods/soft.py",
        _judged_by(
            "soft",
            METHODS + "soft_has_the_exact_gradient",
            METHODS + "soft_detached_has_the_weights_as_gradient_and_the_same_output",
        ),
    ),
    "avg_topk": ("methods/avg_topk.py", _judged_by("avg-topk")),
    "ordinal": ("methods/ordinal.py", _judged_by("ordinal", "tests/test_tables.py")),
    "stochastic": (
        "methods/stochastic.py",
        _judged_by(
            "stochastic",
            METHODS + "stochastic_by_hand",
            METHODS + "stochastic_gives_zero_for_a_dead_window",
            METHODS + "stochastic_stays_where_the_square_would_not",
        ),
    ),
    "lp": (
        "methods/lp.py",
        _judged_by("lp", METHODS + "lp_by_hand", METHODS + "a_large_power_neither_overflows_nor_underflows"),
    ),
}

SWAPS: dict[type, type] = {
    ast.Lt: ast.LtE,
    ast.LtE: ast.Lt,
    ast.Gt: ast.GtE,
    ast.GtE: ast.Gt,
    ast.Eq: ast.NotEq,
    ast.NotEq: ast.Eq,
    ast.Is: ast.IsNot,
    ast.IsNot: ast.Is,
    ast.In: ast.NotIn,
    ast.NotIn: ast.In,
    ast.Add: ast.Sub,
    ast.Sub: ast.Add,
    ast.Mult: ast.Div,
    ast.Div: ast.Mult,
    ast.FloorDiv: ast.Mult,
    ast.Mod: ast.FloorDiv,
    ast.Pow: ast.Mult,
    ast.BitAnd: ast.BitOr,
    ast.BitOr: ast.BitAnd,
    ast.And: ast.Or,
    ast.Or: ast.And,
}
NAMES = {"max": "min", "min": "max", "any": "all", "all": "any", "largest": "smallest", "smallest": "largest"}


@dataclass(frozen=True)
class Mutant:
    """One changed place of a file."""

    file: str
    line: int
    before: str
    after: str
    source: str

    @property
    def key(self) -> str:
        return hashlib.sha256(self.source.encode()).hexdigest()[:16]


def _changed(node: ast.AST) -> Iterator[ast.AST]:
    """What may stand in a node's place."""
    if isinstance(node, ast.Compare):
        for i, op in enumerate(node.ops):
            other = copy.deepcopy(node)
            other.ops[i] = SWAPS[type(op)]()
            yield other
    elif isinstance(node, (ast.BinOp, ast.AugAssign, ast.BoolOp)) and type(node.op) in SWAPS:
        other = copy.deepcopy(node)
        other.op = SWAPS[type(node.op)]()
        yield other
    elif isinstance(node, ast.UnaryOp) and isinstance(node.op, (ast.Not, ast.USub)):
        yield copy.deepcopy(node.operand)
    elif isinstance(node, ast.Constant) and isinstance(node.value, bool):
        yield ast.Constant(not node.value)
    elif isinstance(node, ast.Constant) and type(node.value) in (int, float):
        yield ast.Constant(node.value + 1)
    elif isinstance(node, ast.IfExp):
        yield copy.deepcopy(node.body)
        yield copy.deepcopy(node.orelse)
    elif isinstance(node, ast.Name) and node.id in NAMES:
        yield ast.Name(NAMES[node.id], node.ctx)
    elif isinstance(node, ast.Attribute) and node.attr in NAMES:
        other = copy.deepcopy(node)
        other.attr = NAMES[node.attr]
        yield other


def _skipped(parent: ast.AST, field: str, child: ast.AST) -> bool:
    """Words for people, types, and how a class is declared are other tests' matter."""
    if isinstance(child, ast.Raise) or field in ("annotation", "returns", "decorator_list"):
        return True
    if isinstance(child, ast.Call) and isinstance(child.func, ast.Name) and child.func.id in ("Card", "param"):
        return True
    if isinstance(child, (ast.JoinedStr, ast.Import, ast.ImportFrom)):
        return True
    return field == "value" and isinstance(parent, ast.Expr)


def _places(node: ast.AST) -> Iterator[tuple[ast.AST, str, int | None, ast.AST]]:
    """Every place that may be changed: parent, field, position in it, node."""
    for field, value in ast.iter_fields(node):
        for position, child in enumerate(value) if isinstance(value, list) else [(None, value)]:
            if isinstance(child, ast.AST) and not _skipped(node, field, child):
                yield node, field, position, child
                yield from _places(child)


def _put(parent: ast.AST, field: str, position: int | None, node: ast.AST) -> None:
    if position is None:
        setattr(parent, field, node)
    else:
        getattr(parent, field)[position] = node


def mutants(file: str) -> list[Mutant]:
    """Every mutant of a file, in its order."""
    tree = ast.parse((ROOT / "src/poolkit" / file).read_text())
    found = []
    for parent, field, position, node in list(_places(tree)):
        for other in _changed(node):
            _put(parent, field, position, ast.copy_location(other, node))
            ast.fix_missing_locations(tree)
            whole = parent if isinstance(parent, ast.expr) and not isinstance(parent, ast.Lambda) else other
            after = ast.unparse(whole)
            source = ast.unparse(tree)
            _put(parent, field, position, node)
            before = ast.unparse(parent if whole is parent else node)
            found.append(Mutant(file, node.lineno, before, after, source))
    return found


def _judge(folder: str, arguments: list[str], log: str) -> None:
    """In a child process: run the tests of the copy in `folder` against its `src`; the exit status is pytest's."""
    descriptor = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    os.dup2(descriptor, 1)
    os.dup2(descriptor, 2)
    os.environ["PYTHONPATH"] = f"{folder}/src"
    os.chdir(folder)
    sys.path.insert(0, f"{folder}/src")
    import pytest

    # What the parent has imported already is not rewritten for pytest's messages; nobody reads them.
    options = [
        "-W",
        "ignore::pytest.PytestAssertRewriteWarning",
        "-x",
        "-q",
        "-p",
        "no:cacheprovider",
        "-p",
        "no:xdist",
        "--tb=line",
    ]
    os._exit(int(pytest.main([*options, *arguments])))


def run(folder: Path, arguments: list[str], log: Path) -> str:
    """`passed`, `failed`, `timeout`, or `broken` where pytest itself could not run."""
    child = multiprocessing.get_context("fork").Process(target=_judge, args=(str(folder), arguments, str(log)))
    child.start()
    child.join(LIMIT)
    if child.is_alive():
        child.kill()
        child.join()
        return "timeout"
    # A mutant that cannot even be imported ends the collection: that is seen too.
    return {0: "passed", 1: "failed", 2: "failed", 4: "failed"}.get(child.exitcode or 0, "failed")


def _write(record: dict[str, Any]) -> None:
    files = record["files"].values()
    tried = sum(len(f["mutants"]) for f in files)
    counts = {word: sum(m["result"] == word for f in files for m in f["mutants"].values()) for word in WORDS}
    real = tried - counts["equivalent"]
    record |= {"tried": tried, **counts, "share": round((real - counts["survived"]) / max(1, real), 4)}
    part = RESULT.with_suffix(".part")
    part.write_text(json.dumps(record, indent=1, ensure_ascii=False) + "\n")
    part.replace(RESULT)


WORDS = ("failed", "timeout", "survived", "equivalent")


def _equivalent(one: Mutant, known: list[dict[str, Any]]) -> str | None:
    for row in known:
        if (row["file"], row["before"], row["after"]) == (one.file, one.before, one.after):
            return str(row["reason"])
    return None


def main() -> int:
    """Run the mutants that were asked for, and say what survived."""
    ask = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    ask.add_argument("targets", nargs="*", help=f"of {', '.join(TARGETS)}; default: all")
    ask.add_argument("--sample", type=int, default=10**6, help="at most so many mutants of a file")
    ask.add_argument("--seed", type=int, default=0, help="of the sample")
    ask.add_argument("--again", action="store_true", help="run survivors again")
    ask.add_argument(
        "--work", type=Path, default=ROOT / "build" / "mutants", help="folder for the copy and the kernels"
    )
    asked = ask.parse_args()
    known = tomllib.loads((ROOT / "tests/mutants.toml").read_text()).get("equivalent", [])
    record = json.loads(RESULT.read_text()) if RESULT.exists() else {"files": {}}
    record |= {
        "command": f"python tests/mutate.py --sample {asked.sample} --seed {asked.seed}",
        "date": datetime.date.today().isoformat(),
        "machine": f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}",
    }
    os.environ |= {"NUMBA_CACHE_DIR": str(asked.work / "kernels"), "OMP_NUM_THREADS": "1"}
    for name in asked.targets or TARGETS:
        _target(name, asked, known, record)
    survived = [m for f in record["files"].values() for m in f["mutants"].values() if m["result"] == "survived"]
    for m in survived:
        print(f"survived: {m['file']}:{m['line']}: {m['before']}  →  {m['after']}")
    same, share = record["equivalent"], record["share"]
    print(f"{record['tried']} mutants, {same} of them equivalent; caught {share:.1%} of the others")
    return 0 if share >= 0.9 else 1


def _target(name: str, asked: Any, known: list[dict[str, Any]], record: dict[str, Any]) -> None:
    file, arguments = TARGETS[name]
    folder, log = asked.work / "copy", asked.work / "log.txt"
    shutil.rmtree(folder, ignore_errors=True)
    for part in ("src", "tests"):
        shutil.copytree(ROOT / part, folder / part, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "pyproject.toml", folder)
    if run(folder, arguments, log) != "passed":
        raise SystemExit(f"the tests fail without any mutant: {log}")
    every = mutants(file)
    before = record["files"].get(name, {}).get("mutants", {})
    order = random.Random(asked.seed).sample(every, len(every))
    # A larger sample goes on where a smaller one ended; what is known already stays.
    chosen = [one for number, one in enumerate(order) if number < asked.sample or one.key in before]
    done: dict[str, Any] = {}
    record["files"][name] = {"file": file, "places": len(every), "sampled": len(chosen), "mutants": done}
    for one in sorted(chosen, key=lambda m: m.line):
        row = before.get(one.key)
        reason = _equivalent(one, known)
        if reason:
            result = "equivalent"
        elif row and not (asked.again and row["result"] == "survived") and row["result"] != "equivalent":
            result = row["result"]
        else:
            (folder / "src/poolkit" / file).write_text(one.source)
            result = run(folder, arguments, log)
            result = "survived" if result == "passed" else result
            print(f"{name} line {one.line}: {result}: {one.before}  →  {one.after}", flush=True)
        done[one.key] = {"file": one.file, "line": one.line, "before": one.before, "after": one.after, "result": result}
        if reason:
            done[one.key]["reason"] = reason
        _write(record)


if __name__ == "__main__":
    # Known to the parent, so that a child need not import them; none of them is part of what is mutated.
    import hypothesis  # noqa: F401
    import numba  # noqa: F401
    import pytest  # noqa: F401
    import torch  # noqa: F401

    sys.exit(main())
