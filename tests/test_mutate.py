"""The mutator makes mutants: each one change, each a program, none the original; and the stored result says so."""

from __future__ import annotations

import ast
import json

import pytest

import mutate


@pytest.mark.parametrize("name", mutate.TARGETS)
def test_every_mutant_is_another_program(name: str) -> None:
    file, _ = mutate.TARGETS[name]
    source = ast.unparse(ast.parse((mutate.ROOT / "src/poolkit" / file).read_text(encoding="utf-8")))
    made = mutate.mutants(file)
    assert made and len({one.source for one in made}) > 0.9 * len(made)
    for one in made:
        assert one.source != source and one.before != one.after
        compile(one.source, file, "exec")


def test_both_ways_of_every_comparison_and_sum_are_tried() -> None:
    tree = ast.parse("def f(a, b):\n    return max(a, -b) + 1 if a < b and not b else 0.5")
    changed = {ast.unparse(other) for *_, node in mutate._places(tree) for other in mutate._changed(node)}
    assert {"a <= b", "min", "b", "a < b or not b", "2", "1.5", "max(a, -b) - 1"} <= changed


def test_the_stored_result_counts_what_it_lists() -> None:
    stored = json.loads(mutate.RESULT.read_text(encoding="utf-8"))
    results = [m["result"] for f in stored["files"].values() for m in f["mutants"].values()]
    assert set(stored["files"]) == set(mutate.TARGETS)
    assert all(f["sampled"] == len(f["mutants"]) for f in stored["files"].values())
    counts = {word: results.count(word) for word in mutate.WORDS}
    assert counts == {word: stored[word] for word in mutate.WORDS} and len(results) == stored["tried"]
    caught = counts["failed"] + counts["timeout"]
    share = caught / (len(results) - counts["equivalent"])
    assert stored["share"] == pytest.approx(share, abs=1e-4)
    assert share >= 0.9
    assert all(
        m.get("reason") for f in stored["files"].values() for m in f["mutants"].values() if m["result"] == "equivalent"
    )
