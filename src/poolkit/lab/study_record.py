"""The files of a study beside its runs', read as files that anybody may have written."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np

from poolkit.lab.record import Layout, RunError
from poolkit.lab.rules import LOSS, PLAIN, SECONDS, SHARE, TEXT, Is, List, Map, Object, OrNull, Wrong, number, whole

_SUM = Is("64 hexadecimal digits", lambda v: isinstance(v, str) and bool(re.fullmatch("[0-9a-f]{64}", v)))
_BESIDE = Object(
    {
        "format": whole(1, 1),
        "study_sha256": _SUM,
        "label": TEXT,
        "measured": Map(OrNull(number()), 20),
        "files": Map(_SUM, 3),
    }
)
_REQUEST = Object(
    {
        "format": whole(1, 1),
        "methods": List(TEXT, 2, 10_000),
        "seeds": whole(2),
        "data_sha256": _SUM,
        "baseline": TEXT,
        "delta": number(0),
        "alpha": number(0, 1),
        "tune": whole(),
        "tune_data_sha256": _SUM,
        "recipe": Map(PLAIN, 100),
        "probes": Object({"shift_images": whole(1), "corrupt_images": whole(1)}),
    },
    frozenset({"probes", "tune_data_sha256"}),
)
_ORIGIN = Object(
    {
        "format": whole(1, 1),
        "study_sha256": _SUM,
        "net": _SUM,
        "sources": Map(_SUM, 10_000),
        "versions": Map(TEXT, 10),
        "device": TEXT,
    }
)
_TUNED = Object(
    {
        "format": whole(1, 1),
        "study_sha256": _SUM,
        "rows": List(
            Object(
                {
                    "label": TEXT,
                    "chosen": whole(),
                    "trials": List(
                        Object(
                            {
                                "trial": whole(),
                                "recipe": Map(PLAIN, 100),
                                "accuracy": OrNull(SHARE),
                                "loss": LOSS,
                                "seconds": OrNull(SECONDS),
                                "message": OrNull(TEXT),
                            }
                        ),
                        1,
                        1_000_000,
                    ),
                }
            ),
            3,
            10_001,
        ),
    }
)


def check_beside(record: dict[str, Any], path: Path) -> None:
    """See that the content of a study's study.json can be believed; raises `RunError`."""
    try:
        _BESIDE.check(record, "")
    except Wrong as wrong:
        raise RunError(f"{path} is damaged: {wrong}\n  Copy the run's folder again.") from None


def check_request(values: dict[str, Any], path: Path) -> None:
    """See that study.toml has the keys and types of a request; raises `RunError`."""
    try:
        _REQUEST.check(values, "")
    except Wrong as wrong:
        raise RunError(f"{path} is damaged: {wrong}\n  Put the original back.") from None


def check_origin(record: dict[str, Any], path: Path) -> None:
    """See that the content of a study's origin.json can be believed; raises `RunError`."""
    try:
        _ORIGIN.check(record, "")
    except Wrong as wrong:
        raise RunError(f"{path} is damaged: {wrong}\n  Put the original back.") from None


def check_tuned(record: dict[str, Any], path: Path) -> None:
    """See that the content of a study's tuning.json can be believed; raises `RunError`."""
    try:
        _TUNED.check(record, "")
        for row in record["rows"]:
            if row["chosen"] >= len(row["trials"]):
                raise Wrong(f"chosen is {row['chosen']:,} of {len(row['trials']):,} trials.")
    except Wrong as wrong:
        raise RunError(f"{path} is damaged: {wrong}\n  Delete it, and compare writes it again.") from None


def probe_layout(shifted: int, corrupted: int) -> Layout:
    """The arrays that probes.npz holds, of at most so many pictures shifted and corrupted."""
    return {
        "shift_index": (np.int32, (), shifted),
        "shift_moves": (np.int8, (2,), 81),
        "shift_classes": (np.uint16, (shifted,), 81),
        "corrupt_index": (np.int32, (), corrupted),
        "corrupt_classes": (np.uint16, (5, corrupted), 15),
    }
