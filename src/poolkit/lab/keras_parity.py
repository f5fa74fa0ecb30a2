"""The same numbers from Keras's three back ends: every method against the scalar form and against PyTorch's face."""

from __future__ import annotations

import dataclasses
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import torch

import poolkit
from poolkit.map_method import MapMethod
from poolkit.map_subject import MapSubject
from poolkit.map_subject import expected as map_expected
from poolkit.method import Method, learn
from poolkit.subject import Case, Subject, case, expected, picture, uneven

BACKENDS = {"tensorflow": "tensorflow", "jax": "jax", "torch": "torch"}
#: JAX has no float64 without x64, and these few cells are computed sooner than an optimiser has done its work.
SETTINGS = {"JAX_ENABLE_X64": "1", "JAX_DISABLE_MOST_OPTIMIZATIONS": "1", "TF_CPP_MIN_LOG_LEVEL": "3"}
#: What a back end may differ from the scalar form and from PyTorch, relative to the largest cell or result.
BARS = {"float32": 1e-6, "float64": 1e-12}
#: In float32 some methods on whole maps lose more than the bar, in PyTorch too: variances of a few cells, sums that
#: cancel. Another order of the same operations may lose so many times what PyTorch's loses.
MARGIN = 8.0
# Two of them pad unevenly, where Keras's own layers give different averages on different back ends.
GEOMETRIES = (
    (case(6, 5, kernel_size=3, stride=2, padding="same"), "channels_last"),
    (case(6, kernel_size=3, stride=2, padding="same"), "channels_first"),
    (case(2, 3, 4, kernel_size=2), "channels_last"),
    (case(5, 4, kernel_size=(2, 3), stride=(1, 2)), "channels_first"),
    (case(3, 4), "channels_last"),
    (case(4, 3), "channels_first"),
    (case(3, 7), "channels_last"),
)
# Methods on whole maps take those of them that they can serve, with a window and without.
MAP_GEOMETRIES = (
    (case(6, 5, kernel_size=3, stride=2, padding="same"), "channels_last"),
    (case(7, kernel_size=2), "channels_first"),
    (case(2, 4, 3, kernel_size=2), "channels_first"),
    (case(6, 8), "channels_last"),
    (case(7), "channels_first"),
    (case(4, 3, 4), "channels_last"),
)


@dataclass(frozen=True)
class Asked:
    """One call: a method on a geometry in a number type, drawing or not."""

    method: Method
    where: Case
    data_format: str
    dtype: str
    draws: bool = False

    @property
    def last(self) -> bool:
        """Whether channels come last."""
        return self.data_format == "channels_last"

    @property
    def maps(self) -> MapSubject | None:
        """What the contracts try a method on whole maps with; None for methods on windows."""
        return MapSubject(self.method) if isinstance(self.method, MapMethod) else None

    def x(self) -> torch.Tensor:
        """The picture, channels first; in float64, but of numbers that the type can hold."""
        seed = len(self.where.sizes)
        some = self.maps.maps(self.where, seed) if self.maps else picture(self.where.sizes, seed)
        return some.to(getattr(torch, self.dtype)).double()

    def others(self) -> tuple[torch.Tensor, ...]:
        """Further inputs of map methods, in numbers that the type can hold."""
        some = self.maps.others(self.where) if self.maps else ()
        return tuple(v.to(getattr(torch, self.dtype)).double() if v.is_floating_point() else v for v in some)

    def subject(self) -> Any:
        """PyTorch's layer in float64, whose learned numbers the type can hold."""
        method: Any = self.method
        layer: Any = self.maps.layer(self.where) if self.maps else Subject(method, "reference").on(self.where)
        with torch.no_grad():
            for parameter in layer.parameters():
                parameter.copy_(parameter.to(getattr(torch, self.dtype)))
        return layer

    def oracle(self, layer: Any, x: torch.Tensor, u: torch.Tensor | None = None) -> torch.Tensor:
        """What the scalar form answers."""
        return map_expected(layer, x, self.others(), u) if self.maps else expected(layer, x, self.where.window, u)

    def as_json(self) -> dict[str, Any]:
        """The case as `keras_numbers` reads it."""
        names = {"kernel_size": "pool_size", "stride": "strides", "padding": "padding"}
        arguments: dict[str, Any] = {names[name]: value for name, value in self.where.geometry}
        dims, kind = self.where.dims, {"window": "Pooling", "map": "MapPooling", "head": "Head"}[self.method.kind]
        draw_shape = self.maps.method.draw_shape(self.maps.shape(self.where)) if self.maps and self.draws else None
        if self.maps is None and not arguments:
            # A global layer does not know how many numbers a table has.
            arguments = {"pool_size": self.where.sizes} if self.method.tables else {"keepdims": True}
            kind = kind if self.method.tables else "GlobalPooling"
        return {
            "layer": kind if kind == "Head" else f"{kind}{dims}D",
            "method": self.method.spelling,
            "arguments": arguments | {"data_format": self.data_format},
            "dtype": self.dtype,
            "shape": self.turned(self.x()).shape,
            "draws": self.draws,
            "draw_shape": draw_shape,
        }

    def turned(self, x: torch.Tensor) -> np.ndarray:
        """A channels-first array as the case has it; a head's vectors have no place to turn."""
        last = self.last and x.dim() > 2
        return np.ascontiguousarray((x.movedim(1, -1) if last else x).detach().numpy().astype(self.dtype))

    def back(self, x: np.ndarray) -> torch.Tensor:
        """The reverse, in float64."""
        return torch.from_numpy(x.astype(np.float64)).movedim(*((-1, 1) if self.last and x.ndim > 2 else (1, 1)))

    def given(self) -> dict[str, np.ndarray]:
        """What a child process needs: the picture, the weights of the outputs, the layer's numbers, further inputs."""
        layer, x, others = self.subject(), self.x(), self.others()
        numbers = {"x": self.turned(x), **{f"other{i}": v.numpy() for i, v in enumerate(others)}}
        if not self.draws:
            numbers["g"] = self.turned(uneven(layer(x, *others)))
        kept = {**dict(layer.named_parameters()), **dict(layer.named_buffers())}
        return numbers | {n: _as(v.detach().numpy(), self.dtype) for n, v in kept.items()}


@dataclass(frozen=True)
class Error:
    """The largest differences of one call from what it should be, relative to the largest cell or result."""

    asked: Asked
    oracle: float
    torch: float
    gradient: float
    #: By how much PyTorch's own layer is off in this type, where that decides what is allowed.
    own: float = 0.0

    @property
    def allowed(self) -> float:
        """The bar, or where the formula itself loses more in this type, a few times what PyTorch's layer loses."""
        return max(BARS[self.asked.dtype], MARGIN * self.own)

    @property
    def worst(self) -> float:
        """The largest of the three."""
        return max(self.oracle, self.torch, self.gradient)


def variants(name: str) -> tuple[Any, ...]:
    """A method as it comes, and with everything learned that can be, for each of two channels.

    One on whole maps also with the sets of parameters that it wants tried, and the last of each that contracts try.
    """
    cls: Any = poolkit.METHODS[name]
    plain = cls()
    if isinstance(plain, MapMethod):
        last = {n: p.tries[-1] for n, p in cls.params().items() if p.tries}
        return tuple(dict.fromkeys((plain, *(cls(**some) for some in cls.tries), cls(**last))))
    learnable = {n: learn(channels=2) for n, p in plain.params().items() if p.learnable}
    return (plain, dataclasses.replace(plain, **learnable)) if learnable else (plain,)


def questions(names: Sequence[str], geometries: Any = None, dtypes: Sequence[str] = tuple(BARS)) -> list[Asked]:
    """Every method on every geometry it serves, in every number type; random ones also drawing, on two of them."""
    asked = []
    for name in names:
        for method in variants(name):
            some = geometries or (MAP_GEOMETRIES if isinstance(method, MapMethod) else GEOMETRIES)
            some = [(where, form) for where, form in some if _serves(method, where)]
            draws = method.random if isinstance(method, MapMethod) else method.draws is not None
            for dtype in dtypes:
                asked += [Asked(method, where, form, dtype) for where, form in some]
                if draws:
                    asked += [Asked(method, where, form, dtype, draws=True) for where, form in some[:2]]
    return asked


def _serves(method: Any, where: Case) -> bool:
    """Whether a method can pool this; a method on windows can pool everything."""
    if not isinstance(method, MapMethod):
        return True
    fitting = {"needs": bool(where.geometry), "never": not where.geometry, "may": True}[method.takes_window]
    return fitting and where.dims in method.takes_dims and MapSubject(method).serves(where)


def available(backend: str) -> bool:
    """Whether a back end is installed here."""
    return find_spec("keras") is not None and find_spec(BACKENDS[backend]) is not None


def ask(backend: str, asked: Sequence[Asked]) -> list[Error]:
    """Compute the calls in a process of their own, in which Keras runs on that back end, and compare.

    Raises:
        RuntimeError: the process failed; the message has its last words.
    """
    with tempfile.TemporaryDirectory(prefix="poolkit-keras-") as name:
        folder = Path(name)
        (folder / "cases.json").write_text(json.dumps([one.as_json() for one in asked]), encoding="utf-8")
        given = {f"{i}.{key}": value for i, one in enumerate(asked) for key, value in one.given().items()}
        np.savez(folder / "cases.npz", **given)  # type: ignore[arg-type]
        settings = {"KERAS_BACKEND": backend, **SETTINGS}
        words = [sys.executable, "-m", "poolkit.lab.keras_numbers", name]
        done = subprocess.run(words, env={**os.environ, **settings}, capture_output=True, text=True)  # noqa: S603
        if done.returncode:
            raise RuntimeError(f"Keras on {backend} failed:\n{done.stderr[-3000:]}")
        found = dict(np.load(folder / "numbers.npz"))
    return [_error(one, _of(found, i)) for i, one in enumerate(asked)]


def _of(found: dict[str, np.ndarray], number: int) -> dict[str, np.ndarray]:
    return {n.partition(".")[2]: v for n, v in found.items() if n.startswith(f"{number}.")}


def _error(asked: Asked, found: dict[str, np.ndarray]) -> Error:
    layer, x, y, others = asked.subject(), asked.x(), asked.back(found["y"]), asked.others()
    if asked.draws:
        u = torch.from_numpy(found["u"].astype(np.float64)) if asked.maps else asked.back(found["u"])
        return Error(asked, _apart(y, asked.oracle(layer, x, u)), 0.0, 0.0)
    theirs, *gradients = _of_torch(layer, x, others)
    apart = [_apart(asked.back(found["dx"]), gradients[0])]
    for (name, _), want in zip(layer.named_parameters(), gradients[1:], strict=True):
        got = torch.from_numpy(found[f"d{name}"].astype(np.float64))
        apart.append(_apart(got.reshape(want.shape), want))
    error = Error(asked, _apart(y, asked.oracle(layer, x)), _apart(y, theirs), max(apart))
    if asked.maps is None or asked.dtype == "float64" or error.worst <= error.allowed:
        return error
    narrow = _of_torch(layer.float(), x.float(), tuple(v.float() if v.is_floating_point() else v for v in others))
    own = max(_apart(got.double(), want) for got, want in zip(narrow, (theirs, *gradients), strict=True))
    return dataclasses.replace(error, own=own)


def _of_torch(layer: Any, x: torch.Tensor, others: tuple[torch.Tensor, ...]) -> list[torch.Tensor]:
    """PyTorch's outputs, and their gradients for the picture and for every learned number."""
    leaf = x.clone().requires_grad_()
    y = layer(leaf, *others)
    return [y.detach(), *torch.autograd.grad(y, [leaf, *layer.parameters()], uneven(y))]


def _as(numbers: np.ndarray, dtype: str) -> np.ndarray:
    """In this type, but whole numbers as they are."""
    return numbers if numbers.dtype.kind == "i" else numbers.astype(dtype)


def _apart(got: torch.Tensor, want: torch.Tensor) -> float:
    """The largest difference, relative to the largest cell of the tests or to the result, whichever is larger."""
    return float(((got - want).abs() / want.abs().clamp(min=3)).max()) if got.shape == want.shape else float("inf")


def parity(backends: Sequence[str], names: Sequence[str] | None = None) -> dict[str, list[Error]]:
    """All questions to each of the back ends."""
    asked = questions(list(poolkit.METHODS) if names is None else names)
    return {backend: ask(backend, asked) for backend in backends}


def rows(found: dict[str, list[Error]]) -> Iterator[tuple[str, str, float, dict[str, float]]]:
    """For each method and number type what is allowed, and the worst error of each back end."""
    names = dict.fromkeys(error.asked.method.card.name for errors in found.values() for error in errors)
    for name, dtype in product(names, BARS):
        mine = {
            backend: [e for e in errors if (e.asked.method.card.name, e.asked.dtype) == (name, dtype)]
            for backend, errors in found.items()
        }
        allowed = max(error.allowed for errors in mine.values() for error in errors)
        yield name, dtype, allowed, {backend: max(e.worst for e in errors) for backend, errors in mine.items()}


def markdown(found: dict[str, list[Error]], command: str) -> str:
    """The table as a page of the documentation."""
    calls = sum(map(len, found.values()))
    bars = ", ".join(f"{bar:.0e} in {dtype}" for dtype, bar in BARS.items())
    lines = [
        "# The same numbers on every back end",
        "",
        f"The largest difference of `poolkit.keras` from the scalar form of each method and from `poolkit.torch`, over "
        f"{calls:,} calls: outputs, gradients for the picture and for learned parameters and weights, draws of random "
        'methods; windows and whole maps in one, two and three dimensions, both data formats, uneven `"same"` padding '
        f"among them. Relative to the largest cell or to the result, whichever is larger. Allowed: {bars}; "
        f"where a formula on whole maps loses more in float32, {MARGIN:g} times what PyTorch's layer loses there.",
        "",
        f"Generated by `{command}`.",
        "",
        "| method | type | allowed | " + " | ".join(found) + " |",
        "|---|---|--:|" + "--:|" * len(found),
    ]
    for name, dtype, allowed, worst in rows(found):
        numbers = " | ".join(f"{number:.1e}" for number in (allowed, *(worst[b] for b in found)))
        lines.append(f"| `{name}` | {dtype} | {numbers} |")
    return "\n".join(lines) + "\n"
