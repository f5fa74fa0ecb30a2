"""The README tells what is true now."""

from pathlib import Path

import poolkit
from poolkit import cards

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")


def test_the_table_of_methods_is_the_generated_one():
    table = README.partition("tested -->")[2].partition("<!-- end of methods")[0].strip()
    assert table == cards.markdown(poolkit.METHODS.values()), "run: poolkit list --markdown"


def test_the_python_example_runs_as_printed(capsys):
    code = README.partition("```python")[2].partition("```")[0]
    exec(compile(code, "README.md", "exec"), {})  # noqa: S102 - our own page, in a test
    assert "path:" in capsys.readouterr().out


def test_the_changelog_and_citation_name_this_version():
    for name in ("CHANGELOG.md", "CITATION.cff"):
        assert poolkit.__version__ in (ROOT / name).read_text(encoding="utf-8")


def test_every_named_file_exists():
    for name in ("CONTRIBUTING.md", "CHANGELOG.md", "CITATION.cff", "LICENSE", "requirements.lock", "docs/pooling.png"):
        assert (ROOT / name).exists()
