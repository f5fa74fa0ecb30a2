"""The checklist is complete, and what it names is there."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

import checklist

HERE = Path(__file__).resolve().parent


def test_every_item_is_there_once_and_says_what_it_is_about() -> None:
    assert [item["id"] for item in checklist.items()] == list(range(1, 62))
    assert all(item["says"].endswith(".") for item in checklist.items())


@pytest.mark.parametrize("item", list(checklist.items()), ids=lambda item: str(item["id"]))
def test_an_item_is_tested_or_says_why_not(item: dict) -> None:
    pytest.importorskip("torch")
    from poolkit.check import CONTRACTS

    named = item.get("tests", []) + item.get("contracts", [])
    assert bool(named) != bool(item.get("reason")), "tests or a reason, not both"
    assert set(item.get("contracts", [])) <= {c.name for c in CONTRACTS}
    for test in item.get("tests", []):
        file, _, function = test.partition("::")
        tree = ast.parse((HERE / f"{file}.py").read_text(encoding="utf-8"))
        collected = [f.name for f in tree.body if isinstance(f, ast.FunctionDef) and f.name.startswith("test_")]
        assert collected.count(function) == 1, test


def test_the_page_is_what_the_checklist_says() -> None:
    assert checklist.PAGE.read_text(encoding="utf-8") == checklist.page(), "run python tests/checklist.py"
