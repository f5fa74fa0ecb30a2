"""Build the page of a study: one HTML file that needs nothing but itself.

All numbers are those of `poolkit.lab.findings`; the same folder gives the same bytes.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jinja2 import Environment, StrictUndefined, TemplateError
from markupsafe import Markup
from torch import Tensor

import poolkit
from poolkit.lab.durable import write_atomic
from poolkit.lab.findings import findings as find
from poolkit.lab.record import RunError, to_json
from poolkit.lab.study import REQUEST, Result, Study
from poolkit.report import charts, maps, words
from poolkit.report import study_views as views
from poolkit.report.build import ReportError
from poolkit.torch import Pool2d

PAGE = "report.html"
#: Edges down, edges across, and what is brighter than its surroundings.
_FILTERS = (
    ((1.0, 2.0, 1.0), (0.0, 0.0, 0.0), (-1.0, -2.0, -1.0)),
    ((1.0, 0.0, -1.0), (2.0, 0.0, -2.0), (1.0, 0.0, -1.0)),
    ((-1.0, -1.0, -1.0), (-1.0, 8.0, -1.0), (-1.0, -1.0, -1.0)),
)


def build_study(folder: Path) -> Path:
    """Write `report.html` into a study's folder and return its path.

    The file is replaced in one step. A study that is not complete gets the page of what is there, which says so.

    Raises `ReportError` if there is no study or no result, or a file is damaged or of another format.
    """
    folder = Path(folder)
    try:
        study = Study.load(folder)
        page = render(study, find(study))
    except RunError as error:
        raise ReportError(str(error)) from None
    except (ArithmeticError, AttributeError, LookupError, RuntimeError, TemplateError, TypeError, ValueError) as error:
        raise ReportError(
            f"{folder}: of this study no page can be made ({type(error).__name__}: {error}).\n"
            "  Use the folder as `poolkit compare` wrote it."
        ) from error
    write_atomic(folder / PAGE, page.encode("utf-8"))
    return folder / PAGE


def render(study: Study, findings: Mapping[str, Any]) -> str:
    """The page's text for a study and its findings."""
    here = files("poolkit.report")
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    environment.filters.update(
        percent=words.percent, decimal=words.decimal, count=words.count, duration=words.duration, size=words.size,
        plural=words.plural, significant=words.significant, breakable=words.breakable, points=views.points,
    )  # fmt: skip
    style = "".join(here.joinpath(name).read_text(encoding="utf-8") for name in ("page.css", "study.css"))
    template = environment.from_string(here.joinpath("study.html").read_text(encoding="utf-8"))
    first = _one(study)
    return template.render(
        css=Markup(style),  # noqa: S704 - our own files
        study=study,
        asked=study.request,
        found=findings,
        ranking=views.ranking(findings),
        differences=views.differences(findings, study.request.delta),
        curves=views.curves(findings),
        cost=views.cost(findings),
        learned=views.learned(findings),
        first=first,
        maps=_maps(study, first),
        ramps={name: charts.ramp(name) for name in (charts.ACTIVATION, charts.DIFFERENCE)},
        corruptions=CORRUPTIONS,
        request_text=(study.folder / REQUEST).read_text(encoding="utf-8"),
        files={
            "findings.json": charts.uri(to_json(findings), "application/json"),
            "findings.csv": charts.uri(table(findings).encode("utf-8"), "text/csv"),
            "study.toml": charts.uri((study.folder / REQUEST).read_bytes(), "application/toml"),
        },
    )


def _one(study: Study) -> Run | None:
    """A finished run, for what all have in common: data, machine and a picture."""
    return next((result.run for result in study.results() if result.run.status == "finished"), None)


def _maps(study: Study, run: Run | None) -> dict[str, Any] | None:
    """One test picture through fixed filters and each method of the study; a study keeps no weights."""
    if run is None:
        return None
    predictions = run.predictions()
    pixels, index = predictions["shown_pixels"][0], int(predictions["shown_index"][0])
    weights = {"conv1.weight": _filters(len(pixels))}
    poolings, failures = [], []
    for spelling in (study.request.baseline, *(m for m in study.request.methods if m != study.request.baseline)):
        try:
            poolings.append((spelling, Pool2d(spelling, 2, channels=len(_FILTERS))))
        except (TypeError, ValueError) as error:  # a method on whole maps has no windows to show
            failures.append((spelling, str(error)))
    if not poolings or poolings[0][0] != study.request.baseline:
        return None
    shown = maps.compare(pixels, weights, poolings)
    return {
        "index": index,
        "name": run.data["classes"][predictions["labels"][index]],
        "picture": charts.picture(pixels),
        "own": poolings[0][0],
        "channels": shown.channels,
        "failures": [*shown.failures, *failures],
    }


def _filters(channels: int) -> Tensor:
    """The fixed filters for pictures of so many channels, (filters, C, 3, 3): the same on each channel."""
    return torch.tensor(_FILTERS)[:, None].repeat(1, channels, 1, 1) / channels


def table(findings: Mapping[str, Any]) -> str:
    """The findings of each row as CSV: numbers as they are, an empty cell for none."""
