"""Build the report of one training run: one HTML file that needs nothing but itself.

Everything is read from the run's folder: `run.json`, `predictions.npz` and `model.safetensors`. The same
folder gives the same bytes.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np
from jinja2 import Environment, StrictUndefined, Template, TemplateError
from markupsafe import Markup
from torch import Tensor

from poolkit.lab.durable import write_atomic
from poolkit.lab.nets import PLACES, pools
from poolkit.lab.other_nets import AS_MADE
from poolkit.lab.record import to_json
from poolkit.lab.run import PREDICTIONS, WEIGHTS, Run, RunError
from poolkit.report import charts, examples, maps, words


class ReportError(Exception):
    """A folder of which no report can be made; the message names the file, the reason and what to do."""


@dataclass(frozen=True)
class Predictions:
    """What `predictions.npz` holds: probabilities (N, classes), labels (N,), pictures uint8 (…, C, H, W)."""

    probabilities: np.ndarray
    labels: np.ndarray
    shown_index: np.ndarray
    shown_pixels: np.ndarray
    sample_pixels: np.ndarray
    sample_labels: np.ndarray


def build(folder: Path, poolings: Sequence[maps.Pooling] | None = None) -> Path:
    """Write `report.html` into a run's folder and return its path.

    The file is replaced in one step: a reader sees the old report or the new one. A failed run gets a report
    of what it left.

    Arguments: `folder`, with the `run.json` that training wrote; `poolings`, the methods whose effect is
    shown, the run's own first, as pairs of a name and a callable on float tensors (N, C, H, W); by default
    all of `poolkit`.
    Raises `ReportError` if there is no run, or a file is damaged, exchanged or of another format.
    """
    folder = Path(folder)
    try:
        run = Run.load(folder)
        page = _page(run, _predictions(run, folder), _weights(run, folder), poolings)
    except RunError as error:
        raise ReportError(str(error)) from None
    except (ArithmeticError, AttributeError, LookupError, RuntimeError, TemplateError, TypeError, ValueError) as error:
        raise ReportError(
            f"{folder}: of this run no page can be made ({type(error).__name__}: {error}). "
            "Use the folder as `poolkit train` wrote it, or train again into a new one."
        ) from error
    target = folder / "report.html"
    write_atomic(target, page.encode("utf-8"))
    return target


def page_template(name: str, **filters: Callable[..., Any]) -> Template:
    """One of our pages with the parts that pages share, our words and further filters at hand."""
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    environment.filters.update(
        percent=words.percent, decimal=words.decimal, count=words.count, duration=words.duration,
        size=words.size, tell=examples.tell, plural=words.plural, significant=words.significant,
        breakable=words.breakable, **filters,
    )  # fmt: skip
    return environment.from_string(_text("parts.html") + _text(name))


def style(*names: str) -> Markup:
    """Our style sheets, one after the other."""
    return Markup("".join(map(_text, names)))  # noqa: S704 - our own files


def _text(name: str) -> str:
    return files("poolkit.report").joinpath(name).read_text(encoding="utf-8")


def _predictions(run: Run, folder: Path) -> Predictions | None:
    """None where there are none: a failed run, or a file that was taken out to save room."""
    if run.status != "finished" or not (folder / PREDICTIONS).exists():
        return None
    return Predictions(**run.predictions())


def _weights(run: Run, folder: Path) -> dict[str, Tensor]:
    return run.state() if run.status == "finished" and (folder / WEIGHTS).exists() else {}


def _page(
    run: Run,
    predictions: Predictions | None,
    weights: dict[str, Tensor],
    poolings: Sequence[maps.Pooling] | None,
) -> str:
    template = page_template("page.html")
    learned = _learned(run.epochs)
    return template.render(
        css=style("page.css"),
        run=run,
        pooling="its own" if run.recipe["pool"] == AS_MADE else run.recipe["pool"],
        verdict=_verdict(run),
        again=words.again(run.command) if run.command else None,
        shrunk=charts.MOST if max(run.data["shape"][1:]) > charts.MOST else None,
        samples=_samples(run, predictions),
        curves=_curves(run.epochs, learned),
        learned=learned,
        lowest=words.lowest([epoch["test_loss"] for epoch in run.epochs]),
        cards=_cards(run, predictions),
        final=_final(run),
        maps=_maps(run, predictions, weights, poolings),
        ramps={name: charts.ramp(name) for name in (charts.ACTIVATION, charts.DIFFERENCE)},
        examples=_examples(),
        files={
            "run.json": charts.uri(to_json(run.as_dict()), "application/json"),
            "epochs.csv": charts.uri(_table(run.epochs, learned).encode("utf-8"), "text/csv"),
        },
    )


def _verdict(run: Run) -> dict[str, Any] | None:
    """The numbers of the first sentences; None for a run without a result."""
    final = run.final
    if final is None:
        return None
    support = [row["support"] for row in final["per_class"]]
    total = sum(support)
    low, high = words.interval(final["accuracy"], total)
    return {"total": total, "guess": max(support) / total, "low": low, "high": high}


def _samples(run: Run, predictions: Predictions | None) -> list[dict[str, str]]:
    if predictions is None:
        return []
    classes = run.data["classes"]
    pairs = zip(predictions.sample_pixels, predictions.sample_labels, strict=True)
    return [{"picture": charts.picture(pixels), "name": classes[label]} for pixels, label in pairs]


def _learned(epochs: Sequence[dict[str, Any]]) -> dict[str, list[float | None]]:
    """The learned pooling parameters by name, one value for each epoch."""
    names = list(dict.fromkeys(name for epoch in epochs for name in epoch["learned"]))
    return {name: [epoch["learned"].get(name) for epoch in epochs] for name in names}


def _curves(epochs: Sequence[dict[str, Any]], learned: dict[str, list[float | None]]) -> list[Markup]:
    if not epochs:
        return []
    drawn = []
    for key, what in (("loss", "Loss (cross-entropy)"), ("accuracy", "Accuracy")):
        percents = key == "accuracy"
        train, test = (tuple(epoch[f"{part}_{key}"] for epoch in epochs) for part in ("train", "test"))
        alt = f"{what} against epochs: training {words.course(train, percents)}, test {words.course(test, percents)}."
        lines = [charts.Line("train", train, dashed=True), charts.Line("test", test)]
        drawn.append(charts.curves(lines, what, alt, percents))
    if learned:
        alt = "Learned pooling parameters against epochs: "
        alt += "; ".join(f"{name} {words.course(values)}" for name, values in learned.items())
        lines = [charts.Line(name, tuple(values)) for name, values in learned.items()]
        drawn.append(charts.curves(lines, "Learned pooling parameters", alt))
    return drawn


def _cards(run: Run, predictions: Predictions | None) -> dict[str, list[dict[str, Any]]]:
    """The test pictures that are shown, the right ones and the wrong ones."""
    cards: dict[str, list[dict[str, Any]]] = {"right": [], "wrong": []}
    if predictions is None:
        return cards
    classes = run.data["classes"]
    for index, pixels in zip(predictions.shown_index, predictions.shown_pixels, strict=True):
        chances, label = predictions.probabilities[index].astype(float), int(predictions.labels[index])
        best = int(chances.argmax())
        card = {"index": int(index), "picture": charts.picture(pixels), "predicted": classes[best]}
        card |= {"chance": chances[best], "true": classes[label], "true_chance": chances[label]}
        cards["right" if best == label else "wrong"].append(card)
    return cards


def _final(run: Run) -> dict[str, Any] | None:
    """The confusion matrix with its shades, and the commonest mistakes."""
    if run.final is None:
        return None
    matrix = np.array(run.final["confusion"], dtype=np.int64)
    right = np.eye(len(matrix), dtype=bool)
    # Two scales: on one, the diagonal would leave the mistakes too pale to tell apart.
    totals = np.maximum(matrix.sum(1, keepdims=True), 1)
    worst = max(int(np.where(right, 0, matrix).max()), 1)
    shades = np.where(right, matrix / totals, matrix / worst)
    rows = [
        [{"times": int(times), "shade": f"{shade:.2f}"} for times, shade in zip(*pair, strict=True)]
        for pair in zip(matrix, shades, strict=True)
    ]
    classes = run.data["classes"]
    by_recall = sorted(run.final["per_class"], key=lambda row: -(row["recall"] or 0))
    return {
        "rows": rows,
        "worst": worst,
        "confusions": words.confusions(classes, matrix.tolist()),
        "best_class": by_recall[0],
        "worst_class": by_recall[-1],
    }


def _maps(
    run: Run,
    predictions: Predictions | None,
    weights: dict[str, Tensor],
    poolings: Sequence[maps.Pooling] | None,
) -> dict[str, Any] | None:
    """One test picture through the tutorial net's first convolution and every pooling; None where there is none."""
    net = run.recipe["net"]
    if net not in PLACES or predictions is None or "conv1.weight" not in weights or not len(predictions.shown_pixels):
        return None
    pixels, index = predictions.shown_pixels[0], int(predictions.shown_index[0])
    if poolings is None:
        first = pools(net, run.recipe["pool"], run.recipe.get("pool_at", ""))[0]
        poolings = maps.installed(str(first), weights)
    return {
        "index": index,
        "name": run.data["classes"][predictions.labels[index]],
        "picture": charts.picture(pixels),
        "filters": len(weights["conv1.weight"]),
        "own": poolings[0][0],
        "count": len(poolings),
        "comparison": maps.compare(pixels, weights, poolings),
    }


def _examples() -> dict[str, Any]:
    shown = examples.all_examples()
    volume = shown["volume"]
    alt = (
        f"A stack of {words.plural(volume.before[0], 'map')} of {words.size(volume.before[1:])} numbers gives "
        f"{words.plural(volume.after[0], 'map')} of {words.size(volume.after[1:])} numbers."
    )
    return {**shown, "drawing": charts.volumes(volume.before, volume.after, alt)}


def _table(epochs: Sequence[dict[str, Any]], learned: dict[str, list[float | None]]) -> str:
    """The epochs as CSV: an empty cell is a value that was not finite."""
    columns = [
        "epoch", "train_loss", "train_accuracy", "test_loss", "test_accuracy", "seconds", "images_per_second",
    ]  # fmt: skip
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow([*columns, *learned])
    for place, epoch in enumerate(epochs):
        writer.writerow([epoch[name] for name in columns] + [values[place] for values in learned.values()])
    return buffer.getvalue()
