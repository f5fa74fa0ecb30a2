"""What a study asks, and study.toml, which says it."""

from __future__ import annotations

import dataclasses
import json
import math
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import poolkit
from poolkit import own
from poolkit.lab.recipe import Recipe

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

FORMAT = 1
_MOST = 1_000_000  # cells of a study


@dataclass(frozen=True)
class ProbeSettings:
    """What is asked of a trained net beside its accuracy, on the first pictures of a subset of the test pictures.

    Fields: `shift_images`, how many pictures are shifted by up to ±4 pixels; `corrupt_images`, how many are corrupted.
    Raises `ValueError` for a number below 1.
    """

    shift_images: int = 200
    corrupt_images: int = 200

    def __post_init__(self) -> None:
        for name in ("shift_images", "corrupt_images"):
            _whole(name, getattr(self, name), 1)


@dataclass(frozen=True)
class Request:
    """What a study asks, fixed before its first run.

    Fields: `methods`, spellings, two or more; `seeds`, how many runs each gets, with the seeds 0 … seeds − 1; `recipe`,
    what all runs share (its `pool` and `seed` say nothing); `data_sha256`, of the data that it names; `baseline`, the
    method that the others are compared with, by default max where it is among them, else the first; `delta`, the
    smallest difference in accuracy that matters, in points; `alpha`, the chance of a false alarm; `probes`, None for no
    measures of robustness; `tune`, trials for each row before its runs, 0 for none; `tune_data_sha256`, of the pictures
    that trials see (`poolkit.lab.validation.hold_out`).
    Raises `ValueError` for what is not allowed, and says what is.
    """

    methods: tuple[str, ...]
    seeds: int
    recipe: Recipe
    data_sha256: str
    baseline: str = ""
    delta: float = 0.2
    alpha: float = 0.05
    probes: ProbeSettings | None = field(default_factory=ProbeSettings)
    tune: int = 0
    tune_data_sha256: str = ""

    def __post_init__(self) -> None:
        methods = tuple(map(own.spelled, self.methods))
        twice = [method for place, method in enumerate(methods) if method in methods[:place]]
        if twice:
            raise ValueError(f"{twice[0]} is asked for twice: the baseline's second row is part of every study")
        if len(methods) < 2:
            raise ValueError("a comparison needs two methods or more\n  all: poolkit list")
        for method in methods:
            if own.names_own(method) and own.is_here(method) and poolkit.method(method).kind == "head":
                raise ValueError(
                    f"{method} is a head of your own: those are no rows of a study\n  train it with --head"
                )
        asked = own.spelled(self.baseline) if self.baseline else ""
        baseline = asked or ("max" if "max" in methods else methods[0])
        if baseline not in methods:
            raise ValueError(f"baseline={baseline!r} is not allowed: one of {', '.join(methods)}")
        _whole("seeds", self.seeds, 2)
        _whole("tune", self.tune, 0)
        if bool(self.tune) != bool(self.tune_data_sha256):
            raise ValueError("tune_data_sha256 is that of the pictures of the trials: there where tune is not 0")
        if self.seeds * (len(methods) + 1) > _MOST:
            raise ValueError(f"seeds={self.seeds!r} is not allowed: at most {_MOST:,} runs")
        for name, high in (("delta", 100.0), ("alpha", 0.5)):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 < value < high:
                raise ValueError(f"{name}={value!r} is not allowed: a number above 0 and below {high:g}")
            object.__setattr__(self, name, float(value))
        object.__setattr__(self, "methods", methods)
        object.__setattr__(self, "baseline", baseline)
        object.__setattr__(self, "recipe", dataclasses.replace(self.recipe, pool="max", seed=0))

    @property
    def again(self) -> str:
        """The label of the control: the baseline once more, with other seeds."""
        return f"{self.baseline} (again)"

    @property
    def labels(self) -> tuple[str, ...]:
        """The rows of the study: the methods, then the control."""
        return (*self.methods, self.again)

    def method(self, label: str) -> str:
        """The method of a row."""
        return self.baseline if label == self.again else label

    def recipe_of(self, label: str) -> Recipe:
        """The recipe of a row, but for its seed: a head stands behind max pooling, any other method at the pools."""
        return placed(self.recipe, self.method(label))

    def seeds_of(self, label: str) -> range:
        """The seeds of a row: the control's are new ones."""
        return range(self.seeds, 2 * self.seeds) if label == self.again else range(self.seeds)

    def as_dict(self) -> dict[str, Any]:
        """The content of study.toml."""
        values = {k: v for k, v in vars(self).items() if k not in ("recipe", "probes") and v != ""}
        recipe = {k: v for k, v in self.recipe.as_dict().items() if k not in ("pool", "seed") and v is not None}
        tables = {"recipe": recipe} | ({"probes": vars(self.probes)} if self.probes else {})
        return {"format": FORMAT, **values, "methods": list(self.methods), **tables}

    def text(self) -> str:
        """study.toml: the same request is the same text."""
        return "# Written before the first run; the SHA-256 of this file is in every run.\n" + _toml(self.as_dict())

    @classmethod
    def from_dict(cls, given: dict[str, Any]) -> Request:
        """The request of study.toml's values. Raises `ValueError` or `TypeError`."""
        values = {k: v for k, v in given.items() if k != "format"}
        values["recipe"] = Recipe.from_dict(given["recipe"])
        values["probes"] = ProbeSettings(**given["probes"]) if "probes" in given else None
        return cls(**{**values, "methods": tuple(given["methods"])})

    def differences(self, asked: Request) -> list[tuple[str, Any, Any]]:
        """Where another request differs: key, the value here, the value there."""
        here, there = _flat(self.as_dict()), _flat(asked.as_dict())
        return [(k, here.get(k), there.get(k)) for k in {**here, **there} if here.get(k) != there.get(k)]


def is_head(method: str) -> bool:
    """Whether a study's method is a head; those of one's own are none, so that no class is imported to know it."""
    return not own.names_own(method) and poolkit.method(method).kind == "head"


def placed(recipe: Recipe, method: str) -> Recipe:
    """The recipe with this method in its net."""
    return dataclasses.replace(recipe, head=method) if is_head(method) else dataclasses.replace(recipe, pool=method)


def read_toml(text: str) -> dict[str, Any]:
    """The values of a TOML text; raises `ValueError`."""
    return tomllib.loads(text)


def _whole(name: str, value: Any, least: int) -> None:
    if isinstance(value, bool) or not isinstance(value, int) or not least <= value < 2**31:
        raise ValueError(f"{name}={value!r} is not allowed: an integer, {least} or more")


def _flat(values: Mapping[str, Any]) -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in values.items():
        flat |= {f"{key}.{k}": v for k, v in value.items()} if isinstance(value, dict) else {key: value}
    return flat


def _toml(values: Mapping[str, Any]) -> str:
    """Values and tables of values as TOML; raises `ValueError` for a text that UTF-8 cannot hold."""
    plain = [f"{key} = {_toml_value(value)}\n" for key, value in values.items() if not isinstance(value, dict)]
    tables = [f"\n[{key}]\n{_toml(value)}" for key, value in values.items() if isinstance(value, dict)]
    return "".join([*plain, *tables])


def _toml_value(value: Any) -> str:
    if isinstance(value, list):
        return f"[{', '.join(map(_toml_value, value))}]"
    if isinstance(value, str):
        try:
            value.encode()
        except UnicodeEncodeError:
            raise ValueError(f"{ascii(value)} is no text that a file can hold") from None
        # JSON's strings are TOML's, but for the one control character that JSON lets pass.
        return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
    if isinstance(value, float) and not math.isfinite(value):
        raise ValueError(f"{value} is no number for a request")
    return json.dumps(value)
