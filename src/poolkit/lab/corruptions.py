"""Fifteen ways in which pictures go bad, at five severities: noise, blur, weather, digital.

The families are those of Hendrycks and Dietterich, "Benchmarking Neural Network Robustness to Common Corruptions and
Perturbations" (ICLR 2019), restated here after their published descriptions with amounts of our own. They are not the
released files (CIFAR-10-C), and some differ in kind: frost is drawn where theirs is cut from photographs, pixels behind
glass come from a random place near by where theirs change places. So errors measured with them rank nets on this page
and are not to be compared with a published mean corruption error.

Letters: x, a picture with values from 0 to 1; u, a thirty-second of its shorter side, the unit of all lengths; z, a
field of normal numbers, v, one of uniform numbers. What leaves the range 0 to 1 is cut off.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import scipy.fft
from PIL import Image
from scipy.special import j1

from poolkit.lab.chance import seed_of

SEVERITIES = (1, 2, 3, 4, 5)
_ZOOMS = 8
_BLOCK = 200_000  # values at a time, which a core's cache holds


class Draws:
    """Random numbers for a batch of pictures, each from its picture's own generator."""

    def __init__(self, seeds: Sequence[int]) -> None:
        self._generators = [np.random.Generator(np.random.Philox(seed)) for seed in seeds]

    def normal(self, *shape: int) -> np.ndarray:
        """Standard normal numbers (N, *shape)."""
        return np.stack([generator.standard_normal(shape, dtype=np.float32) for generator in self._generators])

    def uniform(self, *shape: int) -> np.ndarray:
        """Numbers from 0 to below 1 (N, *shape)."""
        return np.stack([generator.random(shape, dtype=np.float32) for generator in self._generators])

    def poisson(self, means: np.ndarray) -> np.ndarray:
        """Poisson numbers with the given means (N, …)."""
        return np.stack([g.poisson(mean) for g, mean in zip(self._generators, means, strict=True)])


@dataclass(frozen=True)
class Corruption:
    """One corruption: its name, its family, its formula in words, and its amount at each severity.

    `apply` takes pictures, float32 (N, C, H, W), an amount and the draws.
    """

    name: str
    family: str
    formula: str
    amounts: tuple[float, float, float, float, float]
    apply: Callable[[np.ndarray, float, Draws], np.ndarray]


def corrupt(pixels: np.ndarray, name: str, severity: int, indices: Sequence[int] | np.ndarray) -> np.ndarray:
    """Corrupt pictures.

    Arguments: `pixels`, uint8 (N, C, H, W), C 1 or 3; `name`, a key of `CORRUPTIONS`; `severity`, 1 to 5; `indices`,
    N whole numbers: with name and severity they seed the randomness of their picture, which so does not depend on the
    batch.
    Returns uint8 of the same shape.
    Raises `ValueError` for other pictures, another name or severity.
    """
    if name not in CORRUPTIONS or severity not in SEVERITIES:
        allowed = f"{', '.join(CORRUPTIONS)}; severity 1 to 5"
        raise ValueError(f"{name!r} at severity {severity!r} is no corruption\n  allowed: {allowed}")
    if pixels.dtype != np.uint8 or pixels.ndim != 4 or pixels.shape[1] not in (1, 3) or len(indices) != len(pixels):
        raise ValueError(
            f"pixels {pixels.dtype} {pixels.shape} and {len(indices)} indices: wanted is uint8 (N, C, H, W)"
        )
    corruption, bad = CORRUPTIONS[name], np.empty_like(pixels)
    step = max(_BLOCK // max(pixels[:1].size, 1), 1)
    for start in range(0, len(pixels), step):
        part = slice(start, start + step)
        draws = Draws([seed_of(int(index), name, severity) for index in indices[part]])
        x = corruption.apply(pixels[part] / np.float32(255), corruption.amounts[severity - 1], draws)
        bad[part] = np.rint(np.clip(x, 0, 1) * 255)
    return bad


def _unit(x: np.ndarray) -> float:
    return min(x.shape[2:]) / 32


def _gaussian_noise(x: np.ndarray, sigma: float, draws: Draws) -> np.ndarray:
    return x + sigma * draws.normal(*x.shape[1:])


def _shot_noise(x: np.ndarray, photons: float, draws: Draws) -> np.ndarray:
    return draws.poisson(photons * x) / photons


def _impulse_noise(x: np.ndarray, share: float, draws: Draws) -> np.ndarray:
    v = draws.uniform(*x.shape[1:])
    return np.where(v < share / 2, 0.0, np.where(v < share, 1.0, x))


def _filter(x: np.ndarray, reach: float, transfer: Callable[[np.ndarray, np.ndarray], np.ndarray]) -> np.ndarray:
    """Filter by a continuous filter's exact transfer function of the frequencies, in cycles per pixel, down and across.

    The picture is mirrored beyond its border, `reach` pixels or more.
    """
    pad = int(np.ceil(reach)) + 1
    wide = np.pad(x, [(0, 0)] * (x.ndim - 2) + [(pad, pad)] * 2, mode="symmetric")
    shape = wide.shape[-2:]
    down, across = np.fft.fftfreq(shape[0])[:, None], np.fft.rfftfreq(shape[1])
    filtered = scipy.fft.irfft2(scipy.fft.rfft2(wide) * transfer(down, across).astype(np.float32), shape)
    return np.asarray(filtered[..., pad:-pad, pad:-pad])


def _gaussian(x: np.ndarray, sigma: float) -> np.ndarray:
    return _filter(x, 4 * sigma, lambda down, across: np.exp(-2 * (np.pi * sigma) ** 2 * (down**2 + across**2)))


def _streaked(x: np.ndarray, length: float, angle: np.ndarray) -> np.ndarray:
    """The mean along a segment; `angle` (N,) in radians from the row's direction."""
    turned = angle.reshape(-1, *[1] * (x.ndim - 1))
    return _filter(x, length, lambda down, across: np.sinc(length * (across * np.cos(turned) + down * np.sin(turned))))


def _defocus_blur(x: np.ndarray, radius: float, draws: Draws) -> np.ndarray:
    def disc(down: np.ndarray, across: np.ndarray) -> np.ndarray:
        t = 2 * np.pi * radius * _unit(x) * np.hypot(down, across)
        return np.divide(2 * j1(t), t, out=np.ones_like(t), where=t > 0)

    return _filter(x, 3 * radius * _unit(x), disc)


def _glass_blur(x: np.ndarray, reach: float, draws: Draws) -> np.ndarray:
    moved = np.rint((2 * draws.uniform(2, *x.shape[2:]) - 1) * reach * _unit(x))
    sigma = 0.4 * _unit(x)
    return _gaussian(_sampled(_gaussian(x, sigma), moved), sigma)


def _motion_blur(x: np.ndarray, length: float, draws: Draws) -> np.ndarray:
    return _streaked(x, length * _unit(x), np.pi * draws.uniform())


def _zoom_blur(x: np.ndarray, most: float, draws: Draws) -> np.ndarray:
    total = np.zeros_like(x)
    for factor in np.linspace(1, 1 + most, _ZOOMS):
        rows, columns = (_interpolation(side, factor) for side in x.shape[2:])
        total += rows @ x @ columns.T
    return total / _ZOOMS


def _snow(x: np.ndarray, amount: float, draws: Draws) -> np.ndarray:
    z, slant = draws.normal(*x.shape[2:]), np.pi * (0.25 + 0.5 * draws.uniform())
    coarse = _gaussian(z, 0.5 * _unit(x))
    flakes = np.maximum(coarse / coarse.std((1, 2), keepdims=True) - (2.2 - 2 * amount), 0)
    pale = np.maximum(x, 0.5 + 0.5 * x.mean(1, keepdims=True))
    return (1 - amount) * x + amount * pale + 0.6 * _streaked(flakes, 3 * _unit(x), slant)[:, None]


def _cloud(shape: Sequence[int], decay: float, draws: Draws) -> np.ndarray:
    """A field (N, H, W) from 0 to 1 whose amplitude falls with the frequency to the power `decay`, as in clouds."""
    frequency = np.hypot(np.fft.fftfreq(shape[0])[:, None], np.fft.rfftfreq(shape[1]))
    fall = np.divide(1, frequency**decay, out=np.zeros_like(frequency), where=frequency > 0)
    field = scipy.fft.irfft2(scipy.fft.rfft2(draws.normal(*shape)) * fall, tuple(shape))
    low, high = field.min((1, 2), keepdims=True), field.max((1, 2), keepdims=True)
    return np.asarray((field - low) / np.maximum(high - low, 1e-12))


def _frost(x: np.ndarray, amount: float, draws: Draws) -> np.ndarray:
    needles = (1 - np.abs(2 * _cloud(x.shape[2:], 1.4, draws) - 1)) ** 2
    return (1 - 0.7 * amount) * x + amount * needles[:, None]


def _fog(x: np.ndarray, amount: float, draws: Draws) -> np.ndarray:
    top = x.max((1, 2, 3), keepdims=True)
    return (x + amount * _cloud(x.shape[2:], 2.0, draws)[:, None]) * top / np.maximum(top + amount, 1e-12)


def _brightness(x: np.ndarray, amount: float, draws: Draws) -> np.ndarray:
    value = x.max(1, keepdims=True)
    wanted = np.minimum(value + amount, 1)
    return np.where(value > 0, x * wanted / np.where(value > 0, value, 1), wanted)


def _contrast(x: np.ndarray, kept: float, draws: Draws) -> np.ndarray:
    mean = x.mean((2, 3), keepdims=True)
    return mean + kept * (x - mean)


def _elastic(x: np.ndarray, rms: float, draws: Draws) -> np.ndarray:
    field = _gaussian(draws.normal(2, *x.shape[2:]), 3 * _unit(x))
    size = np.sqrt((field**2).mean((1, 2, 3), keepdims=True))
    return _sampled(x, field * (rms * _unit(x) / size))


def _pixelate(x: np.ndarray, share: float, draws: Draws) -> np.ndarray:
    rows, columns = (_blocks(side, max(round(side * share), 1)) for side in x.shape[2:])
    return rows @ x @ columns.T


def _jpeg(x: np.ndarray, quality: float, draws: Draws) -> np.ndarray:
    pixels = np.rint(x * 255).astype(np.uint8).transpose(0, 2, 3, 1)
    pixels = pixels[..., 0] if x.shape[1] == 1 else pixels
    coded = np.stack([_through_jpeg(picture, int(quality)) for picture in pixels])
    return (coded[:, None] if x.shape[1] == 1 else coded.transpose(0, 3, 1, 2)) / 255.0


def _through_jpeg(picture: np.ndarray, quality: int) -> np.ndarray:
    buffer = io.BytesIO()
    Image.fromarray(picture).save(buffer, "JPEG", quality=quality)
    return np.asarray(Image.open(buffer))


def _sampled(x: np.ndarray, moved: np.ndarray) -> np.ndarray:
    """The pictures at places moved by (N, 2, H, W) rows and columns, linear between pixels, constant beyond them."""
    height, width = x.shape[2:]
    rows = np.clip(np.arange(height)[:, None] + moved[:, 0], 0, height - 1)
    columns = np.clip(np.arange(width) + moved[:, 1], 0, width - 1)
    top, left = (places.astype(np.intp) for places in (rows, columns))
    down, across = (rows - top)[..., None], (columns - left)[..., None]
    flat = x.transpose(0, 2, 3, 1).reshape(-1, x.shape[1])
    start = np.arange(len(x))[:, None, None] * (height * width)

    def at(r: np.ndarray, c: np.ndarray) -> np.ndarray:
        return np.take(flat, start + np.minimum(r, height - 1) * width + np.minimum(c, width - 1), axis=0)

    above = at(top, left) * (1 - across) + at(top, left + 1) * across
    below = at(top + 1, left) * (1 - across) + at(top + 1, left + 1) * across
    return (above * (1 - down) + below * down).transpose(0, 3, 1, 2)


def _interpolation(side: int, factor: float) -> np.ndarray:
    """The matrix that enlarges a line about its middle by a factor, linear between pixels."""
    middle = (side - 1) / 2
    places = middle + (np.arange(side) - middle) / factor
    return np.maximum(1 - np.abs(places[:, None] - np.arange(side)), 0).astype(np.float32)


def _blocks(side: int, count: int) -> np.ndarray:
    """The matrix that replaces each pixel of a line by the mean of its block, of `count` blocks of equal length."""
    edges = np.linspace(0, side, count + 1)
    pixels = np.arange(side)
    covered = np.minimum(pixels + 1, edges[1:, None]) - np.maximum(pixels, edges[:-1, None])
    means = np.maximum(covered, 0) * (count / side)
    return means[((pixels + 0.5) * count / side).astype(np.intp)].astype(np.float32)


CORRUPTIONS = {
    corruption.name: corruption
    for corruption in (
        Corruption("gaussian-noise", "noise", "x + a z",
                   (0.04, 0.055, 0.07, 0.09, 0.11), _gaussian_noise),
        Corruption("shot-noise", "noise", "Poisson(a x) / a",
                   (400, 200, 110, 70, 50), _shot_noise),
        Corruption("impulse-noise", "noise", "a share a of values is 0 or 1",
                   (0.01, 0.02, 0.035, 0.05, 0.07), _impulse_noise),
        Corruption("defocus-blur", "blur", "mean over a disc of radius a u",
                   (0.7, 1.0, 1.3, 1.6, 2.0), _defocus_blur),
        Corruption("glass-blur", "blur", "each pixel from up to a u away, between two blurs",
                   (0.6, 0.8, 1.0, 1.3, 1.7), _glass_blur),
        Corruption("motion-blur", "blur", "mean along a u in a random direction",
                   (2.0, 3.0, 4.0, 5.0, 6.5), _motion_blur),
        Corruption("zoom-blur", "blur", "mean of enlargements by 1 to 1 + a",
                   (0.06, 0.11, 0.16, 0.21, 0.26), _zoom_blur),
        Corruption("snow", "weather", "paler by a, streaks of flakes on top",
                   (0.1, 0.17, 0.24, 0.31, 0.38), _snow),
        Corruption("frost", "weather", "(1 − 0.7 a) x + a needles of a cloud",
                   (0.15, 0.25, 0.35, 0.45, 0.55), _frost),
        Corruption("fog", "weather", "(x + a cloud) max x / (max x + a)",
                   (0.2, 0.45, 0.75, 1.1, 1.6), _fog),
        Corruption("brightness", "weather", "the largest channel rises by a, hue kept",
                   (0.06, 0.12, 0.18, 0.24, 0.3), _brightness),
        Corruption("contrast", "digital", "mean + a (x − mean)",
                   (0.75, 0.6, 0.45, 0.3, 0.15), _contrast),
        Corruption("elastic", "digital", "moved by a smooth field of rms length a u",
                   (0.5, 0.7, 0.9, 1.2, 1.5), _elastic),
        Corruption("pixelate", "digital", "means of blocks, a share a of them to a side",
                   (0.9, 0.8, 0.7, 0.6, 0.5), _pixelate),
        Corruption("jpeg", "digital", "JPEG of quality a, by Pillow",
                   (80, 65, 52, 40, 30), _jpeg),
    )
}  # fmt: skip
