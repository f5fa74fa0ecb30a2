"""Multi-scale orderless pooling: against its equation in plain loops, in scikit-learn's hands, and on a trained net."""

import doctest
import json
import math
import re
import runpy
import sys
import warnings
from pathlib import Path

import numpy as np
import pytest
import safetensors.numpy
import torch
from sklearn.base import clone
from sklearn.exceptions import NotFittedError
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.utils import estimator_checks

from poolkit.lab import mop
from poolkit.lab.mop import MultiScaleOrderlessPooling

pytestmark = pytest.mark.usefixtures("one_thread")
EXAMPLE = Path(__file__).parents[1] / "examples" / "mop.py"


def some(n=24, c=5, size=8, seed=0):
    return np.random.default_rng(seed).normal(size=(n, c, size, size)).astype(np.float32)


def windows(picture, side, step):
    """The means of the windows of one picture (C, H, W), in plain loops."""
    c, height, width = picture.shape
    return [
        [float(picture[k, i : i + side, j : j + side].mean()) for k in range(c)]
        for i in range(0, height - side + 1, step)
        for j in range(0, width - side + 1, step)
    ]


def vlad(patches, centres, sigma, nearest):
    """The equation, one patch and one centre at a time."""
    v = [[0.0] * len(centres[0]) for _ in centres]
    for x in patches:
        squares = [sum((a - b) ** 2 for a, b in zip(x, c, strict=True)) for c in centres]
        near = sorted(range(len(centres)), key=lambda k: squares[k])[:nearest]
        shares = {k: math.exp(-squares[k] / (2 * sigma**2)) if nearest > 1 else 1.0 for k in near}
        for k in near:
            a = shares[k] / sum(shares.values())
            v[k] = [total + a * (p - q) for total, p, q in zip(v[k], x, centres[k], strict=True)]
    flat = [math.copysign(math.sqrt(abs(value)), value) for row in v for value in row]
    length = math.sqrt(sum(value**2 for value in flat))
    return [value / length for value in flat]


@pytest.mark.parametrize(("assignment", "nearest"), [("soft", 3), ("hard", 1)])
def test_each_scale_is_the_equation(assignment, nearest):
    x = some()
    pooling = MultiScaleOrderlessPooling(
        scales=(0.5,), stride=0.25, clusters=4, assignment=assignment, nearest=3, sigma=0.3, components=3
    ).fit(x)
    (level,) = pooling.levels_
    got = pooling.transform(x)
    for picture, vector in zip(x, got, strict=True):
        described = np.array(windows(picture, 4, 2))
        assert len(described) == 9
        reduced = (described - level.patches.mean) @ level.patches.directions.T
        z = vlad(reduced.tolist(), level.centres.tolist(), 0.3, nearest)
        assert vector == pytest.approx((np.array(z) - level.vectors.mean) @ level.vectors.directions.T, abs=1e-4)


def test_the_scale_1_is_the_global_average_of_length_one():
    x = some()
    got = MultiScaleOrderlessPooling(scales=(1.0,)).fit_transform(x)
    means = x.mean((2, 3))
    assert got == pytest.approx(means / np.linalg.norm(means, axis=1, keepdims=True), abs=1e-5)


@pytest.mark.parametrize("most", [343, 98, 49])
def test_the_patches_that_are_fitted_on_lie_everywhere_in_the_pictures(most):
    """Cells hold their row and column; 49 pictures have 7×7 patches each, so that every 7th one is at the left edge."""
    rows, columns = np.mgrid[:8, :8].astype(np.float32)
    noise = 0.01 * some(n=49, c=1)
    x = np.concatenate([np.broadcast_to(np.stack([rows, columns]), (49, 2, 8, 8)), noise], axis=1)
    options = {"scales": (0.25,), "clusters": 4, "most_patches": most}
    (level,) = MultiScaleOrderlessPooling(**options).fit(x).levels_
    centres = level.centres @ level.patches.directions + level.patches.mean
    for axis in (0, 1):
        assert level.patches.mean[axis] == pytest.approx(3.5, abs=0.8)
        assert centres[:, axis].min() < 2.5 and centres[:, axis].max() > 4.5
    (again,) = MultiScaleOrderlessPooling(**options).fit(x).levels_
    assert np.array_equal(again.centres, level.centres)


def test_the_order_of_patches_does_not_matter():
    x = some(size=16)
    pooling = MultiScaleOrderlessPooling(scales=(0.25,), stride=0.25, clusters=4).fit(x)
    tiles = x.reshape(24, 5, 4, 4, 4, 4)
    shuffled = np.ascontiguousarray(tiles[:, :, ::-1, :, [2, 0, 3, 1]]).reshape(x.shape)
    assert not np.array_equal(shuffled, x)
    assert pooling.transform(shuffled) == pytest.approx(pooling.transform(x), abs=1e-5)


def test_a_backbone_sees_patches_in_the_size_of_the_pictures_without_gradients():
    seen = []

    def backbone(patches):
        seen.append((tuple(patches.shape[1:]), patches.dtype, torch.is_grad_enabled()))
        return torch.stack([patches.mean((1, 2, 3)), patches.amax((1, 2, 3))], 1)

    x = some()
    pooling = MultiScaleOrderlessPooling(backbone, scales=(1.0, 0.5), stride=0.5, clusters=3)
    assert pooling.fit(x).transform(x[:2]).shape[1] == 2 + 6
    assert set(seen) == {((5, 8, 8), torch.float32, False)}
    with pytest.raises(ValueError, match=r"the backbone gave \(1, 5, 8, 8\) for 1 patches"):
        MultiScaleOrderlessPooling(lambda patches: patches, scales=(1.0,)).fit(x[:1])


def test_a_backbone_sees_few_patches_at_a_time_in_their_order():
    seen = []

    def backbone(patches):
        seen.append(len(patches))
        return patches.mean((2, 3))

    x = some(n=70, c=3, size=12)
    for scale, count in ((1.0, 1), (0.5, 49), (0.25, 100)):
        means = MultiScaleOrderlessPooling(scales=(scale,), stride=1 / 12)._described(x, scale)
        pooling = MultiScaleOrderlessPooling(backbone, scales=(scale,), stride=1 / 12)
        with pytest.MonkeyPatch.context() as patched:  # at their own size a patch's mean is what is pooled without one
            patched.setattr(mop.F, "interpolate", lambda flat, *given, **named: flat)
            assert pooling._described(x, scale) == pytest.approx(means, abs=1e-6)
        assert means.shape == (70, count, 3)
        assert max(seen) <= 64 and sum(seen) == 70 * count and len(seen) <= 2 * 70
        seen.clear()


def test_fitted_again_it_is_the_same_and_what_it_gives_does_not_depend_on_the_batch():
    x = some(n=150)
    first, second = (MultiScaleOrderlessPooling(clusters=4).fit(x) for _ in range(2))
    assert np.array_equal(first.transform(x), second.transform(x))
    parts = [first.transform(x[:7]), first.transform(x[7:])]
    assert np.concatenate(parts) == pytest.approx(first.transform(x), abs=1e-5)


def test_constant_pictures_give_finite_vectors():
    x = np.concatenate([some(n=8), np.zeros((2, 5, 8, 8), np.float32), np.full((2, 5, 8, 8), 2, np.float32)])
    for assignment in ("soft", "hard"):
        assert np.isfinite(MultiScaleOrderlessPooling(clusters=4, assignment=assignment).fit_transform(x)).all()


# scikit-learn's manners


def test_before_fit_it_says_so():
    for call in (lambda p: p.transform(some()), lambda p: p.save("x"), lambda p: p.get_feature_names_out()):
        with pytest.raises(NotFittedError):
            call(MultiScaleOrderlessPooling())


def test_parameters_are_got_set_and_cloned():
    pooling = MultiScaleOrderlessPooling(clusters=7, assignment="hard")
    assert pooling.get_params()["clusters"] == 7 and clone(pooling).get_params() == pooling.get_params()
    assert pooling.set_params(clusters=3).clusters == 3
    fitted = pooling.fit(some())
    assert len(fitted.get_feature_names_out()) == fitted.transform(some()).shape[1]
    with pytest.raises(NotFittedError):
        clone(fitted).transform(some())


@pytest.mark.parametrize(
    "name",
    [
        "estimator_cloneable",
        "estimator_repr",
        "estimator_tags_renamed",
        "get_params_invariance",
        "mixin_order",
        "no_attributes_set_in_init",
        "parameters_default_constructible",
        "set_params",
        "valid_tag_types",
    ],
)
def test_scikit_learns_checks_that_do_not_fit_tables(name):
    """All of its checks that fit do so on X of two dimensions, which no picture has."""
    check = getattr(estimator_checks, f"check_{name}", None)
    if check is None:
        pytest.skip(f"this scikit-learn has no check_{name}")
    check("MultiScaleOrderlessPooling", MultiScaleOrderlessPooling())


def test_its_tag_says_that_it_takes_no_tables():
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Can't test estimator")
        assert not [
            one for one in estimator_checks.check_estimator(MultiScaleOrderlessPooling()) or [] if one["exception"]
        ]


def test_it_stands_in_a_pipeline():
    x = some(n=40)
    y = np.arange(40) % 2
    x[y == 1, 0] += 2
    model = make_pipeline(MultiScaleOrderlessPooling(clusters=4), LogisticRegression())
    assert model.fit(x[:30], y[:30]).score(x[30:], y[30:]) == 1.0


@pytest.mark.parametrize(
    ("options", "x", "says"),
    [
        ({}, np.zeros((3, 4), np.float32), r"\(N, C, H, W\), got \(3, 4\)"),
        ({}, np.full((2, 1, 4, 4), np.nan, np.float32), "NaN"),
        ({"clusters": 0}, some(), "clusters=0 is not allowed"),
        ({"clusters": 10_000}, some(), "only 600 patches at the scale 0.5"),
        ({"scales": (2.0,)}, some(), "scales=(.*) is not allowed"),
        ({"scales": 0.5}, some(), "scales=0.5 is not allowed"),
        ({"scales": np.array(0.5)}, some(), "scales=(.*) is not allowed"),
        ({"scales": np.array([[1.0, 0.5]])}, some(), "scales=(.*) is not allowed"),
        ({"scales": [(1.0, 0.5), 0.5]}, some(), "scales=(.*) is not allowed"),
        ({"scales": "half"}, some(), "scales='half' is not allowed"),
        ({"assignment": "sof"}, some(), '"soft" or "hard"'),
        ({"sigma": 0}, some(), "a number above 0, or None"),
    ],
)
def test_what_cannot_be_is_refused(options, x, says):
    with pytest.raises(ValueError, match=says):
        MultiScaleOrderlessPooling(**options).fit(x)


def test_other_channels_than_those_fitted_are_refused():
    pooling = MultiScaleOrderlessPooling(clusters=4).fit(some())
    with pytest.raises(ValueError, match="3 channels, 5 were fitted"):
        pooling.transform(some(c=3))
    assert pooling.transform(some(size=12)).shape == pooling.transform(some()).shape


def test_the_example_of_the_class_prints_what_it_says():
    assert doctest.testmod(mop) == (0, 2)


# Files


def test_saved_and_loaded_it_gives_the_same_bits_and_nothing_is_pickled(tmp_path):
    x, path = some(), tmp_path / "mop.safetensors"
    pooling = MultiScaleOrderlessPooling(clusters=4, scales=(1.0, 0.5), assignment="hard").fit(x)
    pooling.save(path)
    again = MultiScaleOrderlessPooling.load(path)
    assert again.get_params() == pooling.get_params()
    assert np.array_equal(again.transform(x), pooling.transform(x))
    content = path.read_bytes()
    assert json.loads(content[8 : 8 + int.from_bytes(content[:8], "little")])["__metadata__"]
    assert b"numpy" not in content and b"sklearn" not in content


def test_scales_and_numbers_of_numpy_are_saved_too(tmp_path):
    x, path = some(), tmp_path / "mop.safetensors"
    scales = np.array([1.0, 0.5], np.float32)
    pooling = MultiScaleOrderlessPooling(clusters=np.int64(4), scales=scales, sigma=np.float32(0.5)).fit(x)
    pooling.save(path)
    again = MultiScaleOrderlessPooling.load(path)
    assert again.scales == (1.0, 0.5) and (again.clusters, again.sigma) == (4, 0.5)
    assert np.array_equal(again.transform(x), pooling.transform(x))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64, torch.uint8])
def test_tensors_of_every_type_are_taken(dtype):
    x = torch.from_numpy(10 * np.abs(some())).to(dtype).requires_grad_(dtype.is_floating_point)
    pooling = MultiScaleOrderlessPooling(clusters=4)
    wanted = pooling.fit_transform(x.detach().float().numpy())
    assert np.array_equal(pooling.fit(x).transform(x), wanted)


def test_a_backbone_is_given_again(tmp_path):
    path = tmp_path / "mop.safetensors"

    def backbone(patches):
        return patches.mean((2, 3))

    pooling = MultiScaleOrderlessPooling(backbone, clusters=4).fit(some())
    pooling.save(path)
    with pytest.raises(ValueError, match="give load the backbone"):
        MultiScaleOrderlessPooling.load(path)
    assert np.array_equal(MultiScaleOrderlessPooling.load(path, backbone).transform(some()), pooling.transform(some()))


def test_a_file_that_is_none_of_ours_is_refused(tmp_path):
    path = tmp_path / "mop.safetensors"
    with pytest.raises(ValueError, match="holds no fitted"):
        MultiScaleOrderlessPooling.load(path)
    path.write_bytes(b"\x08\0\0\0\0\0\0\0{}      ")
    with pytest.raises(ValueError, match="holds no fitted"):
        MultiScaleOrderlessPooling.load(path)
    MultiScaleOrderlessPooling(clusters=4).fit(some()).save(path)
    path.write_bytes(path.read_bytes()[:-8])
    with pytest.raises(ValueError, match="holds no fitted"):
        MultiScaleOrderlessPooling.load(path)
    with pytest.raises(ValueError, match="random_state"):
        MultiScaleOrderlessPooling(clusters=4, random_state=np.random.RandomState(0)).fit(some()).save(path)


def rewritten(path, arrays=None, **about):
    """The file of a fitted one with other arrays and other words about them."""
    content = path.read_bytes()
    known = json.loads(json.loads(content[8 : 8 + int.from_bytes(content[:8], "little")])["__metadata__"][mop._KEY])
    words = {key: value for key, value in {**known, **about}.items() if value is not ...}
    kept = {**safetensors.numpy.load(content), **(arrays or {})}
    path.write_bytes(safetensors.numpy.save(kept, metadata={mop._KEY: json.dumps(words)}))


@pytest.mark.parametrize(
    ("arrays", "about", "says"),
    [
        ({"0.sigma": np.zeros(0)}, {}, r"the sigma of scale number 1 has the shape \(0,\)"),
        ({"0.sigma": np.array(1.0)}, {}, "one number is wanted"),
        ({"0.sigma": np.ones(2)}, {}, "one number is wanted"),
        ({"0.centres": np.zeros((0, 5), np.float32)}, {}, "do not fit together"),
        ({}, {"backbone": ...}, "backbone"),
        ({}, {"channels": math.inf}, "infinity"),
        ({}, {"options": []}, "holds no fitted"),
    ],
)
def test_a_file_whose_parts_do_not_fit_is_refused(arrays, about, says, tmp_path):
    path = tmp_path / "mop.safetensors"
    MultiScaleOrderlessPooling(clusters=4, scales=(0.5,)).fit(some()).save(path)
    rewritten(path)
    MultiScaleOrderlessPooling.load(path)
    rewritten(path, arrays, **about)
    with pytest.raises(ValueError, match=f"holds no fitted.*{says}" if says != "holds no fitted" else says):
        MultiScaleOrderlessPooling.load(path)


# A trained net


def test_on_a_trained_net_it_tells_digits_better_than_their_global_average(monkeypatch, capsys):
    words = ["mop.py", "--data", "digits", "--epochs", "2", "--limit", "600", "--test", "360", "--clusters", "16"]
    monkeypatch.setattr(sys, "argv", words)
    runpy.run_path(str(EXAMPLE), run_name="__main__")
    found = re.findall(r"^(.+): \d+ numbers, test accuracy ([\d.]+)%", capsys.readouterr().out, re.M)
    accuracy = {name: float(value) for name, value in found}
    assert accuracy["multi-scale orderless"] > accuracy["global average"] + 2
