"""Corruptions and shifts: they do what they say, to each picture alone, and every time the same."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch

from poolkit.lab import data, probes
from poolkit.lab.corruptions import CORRUPTIONS, SEVERITIES, corrupt

SETTINGS = SimpleNamespace(shift_images=6, corrupt_images=4)


def scenes(count, shape=(3, 32, 32)):
    """Pictures with smooth parts, edges and texture, none of them near black or white."""
    channels, height, width = shape
    rng = np.random.default_rng(0)
    r, c = np.mgrid[:height, :width] * (32 / min(height, width))
    pictures = []
    for _ in range(count):
        a, b, t = rng.uniform(0.1, 0.6, 3)
        waves = 0.5 + 0.2 * np.sin(a * r + b * c) + 0.15 * np.sign(np.sin(0.5 * t * (r - c)))
        pictures.append([0.8 * waves + 0.1 * rng.uniform() for _ in range(channels)])
    return np.rint(255 * np.clip(pictures, 0.05, 0.95)).astype(np.uint8)


def distance(a, b):
    return np.sqrt(((a.astype(float) - b) ** 2).mean((1, 2, 3)))


class Constant(torch.nn.Module):
    """Gives class 3 to every picture."""

    def __init__(self):
        super().__init__()
        self.scores = torch.nn.Parameter(torch.eye(10)[3])

    def forward(self, x):
        return self.scores.expand(len(x), -1)


class Mean(torch.nn.Module):
    """The class is a tenth of the first channel's mean at one pixel or over the picture."""

    def __init__(self, pixel):
        super().__init__()
        self.pixel = pixel
        self.centres = torch.nn.Parameter(torch.linspace(0, 1, 10))

    def forward(self, x):
        seen = x[:, 0, 16, 16] if self.pixel else x[:, 0].mean((1, 2))
        return -((seen[:, None] - self.centres) ** 2)


@pytest.mark.parametrize("name", CORRUPTIONS)
def test_a_higher_severity_distorts_more(name):
    pictures = scenes(24)
    far = [distance(corrupt(pictures, name, severity, range(24)), pictures).mean() for severity in SEVERITIES]
    assert far[0] > 1  # of 255 levels: it can be seen by a net
    assert all(after > 1.02 * before for before, after in zip(far, far[1:], strict=False)), far
    assert far[-1] < 110  # and the picture is still there


@pytest.mark.parametrize("name", CORRUPTIONS)
@pytest.mark.parametrize("shape", [(1, 28, 28), (3, 20, 33), (3, 64, 48)])
def test_shape_and_type_are_kept_and_the_picture_is_told(name, shape):
    pictures = scenes(3, shape)
    before = pictures.copy()
    bad = corrupt(pictures, name, 3, range(3))
    assert bad.shape == pictures.shape and bad.dtype == np.uint8
    assert np.array_equal(pictures, before)
    likeness = np.corrcoef(bad[0].ravel(), pictures[0].ravel())[0, 1]
    assert likeness > 0.3


@pytest.mark.parametrize("name", CORRUPTIONS)
def test_a_picture_does_not_depend_on_its_batch_and_chance_on_index_and_severity(name):
    pictures = scenes(5)
    together = corrupt(pictures, name, 2, [9, 4, 7, 0, 2])
    assert np.array_equal(together, corrupt(pictures, name, 2, [9, 4, 7, 0, 2]))
    assert np.array_equal(together[[3, 1]], corrupt(pictures[[3, 1]], name, 2, [0, 4]))
    random = name not in ("defocus-blur", "zoom-blur", "brightness", "contrast", "pixelate", "jpeg")
    twins = corrupt(np.repeat(pictures[:1], 2, axis=0), name, 2, [0, 1])
    assert (not np.array_equal(*twins)) == random


def test_noise_has_the_stated_size():
    grey = np.full((40, 3, 32, 32), 128, np.uint8)
    sigma = (corrupt(grey, "gaussian-noise", 5, range(40)) / 255).std()
    assert sigma == pytest.approx(0.11, rel=0.02)
    x = 128 / 255
    shot = (corrupt(grey, "shot-noise", 5, range(40)) / 255).std()
    assert shot == pytest.approx(np.sqrt(x / 50), rel=0.02)  # a Poisson number's variance is its mean
    hit = corrupt(grey, "impulse-noise", 5, range(40))
    assert (hit != 128).mean() == pytest.approx(0.07, rel=0.05) and set(np.unique(hit)) == {0, 128, 255}


@pytest.mark.parametrize("name", ["defocus-blur", "glass-blur", "motion-blur", "zoom-blur", "contrast", "pixelate"])
def test_what_moves_or_averages_pixels_leaves_an_even_picture_alone(name):
    even = np.full((2, 3, 32, 32), 90, np.uint8)
    assert np.array_equal(corrupt(even, name, 5, range(2)), even)


def test_blur_of_a_point_is_the_mean_over_its_disc():
    point = np.zeros((1, 1, 65, 65), np.uint8)
    point[..., 32, 32] = 255
    spread = corrupt(point, "defocus-blur", 5, [0])[0, 0]
    radius = 2.0 * 65 / 32
    # One part in the disc's area of 255; the rim rings, as every filter without high frequencies does.
    assert spread[31:34, 31:34].mean() == pytest.approx(255 / (np.pi * radius**2), abs=1.0)
    r, c = np.mgrid[:65, :65] - 32
    assert spread[np.hypot(r, c) > radius + 3].max() <= 1


def test_pixelate_makes_blocks_of_equal_means():
    picture = scenes(1, (1, 32, 32))
    blocks = corrupt(picture, "pixelate", 5, [0])[0, 0]
    means = picture[0, 0].reshape(16, 2, 16, 2).mean((1, 3))
    np.testing.assert_allclose(blocks, np.kron(means, np.ones((2, 2))), atol=0.5 + 1e-6)


def test_black_and_white_pictures_stay_pictures():
    for level in (0, 255):
        even = np.full((2, 3, 32, 32), level, np.uint8)
        for name in CORRUPTIONS:
            assert corrupt(even, name, 5, range(2)).dtype == np.uint8


@pytest.mark.parametrize(
    ("pixels", "name", "severity", "says"),
    [
        (scenes(1), "blur", 1, "allowed: gaussian-noise"),
        (scenes(1), "snow", 6, "severity 1 to 5"),
        (scenes(1) / 255, "snow", 1, "wanted is uint8"),
        (scenes(2), "snow", 1, "1 indices"),
    ],
)
def test_other_requests_are_refused(pixels, name, severity, says):
    with pytest.raises(ValueError, match=says):
        corrupt(pixels, name, severity, [0])


def test_shift_moves_the_picture_and_mirrors_what_enters():
    pictures = scenes(2)
    down = probes.shift(pictures, 3, -2)
    assert np.array_equal(down[:, :, 3:, :-2], pictures[:, :, :-3, 2:])
    assert np.array_equal(down[:, :, 2, :-2], pictures[:, :, 1, 2:])  # the row above the first is the second
    assert np.array_equal(probes.shift(pictures, 0, 0), pictures)
    with pytest.raises(ValueError, match="at most 4"):
        probes.shift(pictures, 5, 0)


def test_all_81_shifts_once_the_unshifted_in_the_middle():
    assert len(np.unique(probes.MOVES, axis=0)) == 81 and not probes.MOVES[40].any()
    assert np.abs(probes.MOVES.astype(int)).max() == 4


def test_a_constant_net_never_changes_its_mind_and_one_that_looks_at_a_pixel_does():
    digits = data.digits()
    found = probes.probe(Constant(), digits, SETTINGS)
    assert found["shift_classes"].shape == (81, 6) and found["corrupt_classes"].shape == (15, 5, 4)
    assert {found["shift_classes"].dtype, found["corrupt_classes"].dtype} == {np.dtype(np.uint16)}
    assert (found["shift_classes"] == 3).all() and (found["corrupt_classes"] == 3).all()
    near, far = (probes.probe(Mean(pixel), digits, SETTINGS)["shift_classes"] for pixel in (False, True))
    changes = [(classes != classes[40]).mean() for classes in (near, far)]
    assert changes[0] < 0.25 < changes[1]


def test_classes_are_those_of_the_pictures_named():
    digits = data.digits()
    model = Mean(pixel=True)
    found = probes.probe(model, digits, SETTINGS)
    seen = digits.test_x[found["shift_index"], 0] / 255
    for move, classes in zip(found["shift_moves"], found["shift_classes"], strict=True):
        assert np.array_equal(classes, np.rint(seen[:, 16 - move[0], 16 - move[1]] * 9))
    names = list(CORRUPTIONS)
    bad = corrupt(digits.test_x[found["corrupt_index"]], "fog", 4, found["corrupt_index"])[:, 0, 16, 16] / 255
    assert np.array_equal(found["corrupt_classes"][names.index("fog"), 3], np.rint(bad * 9))


def test_subsets_are_nested_and_the_net_keeps_its_mode():
    digits = data.digits()
    few, many = probes.subset(digits, 20), probes.subset(digits, 1000)
    assert np.array_equal(few, many[:20]) and sorted(many) == list(range(360))
    model = Constant().train()
    probes.probe(model, digits, SETTINGS)
    assert model.training


def test_corrupted_pictures_are_made_once_for_all_nets(monkeypatch):
    digits, calls = data.digits(), []
    monkeypatch.setattr(probes, "_kept", {})
    monkeypatch.setattr(probes, "corrupt", lambda *given: (calls.append(given), corrupt(*given))[1])
    probes.probe(Constant(), digits, SETTINGS)
    probes.probe(Mean(pixel=False), digits, SETTINGS)
    assert len(calls) == 75
