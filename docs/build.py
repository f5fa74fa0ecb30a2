"""Build the site: `python docs/build.py [SITE]`, or `make docs`.

The hand-written pages are copied to build/docs, the generated ones are written beside them, and Sphinx makes the site
of both; the explorer lies beside it as one file. Warnings are errors; so is a page that would ask for anything over the
network.
"""

from __future__ import annotations

import os
import re
import shutil
import sys
from pathlib import Path

from sphinx.cmd.build import build_main

os.environ.setdefault("KERAS_BACKEND", "torch")  # read when Keras is imported; TensorFlow need not be here

from poolkit.explore import export  # noqa: E402
from tools import commands, methods, pages  # noqa: E402

HERE = Path(__file__).parent
ROOT = HERE.parent
STAGE = ROOT / "build" / "docs"
# In the index, what stands for the pages of docs/ that it does not name.
OTHERS = "OTHER PAGES"
# What a browser loads by itself when it shows a page; links that a reader may follow are no requests.
_LOADS = re.compile(
    r'<(?:script|img|iframe|source)\b[^>]*\bsrc="(?:https?:)?//[^"]*"|<link\b[^>]*"(?:https?:)?//[^"]*"'
)
_STYLES = re.compile(r"(?:@import\s+|url\(\s*)[\"']?(?:https?:)?//[^\"')]*")


def main(site: Path) -> int:
    """Write the site to the folder `site`; 0 if every page is as it must be."""
    stage()
    code = build_main(["-b", "html", "-W", "--keep-going", "-n", "-q", "-j", "2", str(STAGE), str(site)])
    if code:
        return code
    (site / "explorer.html").write_text(export.one_file(), encoding="utf-8")
    if requests := list(asked_for(site)):
        print("these pages load something over the network:", *requests, sep="\n  ", file=sys.stderr)
        return 1
    print(f"{site}/index.html")
    return 0


def stage() -> None:
    """Lay out what Sphinx reads: docs/ as it is, and the pages that are made of the code."""
    shutil.rmtree(STAGE, ignore_errors=True)
    shutil.copytree(HERE, STAGE, ignore=shutil.ignore_patterns("__pycache__", "build.py", "tools"))
    written = {**methods.pages(), **commands.pages(), **pages.pages()}
    for name, text in written.items():
        path = STAGE / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    index = STAGE / "index.md"
    text = index.read_text(encoding="utf-8")
    others = sorted(p.stem for p in HERE.glob("*.md") if p.stem != "index" and f"\n{p.stem}\n" not in text)
    index.write_text(text.replace(OTHERS, "\n".join(others)), encoding="utf-8")


def asked_for(site: Path) -> list[str]:
    """What the pages and style sheets of a site would load from elsewhere."""
    found = []
    for pattern, kind in ((_LOADS, "*.html"), (_STYLES, "*.css")):
        for path in sorted(site.rglob(kind)):
            found += [f"{path}: {hit}" for hit in pattern.findall(path.read_text(encoding="utf-8"))]
    return found


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1] if len(sys.argv) > 1 else ROOT / "site").resolve()))
