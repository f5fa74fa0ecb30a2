"""The picture of a genetic search: every net by generation, and the best so far."""

from __future__ import annotations

import io
import textwrap
from itertools import accumulate
from typing import TYPE_CHECKING

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator

if TYPE_CHECKING:
    from poolkit.lab.evolve import Evolution

_INK, _FAINT, _BLUE, _ORANGE = "#222222", "#dddddd", "#1f6fb4", "#d9630b"
_SIZE = (8.0, 4.5)  # inches
_LETTERS = 88  # of a line above the picture
_SPREAD = 0.6  # of a generation's width that its nets fill


def picture(found: Evolution) -> bytes:
    """A PNG: a dot for each net, in the order of its generation, and a step at each net that beat all before."""
    trials, population = found.trials, found.request.population
    order = np.array([trial.number % population for trial in trials])
    generation = np.array([trial.generation for trial in trials])
    at = generation + _SPREAD * ((order + 0.5) / population - 0.5)
    accuracy = 100 * np.array([trial.accuracy for trial in trials])
    leading = np.array(list(accumulate(accuracy, max)))
    fresh = np.array([trial.seconds > 0 for trial in trials])

    figure = Figure(figsize=_SIZE, layout="constrained")
    axes = figure.add_subplot()
    axes.step(at, leading, where="post", color=_ORANGE, lw=2, label="best so far", zorder=2)
    axes.scatter(at[fresh], accuracy[fresh], s=26, color=_BLUE, label="a net", zorder=3)
    if not fresh.all():
        axes.scatter(at[~fresh], accuracy[~fresh], s=26, fc="white", ec=_BLUE, label="the same pools again", zorder=3)
    winner = found.winner
    axes.scatter(at[winner.number], 100 * winner.accuracy, s=110, fc="none", ec=_ORANGE, lw=2, zorder=4)
    low, high = accuracy.min(), accuracy.max()
    axes.set_ylim(low - 0.06 * (high - low + 1), high + 0.06 * (high - low + 1))
    axes.set_xlim(0.5, generation.max() + 0.5)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=12))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:.3g} %"))
    axes.set_xlabel("generation")
    said = textwrap.fill(f"best {winner.accuracy:.1%}: {winner.pool}", _LETTERS)
    title = f"accuracy on the pictures held out\n{said}"
    axes.set_title(title, loc="left", fontsize=11, color=_INK, parse_math=False)
    axes.grid(axis="y", color=_FAINT, lw=0.8)
    axes.set_axisbelow(True)
    axes.spines[["top", "right", "left"]].set_visible(False)
    axes.tick_params(length=0)
    figure.legend(loc="outside lower right", ncols=3, frameon=False)
    content = io.BytesIO()
    figure.savefig(content, format="png", dpi=150, metadata={"Software": None})
    return content.getvalue()
