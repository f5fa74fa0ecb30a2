"""The hand-written pages say what is true now: their examples run and print what the pages say."""

from __future__ import annotations

import doctest
import re
from pathlib import Path

import pytest

DOCS = Path(__file__).parents[1] / "docs"
PAGES = sorted(p for p in DOCS.glob("*.md") if ">>>" in p.read_text(encoding="utf-8"))
_BLOCKS = re.compile(r"^```pycon\n(.*?)^```", re.M | re.S)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_the_examples_of_a_page_print_what_it_says(page, monkeypatch):
    monkeypatch.syspath_prepend(DOCS)
    text = page.read_text(encoding="utf-8")
    # Lines outside the blocks become empty ones, so that a failure names the page's own line.
    code = ["" for _ in text.splitlines()]
    for block in _BLOCKS.finditer(text):
        first = text.count("\n", 0, block.start(1))
        code[first : first + block[1].count("\n")] = block[1].splitlines()
    test = doctest.DocTestParser().get_doctest(
        "\n".join(code) + "\n", {"__name__": "__main__"}, page.name, str(page), 0
    )
    report: list[str] = []
    runner = doctest.DocTestRunner(optionflags=doctest.NORMALIZE_WHITESPACE | doctest.ELLIPSIS)
    failed, tried = runner.run(test, out=report.append)
    assert tried
    assert not failed, "".join(report)
