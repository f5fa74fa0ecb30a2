"""Methods as values: spelled, read back, compared, and refused with words that help."""

from __future__ import annotations

import copy
import dataclasses
import itertools
import json
import pickle
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import poolkit
from poolkit import METHODS, AvgTopK, Card, GeM, Lp, Max, Mixed, Soft, learn, method, param
from poolkit.method import Learn, Method, Param, Values, WindowMethod


def variants() -> list[Method]:
    """Every method with its defaults and with each value that it declares worth trying, learned ones included."""
    found: list[Method] = []
    for cls in METHODS.values():
        found.append(cls())
        for name, declared in cls.params().items():
            found += [cls(**{name: value}) for value in declared.tries]
            if declared.learnable:
                one = 0.25 if declared.high is not None and declared.high <= 1 else 2.5
                found += [
                    cls(**{name: value}) for value in (learn(), learn(one), learn(channels=7), learn(one, channels=3))
                ]
    return found


VARIANTS = variants()


@pytest.mark.parametrize("one", VARIANTS, ids=str)
def test_a_spelling_reads_back_as_the_same_method(one: Method) -> None:
    again = method(one.spelling)
    assert again == one
    assert hash(again) == hash(one)
    assert again.spelling == one.spelling == str(one)
    assert type(again) is type(one)


def test_two_methods_are_equal_exactly_if_their_spellings_are() -> None:
    for one, other in itertools.combinations(VARIANTS, 2):
        assert (one == other) == (one.spelling == other.spelling)


@pytest.mark.parametrize("one", VARIANTS, ids=str)
def test_a_repr_reads_back_as_python(one: Method) -> None:
    assert eval(repr(one), vars(poolkit)) == one  # noqa: S307 - our own text


@given(beta=st.floats(-1000, 1000))
def test_every_finite_number_survives_its_spelling(beta: float) -> None:
    assert method(Soft(beta=beta).spelling) == Soft(beta=beta)


@given(start=st.floats(-1000, 1000), channels=st.none() | st.integers(1, 10**6))
def test_every_learned_start_survives_its_spelling(start: float, channels: int | None) -> None:
    one = Soft(beta=learn(start, channels=channels))
    assert method(one.spelling) == one


@pytest.mark.parametrize(
    ("spelling", "want"),
    [
        ("max", Max()),
        (" soft:beta=2 ", Soft(beta=2)),
        ("soft:beta=2.0,grad=detached", Soft(beta=2, grad="detached")),
        ("soft:grad=detached,beta=2", Soft(beta=2, grad="detached")),
        ("soft:beta=-2e-3", Soft(beta=-0.002)),
        ("soft:beta=learn", Soft(beta=learn())),
        ("soft:beta=learn@-2x64", Soft(beta=learn(-2, channels=64))),
        ("gem:p=learnx8", GeM(p=learn(channels=8))),
        ("lp:p=learn@1e+20", Lp(p=learn(1e20))),
        ("avg:count_include_pad=true", poolkit.Avg(count_include_pad=True)),
        ("avg:count_include_pad=False", poolkit.Avg()),
        ("avg-topk:k=5", AvgTopK(k=5)),
        ("mixed:per=region", Mixed(per="region")),
        ("soft:", Soft()),
    ],
)
def test_spellings_by_hand(spelling: str, want: Method) -> None:
    assert method(spelling) == want


def test_a_spelling_names_only_what_is_not_the_default() -> None:
    assert Soft().spelling == "soft"
    assert Soft(beta=1).spelling == "soft"
    assert Soft(beta=2).spelling == "soft:beta=2"
    assert Soft(beta=learn(2, channels=8)).spelling == "soft:beta=learn@2x8"


def test_a_method_is_returned_as_it_is() -> None:
    one = Soft(beta=3)
    assert method(one) is one


@pytest.mark.parametrize(
    ("spelling", "says"),
    [
        ("sotf", ['no pooling method "sotf"', "nearest: soft", "poolkit list"]),
        ("avgtopk", ["nearest: avg-topk"]),
        ("", ['no pooling method ""']),
        ("Max", ['no pooling method "Max"', "nearest: max"]),
        ("SOFT", ['no pooling method "SOFT"', "nearest: soft"]),
        *((name, ["nearest: avg-topk"]) for name in ("avg_topk", "AvgTopK", "Avg-TopK", "AVG TOPK:k=2")),
        ("soft:BETA=2", ['"soft" has no parameter "BETA"', "nearest: beta"]),
        ("soft:grad=EXACT", ["exact | detached", "nearest: exact"]),
        ("avg:count-include-pad=true", ["nearest: count_include_pad"]),
        ("soft:bta=2", ['"soft" has no parameter "bta"', "nearest: beta", "its parameters: beta, grad"]),
        ("max:k=2", ['"max" has no parameter "k"', "its parameters: none"]),
        ("soft:beta", ['"beta" in "soft:beta" has no value', "write soft:beta=VALUE", "number from -1000 to 1000"]),
        ("soft:beta=", ["has no value"]),
        ("soft:beta=1,beta=2", ['"beta" is given twice']),
        ("soft:beta=two", ["Soft(beta='two')", "number from -1000 to 1000", "any finite number), or learn(…)"]),
        ("soft:beta=nan", ["any finite number"]),
        ("soft:beta=inf", ["any finite number"]),
        ("soft:beta=1e300", ["number from -1000 to 1000"]),
        ("soft:beta=-1001", ["number from -1000 to 1000"]),
        ("soft:beta=learn@1001", ["number from -1000 to 1000"]),
        ("soft:grad=exakt", ["exact | detached", "nearest: exact"]),
        ("avg-topk:k=0", ["integer from 1 to 2147483647"]),
        ("avg-topk:k=2.5", ["integer from 1"]),
        ("avg-topk:k=learn", ["this parameter cannot be learned", "integer from 1"]),
        ("lp:p=0.5", ["number ≥ 1"]),
        ("lp:p=learn@1", ["number ≥ 1", "starts inside the range"]),
        ("avg:count_include_pad=1", ["true | false"]),
        ("soft:beta=learnx0", ["positive integer"]),
    ],
)
def test_a_wrong_spelling_is_refused_with_what_is_allowed(spelling: str, says: list[str]) -> None:
    with pytest.raises(ValueError) as refused:
        method(spelling)
    assert all(part in str(refused.value) for part in says), str(refused.value)


@pytest.mark.parametrize("thing", [None, 3, ["soft"], Soft, b"soft"])
def test_what_is_neither_method_nor_spelling_is_a_type_error(thing: Any) -> None:
    with pytest.raises(TypeError, match='expected a method such as Soft\\(\\) or a spelling such as "soft:beta=2"'):
        method(thing)


@pytest.mark.parametrize("value", ["2", None, True, float("nan"), float("inf"), [1.0], 10**400, 1j])
def test_a_wrong_number_is_refused_at_construction(value: Any) -> None:
    with pytest.raises(ValueError, match=r"Soft\(beta=.*\) is not allowed"):
        Soft(beta=value)


@pytest.mark.parametrize("value", [2.0, True, 0, -1, 2**31, "2", None])
def test_a_wrong_count_is_refused_at_construction(value: Any) -> None:
    with pytest.raises(ValueError, match="integer from 1 to 2147483647"):
        AvgTopK(k=value)


@pytest.mark.parametrize("arguments", [{"start": float("nan")}, {"start": "1"}, {"start": True}, {"start": 10**400}])
def test_learn_refuses_a_start_that_is_no_finite_number(arguments: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="the start must be a finite number"):
        learn(**arguments)


@pytest.mark.parametrize("kind", [np.float64, np.float32, np.float16, np.int64, np.uint8])
def test_numpy_scalars_are_numbers(kind: Any) -> None:
    one = Soft(beta=kind(2))
    assert one == Soft(beta=2.0) and type(one.beta) is float and one.spelling == "soft:beta=2"
    learned = Soft(beta=learn(kind(2), channels=np.int32(3)))
    assert learned == Soft(beta=learn(2.0, channels=3)) and repr(learned.beta) == "learn(2.0, channels=3)"
    if issubclass(kind, np.integer):
        assert AvgTopK(k=kind(3)) == AvgTopK(k=3) and type(AvgTopK(k=kind(3)).k) is int


@pytest.mark.parametrize("value", [np.bool_(True), np.float32("nan"), np.array([2.0, 3.0])])
def test_what_numpy_has_besides_numbers_is_refused(value: Any) -> None:
    with pytest.raises(ValueError, match="is not allowed"):
        Soft(beta=value)
    with pytest.raises(ValueError, match="integer from 1"):
        AvgTopK(k=value)


@pytest.mark.parametrize("channels", [0, -1, 1.0, True, "3"])
def test_learn_refuses_what_is_no_number_of_channels(channels: Any) -> None:
    with pytest.raises(ValueError, match="must be a positive integer"):
        learn(channels=channels)


@pytest.mark.parametrize("one", VARIANTS, ids=str)
def test_methods_are_frozen_hashable_picklable_and_copyable(one: Method) -> None:
    assert pickle.loads(pickle.dumps(one)) == one  # noqa: S301 - our own bytes
    assert copy.deepcopy(one) == one
    assert {one: 1}[copy.copy(one)] == 1
    for name in one.params():
        with pytest.raises(dataclasses.FrozenInstanceError):
            setattr(one, name, 1)


def test_numbers_are_kept_in_their_declared_type() -> None:
    assert isinstance(Soft(beta=2).beta, float)
    assert isinstance(AvgTopK(k=3).k, int)
    assert Soft(beta=learn()).beta == Learn(1.0)


def test_learned_parameters_and_values() -> None:
    one = GeM(p=learn(2.5, channels=4), eps=1e-3)
    assert one.learned == {"p": Learn(2.5, 4)}
    assert (one.values().p, one.values().eps) == (2.5, 1e-3)
    assert one.values(p=9.0).p == 9.0
    with pytest.raises(AttributeError, match='no parameter "beta"'):
        _ = one.values().beta


@pytest.mark.parametrize(
    ("declared", "words"),
    [
        (Param(1.0), "any finite number"),
        (Param(2), "any finite integer"),
        (Param(2.0, low=1.0), "number ≥ 1"),
        (Param(0.5, low=0.0, high=1.0), "number from 0 to 1"),
        (Param(0.5, high=1.0), "number ≤ 1"),
        (Param(2, low=1, high=9), "integer from 1 to 9"),
        (
            Param(0.0, low=-1, high=1, learnable=True, learns_freely=True),
            "number from -1 to 1 (while it is learned: any finite number)",
        ),
        (Param(False), "true | false"),
        (Param("a", choices=("a", "b")), "a | b"),
    ],
)
def test_a_range_in_words(declared: Param, words: str) -> None:
    assert declared.range == words


def test_a_range_is_closed_for_fixed_and_open_for_learned_values() -> None:
    declared = Param(0.5, low=0.0, high=1.0, learnable=True)
    assert [declared.accept(v) for v in (0, 1, 0.25)] == [0.0, 1.0, 0.25]
    for edge in (0.0, 1.0):
        with pytest.raises(ValueError, match="starts inside the range"):
            declared.accept(learn(edge))
    free = Param(0.5, low=0.0, high=1.0, learnable=True, learns_freely=True)
    assert [free.accept(learn(v)).start for v in (0, 1)] == [0.0, 1.0]


def test_a_method_of_ones_own_needs_no_registration() -> None:
    @dataclasses.dataclass(frozen=True)
    class Middle(WindowMethod):
        """The mean of the largest and the smallest cell."""

        share: float = param(0.5, low=0.0, high=1.0, says="weight of the largest")
        card = Card("middle", "Middle", "y = (max + min)/2", "nobody", "selection")

    assert Middle(share=0.25).spelling.startswith("test_method:") and Middle(share=0.25).spelling.endswith(
        "Middle:share=0.25"
    )
    assert Middle().draws is None
    with pytest.raises(NotImplementedError):
        Middle().reduce(None, Values())  # type: ignore[arg-type]


def test_importing_poolkit_imports_no_array_library() -> None:
    program = (
        "import json, sys, poolkit; poolkit.method('soft:beta=2').spelling; poolkit.window(2, dims=2);"
        "print(json.dumps(sorted({m.partition('.')[0] for m in sys.modules})))"
    )
    source = str(Path(poolkit.__file__).parents[1])
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True, env={"PYTHONPATH": source}
    )
    assert not {"torch", "numpy", "keras", "typer", "rich"} & set(json.loads(done.stdout))


def test_every_public_name_exists_and_is_documented() -> None:
    for name in poolkit.__all__:
        thing = getattr(poolkit, name)
        if callable(thing):
            assert (thing.__doc__ or "").strip(), name
