"""The contracts on the layers of a method: memory, batches, state, compilation, draws."""

from __future__ import annotations

import copy
import io
import itertools
import math
import pickle  # noqa: S403 - only to test that layers can be pickled; nothing foreign is ever loaded
import random
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor

from poolkit.draws import draw_key, draw_shape, uniform
from poolkit.subject import Broken, Subject, agree, case, expected, for_channels, gradient, picture, uneven
from poolkit.xp import OneWindow


def layouts(s: Subject) -> None:
    """Views with other strides give what their contiguous copies give."""
    big = picture((9, 8), 3, 4, 6)
    views = {
        "channels-last": big.contiguous(memory_format=torch.channels_last),
        "every second channel": big[:, ::2],
        "a crop": big[1:, :, 1:-1, 2:],
        "transposed": big.transpose(2, 3),
        "expanded": big[:1, :1].expand(3, 2, 9, 8),
    }
    geometries: tuple[dict[str, Any], ...] = ({"kernel_size": 3, "stride": 2, "padding": 1}, {})
    for name, x in views.items():
        for geometry in geometries:
            layer = Subject(for_channels(s.method, x.shape[1]), s.path).on(case(*x.shape[2:], **geometry))
            agree(layer(x), layer(x.contiguous()), torch.float64, name)
            agree(gradient(layer, x), gradient(layer, x.contiguous()), torch.float64, f"gradient, {name}")
    y = s.layer(2, kernel_size=2)(picture((8, 8), 0).contiguous(memory_format=torch.channels_last))
    if not y.is_contiguous(memory_format=torch.channels_last):
        raise Broken("a channels-last picture comes out in another memory format")


def batch(s: Subject) -> None:
    """Pictures give the same in a large batch, in small ones and alone; on the engine the same bits.

    The engine computes windows side by side: pictures of extreme cells must not choose the arithmetic of the others.
    """
    x = picture((6, 5), 4, 33)
    slack: Any = torch.float64  # the vectors of PyTorch's own operators begin elsewhere in another batch
    if s.path == "cpu":
        slack, x[1::4], x[2::4] = 0.0, x[1::4] * 1e20, 0.0
    for train in (False, True) if s.method.draws else (False,):
        geometry: dict[str, Any] = {"kernel_size": 2, "padding": 1, "seed": 11, "train": train}
        whole, parts, single = (s.layer(2, **geometry) for _ in range(3))
        want = whole(x)
        again = torch.cat([parts(part) for part in x.split((16, 12, 5))])
        agree(again, want, slack, "a batch of 33 given as 16, 12 and 5")
        agree(single(x[0]), want[0], slack, "one picture without batch axis")
    if s.layer(2, kernel_size=2)(x[:0]).shape != (0, 2, 3, 2):
        raise Broken("an empty batch does not give an empty batch")


def untouched(s: Subject) -> None:
    """The input keeps its numbers, and the output has memory of its own."""
    cases = (case(4, 4, kernel_size=1), case(4, 4, kernel_size=2), case(1, 1), case(2, 2))
    for c, train in itertools.product(cases, (False, True) if s.method.draws else (False,)):
        leaves_alone(s.on(c, train=train), picture(c.sizes, 5), (), str(c))


def leaves_alone(layer: Any, x: Tensor, others: tuple[Tensor, ...], about: str) -> None:
    """One call of `untouched`."""
    before = x.clone()
    y = layer(x, *others)
    if y.untyped_storage().data_ptr() == x.untyped_storage().data_ptr():
        raise Broken(f"{about}: the output shares memory with the input")
    if not torch.equal(x, before):
        raise Broken(f"{about}: the input was changed")


def state(s: Subject) -> None:
    """Parameters exist, receive a gradient and survive copying."""
    x = picture((4, 4), 6)
    layer = s.layer(2, kernel_size=2)
    names = [name for name, _ in layer.named_parameters()]
    if names != [f"raw_{name}" for name in s.method.learned]:
        raise Broken(f"parameters after construction: {names}, declared as learned: {list(s.method.learned)}")
    layer.requires_grad_(True)
    want = layer(x)
    if names:
        (want * uneven(want)).sum().backward()
        if any(p.grad is None or not bool(p.grad.abs().sum() > 0) for p in layer.parameters()):
            raise Broken("a learned parameter receives no gradient")
    fresh = s.layer(2, kernel_size=2)
    fresh.load_state_dict(layer.state_dict())
    copies = {"state_dict": fresh, "deepcopy": copy.deepcopy(layer), "pickle": _pickled(layer)}
    for name, other in copies.items():
        agree(other(x), want, 0.0, name)


def _pickled(layer: Any) -> Any:
    return pickle.load(io.BytesIO(pickle.dumps(layer)))  # noqa: S301 - our own bytes, made in this line


def repeats(s: Subject) -> None:
    """Bit for bit the same again, with one and two threads; a hundred times where threads of ours are at work."""
    x = picture((48, 48), 8, 4, 4)  # enough cells for a second thread
    layer = Subject(for_channels(s.method, 4), s.path).layer(2, kernel_size=3, stride=2, padding=1)
    want, threads = (layer(x), gradient(layer, x)), torch.get_num_threads()

    def again(before: tuple[Tensor, Tensor]) -> bool:
        return torch.equal(layer(x), before[0]) and torch.equal(gradient(layer, x), before[1])

    if not again(want):
        raise Broken(_NO_FUNCTION)
    try:
        for run in range(100 if s.path == "cpu" else 4):
            count = 1 + run % 2
            torch.set_num_threads(count)
            if not again(want):
                here = (layer(x), gradient(layer, x))
                raise Broken(f"another result with {count} threads" if again(here) else _NO_FUNCTION)
    finally:
        torch.set_num_threads(threads)


_NO_FUNCTION = (
    "two calls with the same cells differ: the result must depend on cells and parameters alone; what is drawn at "
    "random comes as u into sample(w, p, u)"
)


def generators(s: Subject) -> None:
    """Nothing is drawn from a global generator, but the one key of a call of a random layer without a seed."""
    x = picture((6, 5), 11)
    undisturbed(s.layer(2, kernel_size=2), x, (), "in evaluation")
    if s.method.draws:
        undisturbed(s.layer(2, kernel_size=2, train=True, seed=1), x, (), "in training with a seed")
    undisturbed(s.layer(2, kernel_size=2, train=True), x, (), "in training", keys=int(bool(s.method.draws)))


def undisturbed(layer: Any, x: Tensor, others: tuple[Tensor, ...], about: str, keys: int = 0) -> None:
    """A call and its backward pass leave the global generators as they were, but for torch's next keys."""
    kept = _states()
    try:
        for draw in (lambda: torch.rand(3), lambda: np.random.random_sample(3), random.random):
            draw()  # no seed leads here: a method that seeds a generator must be seen, whatever its seed
        start = _states()
        for _ in range(keys):
            draw_key(x, 0)
        want = _states()
        _set_states(start)
        y = layer(x.clone().requires_grad_(), *others)
        _same_states(want, f"the forward pass {about}")
        y.sum().backward()
        _same_states(want, f"the backward pass {about}")
    finally:
        _set_states(kept)


def _states() -> dict[str, Any]:
    """The states of the generators that programs share, by whose they are."""
    return {"torch": torch.get_rng_state().numpy(), "NumPy": np.random.get_state(), "Python": random.getstate()}


def _set_states(states: dict[str, Any]) -> None:
    torch.set_rng_state(torch.from_numpy(states["torch"]))
    np.random.set_state(states["NumPy"])
    random.setstate(states["Python"])


def _same_states(want: dict[str, Any], about: str) -> None:
    """The generators stand where they are wanted to."""
    now = _states()
    touched = [name for name in want if pickle.dumps(now[name]) != pickle.dumps(want[name])]
    if touched:
        raise Broken(
            f"{about} changes the state of {' and '.join(touched)}'s global random numbers: "
            "what is drawn must come as u into sample, and nothing may be seeded"
        )


def compiled(s: Subject) -> None:
    """One graph without breaks gives what eager code gives."""
    for train in (False, True) if s.method.draws else (False,):
        torch.compiler.reset()
        layer = s.layer(2, kernel_size=3, stride=2, padding=1, train=train)
        # Compiling such a layer would fail too, with a message that says less.
        undisturbed(layer, picture((5, 5), 9), (), "before compiling", keys=int(train))
        fast = torch.compile(layer, fullgraph=True, backend="aot_eager")
        found = []
        for call in (layer, fast):
            torch.manual_seed(5)
            x = picture((5, 5), 9).requires_grad_()
            y = call(x)  # once, for value and gradient: another call would be another graph to compile
            found.append((y, torch.autograd.grad(y, [x, *layer.parameters()], uneven(y))))
        (want, slopes), (got, compiled_slopes) = found
        about = ", training" if train else ""
        agree(got, want, torch.float64, f"compiled{about}")
        for slope, compiled_slope in zip(slopes, compiled_slopes, strict=True):
            agree(compiled_slope, slope, torch.float64, f"compiled gradient{about}")


def seeds(s: Subject) -> None:
    """Draws follow their seed and the scalar form; evaluation draws nothing."""
    if not s.method.draws:
        return
    c = case(6, 6, kernel_size=3, stride=2, padding=1)
    x = picture(c.sizes, 10).abs()
    follows_its_seed(lambda seed: s.on(c, seed=seed, train=True), x)
    quiet = s.on(c)
    if not torch.equal(quiet(x), quiet(x)):
        raise Broken("two calls in evaluation differ")
    layer = s.on(c, seed=4, train=True)
    got = layer(x)
    u = uniform(torch.tensor(layer._seed_key), 0, draw_shape(s.method.draws, tuple(got.shape)))
    agree(got, expected(layer, x, c.window, u.double()), torch.float64, f"training, {c}")


def follows_its_seed(make: Callable[[int | None], Any], x: Tensor, others: tuple[Tensor, ...] = ()) -> None:
    """Layers that `make` makes with a seed draw the same if it is the same, torch's or their own, and else not."""
    for seed in (None, 3):
        results = []
        for number in (1, 1, 2):
            torch.manual_seed(number)
            results.append(make(None if seed is None else seed + number)(x, *others))
        if not torch.equal(results[0], results[1]):
            raise Broken("the same seed gives another result")
        if torch.equal(results[0], results[2]):
            raise Broken("another seed gives the same result")


def distribution(s: Subject) -> None:
    """Frequencies of 20,000 draws against the oracle's own probabilities, found by walking u through [0, 1) evenly."""
    if not s.method.draws:
        return
    count, steps = 20_000, 4096
    for cells in ([1.0, 4.0, 3.0, 2.0], [0.0, 0.0, 5.0, 5.5], [0.1, 0.2, 0.0, 7.0]):
        one, p = OneWindow.of(cells), s.method.values()
        want: dict[float, float] = {}
        for i in range(steps):
            y = round(s.method.oracle_sample(one, p, (i + 0.5) / steps), 9)
            want[y] = want.get(y, 0.0) + 1 / steps
        x = torch.tensor(cells, dtype=torch.float64).expand(count, 2, 4)
        got = s.layer(1, kernel_size=4, seed=1, train=True)(x)[:, 0].flatten().round(decimals=9)
        for y in sorted({*want, *got.tolist()}):
            share, found = want.get(y, 0.0), float((got == y).double().mean())
            # Five and a half standard deviations: wrong by chance once in 10⁷, and the seed is fixed.
            if abs(found - share) > 5.5 * math.sqrt(share * (1 - share) / count) + 1 / steps:
                raise Broken(f"window {cells}: {y} drawn with frequency {found:.4f}, probability {share:.4f}")
