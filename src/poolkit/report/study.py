"""Build the page of a study: one HTML file that needs nothing but itself.

All numbers about runs are those of `poolkit.lab.findings`, which the page also holds, whole; only what the methods do
to one picture is computed here. The same folder gives the same bytes.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from itertools import zip_longest
from pathlib import Path
from typing import Any, NamedTuple

import torch
from jinja2 import TemplateError
from markupsafe import Markup
from torch import Tensor

import poolkit
from poolkit.lab import findings as numbers
from poolkit.lab import summaries, verdicts
from poolkit.lab.corruptions import CORRUPTIONS
from poolkit.lab.durable import write_atomic
from poolkit.lab.record import RunError
from poolkit.lab.study import REQUEST, Study
from poolkit.own import names_own
from poolkit.report import charts, maps
from poolkit.report import study_views as views
from poolkit.report.build import ReportError, page_template, style
from poolkit.torch import Pool2d

PAGE = numbers.REPORT
#: Edges down, edges across, and what is brighter than its surroundings.
_FILTERS = (
    ((-1.0, -2.0, -1.0), (0.0, 0.0, 0.0), (1.0, 2.0, 1.0)),
    ((-1.0, 0.0, 1.0), (-2.0, 0.0, 2.0), (-1.0, 0.0, 1.0)),
    ((-1.0, -1.0, -1.0), (-1.0, 8.0, -1.0), (-1.0, -1.0, -1.0)),
)
_FILTER_NAMES = ("Brighter below", "Brighter on the right", "Brighter than its surroundings")


def build_study(folder: Path) -> Path:
    """Write `report.html`, with findings.json and the tables beside it, into a study's folder and return its path.

    Each file is replaced in one step. A study that is not complete gets the page of what is there, which says so.

    Raises `ReportError` if there is no study, a file is damaged or of another format, or runs are not there that the
    folder's findings count: then nothing is written.
    """
    with _refusals(folder):
        study = Study.load(folder)
        numbers.refuse_without_runs(study)
        found = numbers.findings(study)
    return write_study(study, found)


def write_study(study: Study, found: Mapping[str, Any]) -> Path:
    """Write the page of a study and its findings, which are known, and return its path; raises `ReportError`."""
    with _refusals(study.folder):
        page = render(study, found)
        numbers.save(study, found)
    write_atomic(study.folder / PAGE, page.encode("utf-8"))
    return study.folder / PAGE


class Verified(NamedTuple):
    """What `verify_study` found: `compared`, names of files, and `wrong`, lines that say where they differ."""

    compared: list[str]
    wrong: list[str]


def verify_study(folder: Path) -> Verified:
    """Compute a study's numbers and its page anew from the raw predictions, and compare; nothing is written.

    The page is compared where it is there: its bytes, then the findings in it.
    Raises `ReportError` as `build_study` does.
    """
    with _refusals(folder):
        study = Study.load(folder)
        found = numbers.recomputed(study)
        wrong, compared = numbers.verify(study, found), sorted(numbers.files(found))
        if (study.folder / PAGE).is_file():
            compared.append(PAGE)
            wrong += _unlike((study.folder / PAGE).read_bytes(), render(study, found), found)
    return Verified(compared, wrong)


def _unlike(stored: bytes, page: str, found: Mapping[str, Any]) -> list[str]:
    """Where a stored page differs from the one that would be written now: empty if nowhere."""
    text = stored.decode("utf-8", errors="replace")
    if stored == page.encode("utf-8"):
        return []
    if (inside := numbers.embedded(text)) is None:
        return [f"{PAGE} holds no findings"]
    if wrong := numbers.differences(PAGE, inside.encode(), found):
        return wrong
    picture = re.compile(r"data:image/[^\"]*")
    if picture.sub("", text) == picture.sub("", page):
        return [f"{PAGE} shows other pictures than its findings give (another processor, torch or Pillow can be why)"]
    lines = zip_longest(text.splitlines(), page.splitlines())
    first = next((n for n, (old, new) in enumerate(lines, 1) if old != new), 1)
    return [f"{PAGE} holds the right findings, and shows something else: from line {first:,} on it is another page"]


@contextmanager
def _refusals(folder: Path) -> Iterator[None]:
    """Turn what a folder's files can be the reason of into a `ReportError`."""
    try:
        yield
    except RunError as error:
        raise ReportError(str(error)) from None
    except (ArithmeticError, AttributeError, LookupError, RuntimeError, TemplateError, TypeError, ValueError) as error:
        raise ReportError(
            f"{folder}: of this study no page can be made ({type(error).__name__}: {error}).\n"
            "  Use the folder as `poolkit compare` wrote it."
        ) from error


def render(study: Study, found: Mapping[str, Any]) -> str:
    """The page's text for a study and its findings."""
    template = page_template(
        "study.html", number=views.number, signed=views.signed, chance=views.chance, mebi=views.mebibytes
    )
    request = study.folder.joinpath(REQUEST).read_bytes()
    inside = numbers.files(found)
    tables = {name: content for name, content in inside.items() if name.endswith(".csv")}
    links = {name: charts.uri(content, "text/csv") for name, content in tables.items()}
    return template.render(
        css=style("page.css", "study.css"),
        found=found,
        span=views.span,
        ranks={row["label"]: views.rank(row) for row in found["methods"]},
        reasons=views.reasons(found),
        asked_again=study.request.again,
        control_is=verdicts.control_is(found),
        control_word=verdicts.control_word(found),
        seed_by_seed=verdicts.seed_by_seed,
        time_spread=verdicts.time_spread,
        paired=any(verdicts.seed_by_seed(row["difference"] or {}) for row in found["methods"]),
        together=verdicts.together(found),
        asked=found["request"],
        ranked=views.ranked(found),
        ranking=views.ranking(found),
        differences=views.differences(found),
        tuned=verdicts.trials_of(found) if found["tuning"] else [],
        curves=views.curves(found),
        learned=views.learned(found),
        cost=views.cost(found),
        classes=views.classes(found),
        confusions=views.confusions(found),
        robust=views.corruptions(found),
        corruptions=CORRUPTIONS,
        maps=_maps(study),
        filters=_FILTER_NAMES,
        ramps={name: charts.ramp(name) for name in (charts.ACTIVATION, charts.DIFFERENCE)},
        request_text=request.decode(),
        files={**links, REQUEST: charts.uri(request, "application/toml")},
        findings_json=_in_script(inside[numbers.FINDINGS]),
        findings_link=charts.uri(inside[numbers.FINDINGS], "application/json"),
        version=poolkit.__version__,
    )


def _in_script(content: bytes) -> Markup:
    """JSON for a script element, which ends at the first `</`: the escape is the same JSON."""
    return Markup(content.decode().replace("<", "\\u003c"))  # noqa: S704 - no < is left in it


def _maps(study: Study) -> dict[str, Any] | None:
    """One test picture through fixed filters and each method; None where no run left a picture."""
    run = next((result.run for result in study.results() if result.run.status == "finished"), None)
    arrays = run.predictions() if run else None
    if run is None or arrays is None or not len(arrays["shown_pixels"]):
        return None
    pixels, index = arrays["shown_pixels"][0], int(arrays["shown_index"][0])
    poolings, failures = _layers(study)
    if not poolings or poolings[0][0] != study.request.baseline:
        return None
    shown = maps.compare(pixels, {"conv1.weight": _filters(len(pixels))}, poolings)
    return {
        "index": index,
        "name": run.data["classes"][arrays["labels"][index]],
        "picture": charts.picture(pixels),
        "own": study.request.baseline,
        "channels": sorted(map(_rounded, shown.channels), key=lambda channel: channel.index),
        "failures": [*shown.failures, *failures],
    }


def _rounded(channel: maps.Channel) -> maps.Channel:
    """A channel whose numbers have four digits: the last bits differ between processors, and pages are compared."""
    gaps = [None if tile.mean_difference is None else float(f"{tile.mean_difference:.4g}") for tile in channel.tiles]
    tiles = (replace(tile, mean_difference=gap) for tile, gap in zip(channel.tiles, gaps, strict=True))
    return replace(channel, tiles=tuple(tiles))


def _layers(study: Study) -> tuple[list[maps.Pooling], list[tuple[str, str]]]:
    """The study's methods as layers on windows of 2×2, the baseline first, and those that are none, with the reason.

    Their parameters are those of the runs: the asked ones, or those that tuning chose.
    """
    asked, recipes = study.request, study.recipes()
    layers: list[maps.Pooling] = []
    failures: list[tuple[str, str]] = []
    for spelling in sorted(asked.methods, key=lambda method: method != asked.baseline):
        if names_own(spelling):  # the same page for all readers, whether they have its module or not
            failures.append((spelling, "a page runs no code that a study's files name"))
            continue
        try:
            used = summaries.method_of(study, spelling, recipes[spelling].as_dict())
            layers.append((spelling, Pool2d(used, 2, channels=len(_FILTERS))))
        except (TypeError, ValueError) as error:  # a method on whole maps has no windows to show
            failures.append((spelling, str(error).splitlines()[0]))
    return layers, failures


def _filters(channels: int) -> Tensor:
    """The fixed filters for pictures of so many channels, (filters, channels, 3, 3): the same on each."""
    return torch.tensor(_FILTERS)[:, None].repeat(1, channels, 1, 1) / channels
