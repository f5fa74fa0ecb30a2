"""The contracts on methods on whole maps: functions that raise `Broken` with the smallest example they found."""

from __future__ import annotations

import copy
import io
import math
import pickle  # noqa: S403 - only to test that layers can be pickled; nothing foreign is ever loaded
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor

from poolkit.contracts import card as window_card
from poolkit.contracts import differences, elsewhere, refused, well_shaped
from poolkit.draws import uniform
from poolkit.layer_contracts import follows_its_seed, leaves_alone, undisturbed
from poolkit.map_layers import WORDS, MapLayer
from poolkit.map_method import Map, MapMethod
from poolkit.map_subject import MapSubject, expected
from poolkit.map_words import numpy_map_words
from poolkit.method import Method, Values, parse
from poolkit.methods import METHODS
from poolkit.subject import Broken, agree, gradient, uneven


def card(s: MapSubject) -> None:
    """The card is complete, every parameter says what it does, and the spelling reads back."""
    window_card(s)  # type: ignore[arg-type]
    if len(s.cases) < 3:
        raise Broken("fewer than three of the cases can be served: the contracts would show little")


def shape(s: MapSubject) -> None:
    """The array formula answers with a tensor of the shape that the method says."""
    c = s.some()
    layer, x, others = s.layer(c), s.maps(c, 0), s.others(c)
    m = Map(x, WORDS, layer.window, **dict(zip(s.method.takes, others, strict=False)))
    p = Values(**{**vars(s.method.values()), **layer.learned(), **layer.weights()})
    want = (x.shape[0], *s.method.output_shape(s.shape(c)))
    well_shaped("pool", s.method.pool(m, p), want)
    if s.method.random:
        u = uniform(torch.tensor(1), 0, (x.shape[0], *s.method.draw_shape(m.shape))).double()
        well_shaped("sample", s.method.sample(m, p, u), want)


def oracle(s: MapSubject) -> None:
    """The layer's numbers against the scalar form, for small and large cells."""
    for number, c in enumerate(s.cases):
        scale = (1.0, 1e-3, 1e3)[number % 3]
        x, layer, others = scale * s.maps(c, number), s.layer(c), s.others(c)
        agree(layer(x, *others), expected(layer, x, others), torch.float64, f"{c}, cells up to {3 * scale:g}")


def numpy(s: MapSubject) -> None:
    """The array formula with NumPy's words against torch's."""
    for number, c in enumerate(s.cases):
        x, layer, others = s.maps(c, number), s.layer(c), s.others(c)
        named = {n: v.numpy() for n, v in zip(s.method.takes, others, strict=False)}
        m = Map(x.numpy(), numpy_map_words(), layer.window, **named)
        p = s.method.values(**{n: v.detach().numpy() for n, v in layer.learned().items()})
        for name, weight in layer.weights().items():
            setattr(p, name, weight.detach().numpy())
        want = layer(x, *others)
        got = np.broadcast_to(s.method.pool(m, p), tuple(want.shape))
        agree(torch.from_numpy(got.copy()), want, torch.float64, str(c))


def shapes(s: MapSubject) -> None:
    """Wrong types and ranks are refused with a message."""
    c = s.some()
    x, layer, others = s.maps(c, 0), s.layer(c), s.others(c)
    for dtype in (torch.int64, torch.bool, torch.complex64):
        refused(TypeError, partial(layer, x.to(dtype), *others), f"{dtype} cells")
    refused(ValueError, partial(layer, x[0, 0], *others), "a map without channels")
    refused(ValueError, partial(layer, x[None], *others), "an axis too many")
    refused(ValueError, partial(layer, x[..., :0], *others), "a map without cells")
    more = (x,) * (len(s.method.takes) - len(others) + 1)
    refused(TypeError, partial(layer, x, *others, *more), "an input too many")


def gradient_contract(s: MapSubject) -> None:
    """The gradient against finite differences, for the input and for every weight."""
    _gradcheck(s, torch.autograd.gradcheck)


def second_gradient(s: MapSubject) -> None:
    """The second gradient against finite differences of the first."""
    _gradcheck(s, torch.autograd.gradgradcheck)


def _gradcheck(s: MapSubject, test: Any) -> None:
    small = [c for c in s.cases if 2 <= math.prod(c.sizes) <= 32][:3]
    for number, c in enumerate(small):
        for train in (False, True) if s.method.random else (False,):
            layer, others = s.layer(c, seed=number if train else None, train=train), s.others(c, 1)
            values = [p.detach().clone().requires_grad_() for p in layer.parameters()]

            def call(x: Tensor, *parameters: Tensor, layer: Any = layer, others: Any = others) -> Any:
                given = dict(zip((n for n, _ in layer.named_parameters()), parameters, strict=True))
                if layer.seed is not None:
                    layer.seen.zero_()
                return torch.func.functional_call(layer, given, (x, *others))

            x, about = s.maps(c, number, 1), f"{c}{', training' if train else ''}"
            with torch.random.fork_rng(devices=[]):
                torch.manual_seed(0)  # of the directions that are tried
                differences(test, call, x, values, about, fast_mode=True)
                if c is small[-1] and test is torch.autograd.gradcheck:
                    elsewhere(call, x, values, about)


def finite(s: MapSubject) -> None:
    """No infinity and no NaN, forward or backward, from zero, constant, negative and ±10⁴ maps."""
    c = s.some()
    for dtype in (torch.float32, torch.float16):
        for train in (False, True) if s.method.random else (False,):
            layer = s.layer(c, seed=1 if train else None, train=train).to(torch.float32)
            ramp = s.maps(c, 3).float()
            kinds = (0 * ramp, 0 * ramp + 1, 0 * ramp - 1, -ramp.abs(), ramp * 1e4 / 3, -1e4 + 0 * ramp)
            for number, x in enumerate(kinds):
                leaf = x.to(dtype).requires_grad_()
                y = layer(leaf, *s.others(c))
                if dtype == torch.float16 and not bool((y.abs() < 6e4).all()):
                    continue  # beyond the largest number of the type
                slopes = torch.autograd.grad(y.float().sum(), [leaf, *layer.parameters()], allow_unused=True)
                for value in (y, *slopes):
                    if value is not None and not bool(value.isfinite().all()):
                        raise Broken(f"{dtype}, map {number} of zero, ±1, negative, ±10⁴: not finite")


def nan(s: MapSubject) -> None:
    """A NaN shows in its example, and stays in it and, where channels do not mix, in its channel."""
    c = s.some()
    x, layer, others = s.maps(c, 1), s.layer(c), s.others(c)
    want = layer(x, *others)
    shown = 0
    for place in ((0,) * c.dims, tuple(n // 2 for n in c.sizes)):
        hurt = x.clone()
        hurt[1, 2][place] = math.nan
        got = layer(hurt, *others)
        agree(got[0], want[0], torch.float64, f"NaN at {place} of another example")
        if s.method.keeps_channels_apart and got.shape[1] == x.shape[1]:
            keep = [c for c in range(x.shape[1]) if c != 2]
            agree(got[1, keep], want[1, keep], torch.float64, f"NaN at {place} of another channel")
        shown += int(bool(got[1].isnan().any()))
    if not shown:
        raise Broken("a NaN in the input does not show in the output")


def precision(s: MapSubject) -> None:
    """Narrow types against float64."""
    for dtype in (torch.float32, torch.float16, torch.bfloat16):
        for number, c in enumerate(s.cases[-3:]):
            x, layer, others = s.maps(c, number).to(dtype), s.layer(c), s.others(c)
            for parameter in layer.parameters():
                parameter.data = parameter.data.float().double()  # the same weights in both
            want, got = layer(x.double(), *others), layer.float()(x, *others)
            if got.dtype != dtype:
                raise Broken(f"{dtype} in, {got.dtype} out")
            agree(got, want, dtype, f"{dtype}, {c}")


def layouts(s: MapSubject) -> None:
    """Views with other strides give what their contiguous copies give, forward and backward."""
    c = s.some()
    x, layer, others = s.maps(c, 3, 4), s.layer(c), s.others(c, 4)
    big = torch.stack([x, x + 1], -1)
    views = {"every second cell": big[..., 0], "channels innermost": x.movedim(1, -1).contiguous().movedim(-1, 1)}
    for name, view in views.items():
        agree(layer(view, *others), layer(x, *others), torch.float64, name)
        slopes = [gradient(lambda v: layer(v, *others), each) for each in (view, x)]
        agree(slopes[0], slopes[1], torch.float64, f"gradient, {name}")
    if c.dims == 2 and layer(x, *others).dim() == 4:
        y = layer(x.contiguous(memory_format=torch.channels_last), *others)
        if not y.is_contiguous(memory_format=torch.channels_last):
            raise Broken("a channels-last map comes out in another memory format")


def batch(s: MapSubject) -> None:
    """Maps give the same in a large batch, in small ones and alone."""
    c = s.some()
    x, others = s.maps(c, 4, 7), s.others(c, 7)
    for train in (False, True) if s.method.random else (False,):
        whole, parts, single = (s.layer(c, seed=11, train=train) for _ in range(3))
        parts.load_state_dict(whole.state_dict())
        single.load_state_dict(whole.state_dict())
        want = whole(x, *others)
        cuts = ((0, 3), (3, 4), (4, 7))
        again = torch.cat([parts(x[a:b], *(v[a:b] for v in others)) for a, b in cuts])
        agree(again, want, torch.float64, "a batch of 7 given as 3, 1 and 3")
        agree(single(x[0], *(v[0] for v in others)), want[0], torch.float64, "one map without batch axis")
    empty = s.layer(c)(x[:0], *(v[:0] for v in others))
    if tuple(empty.shape) != (0, *want.shape[1:]):
        raise Broken(f"an empty batch gives the shape {tuple(empty.shape)}")


def untouched(s: MapSubject) -> None:
    """The input keeps its numbers, and the output has memory of its own."""
    for c in s.cases:
        leaves_alone(s.layer(c), s.maps(c, 5), s.others(c), str(c))


def facts(s: MapSubject) -> None:
    """Every fact of the card."""
    for number, c in enumerate(s.cases):
        layer, others = s.layer(c), s.others(c)

        def f(v: Any, layer: MapLayer = layer, others: Any = others) -> Any:
            return layer(torch.from_numpy(np.ascontiguousarray(v)), *others).detach().numpy()

        x = s.maps(c, number)
        x = x.abs() if s.method.card.domain == "nonnegative" else x
        for fact in s.method.card.facts:
            if not np.all(fact.holds(f, x.numpy(), 1e-9)):
                raise Broken(f'"{fact.sentence}" fails for {c}')


def identities(s: MapSubject) -> None:
    """The pairs of spellings on the card give the same numbers in evaluation."""
    known: dict[str, type[Method]] = {**METHODS, s.method.card.name: type(s.method)}
    for pair in s.method.card.same:
        one, other = (parse(text, known) for text in pair)
        tried = 0
        for number, c in enumerate(s.cases):
            x = s.maps(c, number)
            x = x.abs() if s.method.card.domain == "nonnegative" else x
            layers = [_plain_layer(m, c) for m in (one, other)]
            # Cells outside the picture count for window methods in no way, for map methods in their own.
            if None in layers or (c.geometry and any(a.reaches_out for a in c.window.axes(c.sizes))):
                continue
            a, b = (layer(x) for layer in layers)
            agree(a.reshape(b.shape) if a.numel() == b.numel() else a, b, 1e-9, f"{pair[0]} against {pair[1]}, {c}")
            tried += 1
        if not tried:
            raise Broken(f"no case fits both {pair[0]} and {pair[1]}")


def _plain_layer(method: Method, c: Any) -> Any:
    """A layer for a case, global where a method on windows has none, or None where the method cannot serve it."""
    import poolkit.torch as face

    if isinstance(method, MapMethod):
        subject = MapSubject(method)
        return subject.layer(c).eval() if c in subject.cases else None
    kind = "Pool" if c.geometry else "GlobalPool"
    return getattr(face, f"{kind}{c.dims}d")(method, **dict(c.geometry)).double().eval()


def state(s: MapSubject) -> None:
    """Weights exist, receive a gradient and survive state_dict, pickle and deepcopy."""
    c = s.some()
    # Large cells of both signs, so that no unit of a small network stays shut for all of them.
    x = torch.cat([s.maps(c, 6, 4), -10 * s.maps(c, 7, 4)])
    layer, others = s.layer(c), s.others(c, 8)
    declared = {n for n, w in s.method.weights(s.shape(c)).items() if w.learned}
    names = {name for name, _ in layer.named_parameters()}
    if names != declared | {f"raw_{name}" for name in s.method.learned}:
        raise Broken(f"parameters after construction: {sorted(names)}, declared: {sorted(declared)}")
    y = layer(x, *others)
    (y * uneven(y)).sum().backward() if names else None
    for name, parameter in layer.named_parameters():
        if parameter.grad is None or not bool(parameter.grad.abs().sum() > 0):
            raise Broken(f"{name} receives no gradient")
    fresh = s.layer(c)
    fresh.reset_parameters()
    fresh.load_state_dict(layer.state_dict())
    pickled = pickle.load(io.BytesIO(pickle.dumps(layer)))  # noqa: S301 - our own bytes, made in this line
    for name, other in {"state_dict": fresh, "pickle": pickled, "deepcopy": copy.deepcopy(layer)}.items():
        agree(other(x, *others), y, 0.0, name)


def generators(s: MapSubject) -> None:
    """Nothing is drawn from a global generator, but the one key of a call of a random layer without a seed."""
    c = s.some()
    x, others, random = s.maps(c, 8), s.others(c), s.method.random
    undisturbed(s.layer(c), x, others, "in evaluation")
    if random:
        undisturbed(s.layer(c, train=True, seed=1), x, others, "in training with a seed")
    undisturbed(s.layer(c, train=True), x, others, "in training", keys=int(random))


def repeats(s: MapSubject) -> None:
    """Bit for bit the same again."""
    c = s.some()
    x, layer, others = s.maps(c, 8, 4), s.layer(c), s.others(c, 4)
    first, second = ((layer(x, *others), gradient(lambda v: layer(v, *others), x)) for _ in range(2))
    if not (torch.equal(first[0], second[0]) and torch.equal(first[1], second[1])):
        raise Broken("another result for the same input")


def exported(s: MapSubject) -> None:
    """torch.export traces the layer in evaluation, and the exported graph gives the same."""
    c = s.some()
    x, layer, others = s.maps(c, 9), s.layer(c), s.others(c)
    # Exporting such a layer would fail too, with a message that says less.
    undisturbed(layer, x, others, "before exporting")
    graph = torch.export.export(layer.eval(), (x, *others), strict=False).module()
    agree(graph(x, *others), layer(x, *others), torch.float64, f"exported, {c}")


def seeds(s: MapSubject) -> None:
    """Draws follow their seed and the scalar form; evaluation draws nothing."""
    c = s.some(least=6)
    x, others = s.maps(c, 10, 6), s.others(c, 6)
    quiet = s.layer(c)
    if not torch.equal(quiet(x, *others), quiet(x, *others)):
        raise Broken("two calls in evaluation differ")
    if not s.method.random:
        if not torch.equal(quiet.train()(x, *others), quiet.eval()(x, *others)):
            raise Broken("training differs from evaluation, yet nothing is drawn")
        return
    follows_its_seed(lambda seed: s.layer(c, seed=seed, train=True), x, others)
    for number, each in enumerate(s.cases):
        layer, x, others = s.layer(each, seed=number, train=True), s.maps(each, number), s.others(each)
        got = layer(x, *others)
        u = uniform(torch.tensor(layer._seed_key), 0, (x.shape[0], *s.method.draw_shape(s.shape(each))))
        agree(got, expected(layer, x, others, u.double()), torch.float64, f"training, {each}")
