"""Multi-scale orderless pooling (Gong 2014): pictures to vectors, fitted on pictures, with scikit-learn's manners.

Source: Y. Gong, L. Wang, R. Guo, S. Lazebnik, Multi-scale orderless pooling of deep convolutional activation features,
ECCV 2014, arXiv:1403.1840. Known here by its abstract and by what others say of it: pictures of 256×256, patches of 128
and 64 pixels every 32, 500 components, 100 centres, the 5 nearest with Gaussian weights, 4,096 components a level.
"""

from __future__ import annotations

import json
import math
import numbers
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import safetensors.numpy
import torch
from safetensors import SafetensorError
from sklearn.base import BaseEstimator, ClassNamePrefixFeaturesOutMixin, TransformerMixin
from sklearn.cluster import KMeans
from sklearn.decomposition import PCA
from sklearn.utils import check_array, check_random_state
from sklearn.utils.validation import check_is_fitted
from torch.nn import functional as F

from poolkit.lab.durable import write_atomic

Backbone = Callable[[torch.Tensor], Any] | None
FORMAT = 1
_BATCH = 64  # pictures at a time, and patches at a time that a backbone sees: they fit into memory
_KEY = "poolkit.multi-scale-orderless-pooling"
_OPTIONS = (
    "scales", "stride", "components", "clusters", "assignment", "nearest", "sigma", "output_components", "most_patches",
    "random_state",
)  # fmt: skip


class Projection(NamedTuple):
    """z = (x − mean) Aᵀ: the mean (D,) and the directions (d, D) of a principal component analysis."""

    mean: np.ndarray
    directions: np.ndarray

    @classmethod
    def fitted(cls, x: np.ndarray, components: int, seed: Any) -> Projection:
        """The first `components` directions of x (n, D), or as many as it has."""
        most = min(components, *x.shape)
        found = PCA(most, random_state=seed).fit(x)
        return cls(found.mean_.astype(np.float32), found.components_.astype(np.float32))

    def __call__(self, x: np.ndarray) -> np.ndarray:
        """x (…, D) in these directions, (…, d)."""
        return (x - self.mean) @ self.directions.T


class Level(NamedTuple):
    """What was fitted for one scale: of the patches, their centres (K, d), sigma, and of the vectors."""

    patches: Projection
    centres: np.ndarray
    sigma: float
    vectors: Projection


class MultiScaleOrderlessPooling(ClassNamePrefixFeaturesOutMixin, TransformerMixin, BaseEstimator):
    """Patches at several scales, each scale described without regard to where its patches lie.

        v_k = Σᵢ a_k(xᵢ) (xᵢ − c_k),   z = v / ‖v‖ after vⱼ ← sign(vⱼ) √|vⱼ|

    For each scale, patches are described by a backbone and reduced by a PCA; xᵢ are those of one picture and c_k the
    centres that k-means finds among those of all pictures. A patch belongs to its nearest centre (`assignment="hard"`,
    a = 1), or with shares exp(−‖x − c_k‖² / 2σ²), divided by their sum, to its `nearest` ones (`"soft"`). A second PCA
    reduces z. At the scale 1 there is one patch, the picture, and its description, of length 1, is taken as it is.
    The scales are laid side by side: the output is (N, sum of their lengths), float32.

    Of scikit-learn's checks those pass that do not fit; the others fit tables of two dimensions, which no picture is.

    Args:
        backbone: describes patches: a callable on float32 tensors (N, C, h, w) that gives (N, D); it is called without
            gradients and in the mode that it is in, so put a module into `eval()`. Patches are brought to the size of
            the pictures before it sees them, at most 64 at a time. None: pictures are feature maps, a patch is
            described by its mean.
        scales: sides of the patches as shares of the picture's shorter side, above 0 and at most 1.
        stride: from patch to patch, as such a share.
        components: of the PCA of the descriptions, or as many as there are.
        clusters: centres of each scale.
        assignment: "soft" or "hard".
        nearest: centres that a patch belongs to softly.
        sigma: in the units of the descriptions; None: the root mean square distance of a patch to its centre.
        output_components: of the PCA of z, or as many as there are.
        most_patches: patches of each scale that are fitted on, drawn at random where there are more.
        random_state: of that draw, k-means and the PCA; an int makes them repeatable.

    Attributes:
        levels_: what was fitted, one `Level` for each scale, None for the whole picture.
        channels_: C of the pictures.

    Example:
        >>> maps = np.random.default_rng(0).random((20, 8, 12, 12), np.float32)
        >>> MultiScaleOrderlessPooling(clusters=4).fit_transform(maps).shape
        (20, 48)
    """

    def __init__(
        self,
        backbone: Backbone = None,
        *,
        scales: tuple[float, ...] = (1.0, 0.5, 0.25),
        stride: float = 0.125,
        components: int = 500,
        clusters: int = 100,
        assignment: str = "soft",
        nearest: int = 5,
        sigma: float | None = None,
        output_components: int = 4096,
        most_patches: int = 100_000,
        random_state: Any = 0,
    ) -> None:
        self.backbone = backbone
        self.scales = scales
        self.stride = stride
        self.components = components
        self.clusters = clusters
        self.assignment = assignment
        self.nearest = nearest
        self.sigma = sigma
        self.output_components = output_components
        self.most_patches = most_patches
        self.random_state = random_state

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.two_d_array = False
        return tags

    def fit(self, X: Any, y: Any = None) -> MultiScaleOrderlessPooling:
        """Fit on pictures or maps (N, C, H, W); y is not looked at.

        Raises `ValueError`: an option that is not allowed, another shape, values that are not finite, or fewer patches
        than clusters.
        """
        self._check_options()
        x = _pictures(X)
        self.channels_ = x.shape[1]
        self.levels_ = [None if scale == 1 else self._level(x, scale) for scale in self.scales]
        # As many numbers as `transform` gives, which names them.
        self._n_features_out = self.transform(x[:1]).shape[1]
        return self

    def transform(self, X: Any) -> np.ndarray:
        """The vectors (N, length), float32, of pictures (N, C, H, W) with the channels that were fitted.

        Raises `sklearn.exceptions.NotFittedError` before `fit`; `ValueError` as `fit` does.
        """
        check_is_fitted(self, "levels_")
        x = _pictures(X)
        if x.shape[1] != self.channels_:
            raise ValueError(f"X has {x.shape[1]} channels, {self.channels_} were fitted")
        return np.concatenate(list(self._vectors(x)), axis=1)

    def _vectors(self, x: np.ndarray) -> Iterator[np.ndarray]:
        for scale, level in zip(self.scales, self.levels_, strict=True):
            described = self._described(x, scale)
            if level is None:
                yield _of_length_one(described[:, 0])
            else:
                yield level.vectors(self._vlad(level.patches(described), level.centres, level.sigma))

    def _level(self, x: np.ndarray, scale: float) -> Level:
        """Fit one scale."""
        described = self._described(x, scale)
        every = described.reshape(-1, described.shape[2])
        some = every
        if len(every) > self.most_patches:
            # Drawn, not every n-th: patches lie in a grid, of which n may be whole rows.
            drawn = check_random_state(self.random_state).permutation(len(every))[: self.most_patches]
            some = every[np.sort(drawn)]
        if len(some) < self.clusters:
            raise ValueError(f"clusters={self.clusters}: only {len(some)} patches at the scale {scale:g}")
        patches = Projection.fitted(some, self.components, self.random_state)
        reduced = patches(some)
        means = KMeans(self.clusters, n_init=1, random_state=self.random_state).fit(reduced)
        centres = means.cluster_centers_.astype(np.float32)
        sigma = math.sqrt(means.inertia_ / len(some)) if self.sigma is None else float(self.sigma)
        vlad = self._vlad(patches(described), centres, sigma)
        return Level(patches, centres, sigma, Projection.fitted(vlad, self.output_components, self.random_state))

    def _described(self, x: np.ndarray, scale: float) -> np.ndarray:
        """The descriptions (N, patches, D) of all patches of a scale."""
        return np.concatenate([self._some_described(x[at : at + _BATCH], scale) for at in range(0, len(x), _BATCH)])

    def _some_described(self, x: np.ndarray, scale: float) -> np.ndarray:
        sizes = x.shape[2:]
        side, step = (max(1, round(share * min(sizes))) for share in (scale, self.stride))
        rows, columns = sizes if scale == 1 else (side, side)
        maps = torch.from_numpy(x)
        patches = maps.unfold(2, rows, step).unfold(3, columns, step)  # (N, C, down, across, rows, columns)
        if self.backbone is None:
            return patches.mean((4, 5)).flatten(2).transpose(1, 2).numpy()
        # The patches of so few pictures at a time are copied out of them, not those of all.
        few = max(1, _BATCH // (patches.shape[2] * patches.shape[3]))
        return np.concatenate([_by_backbone(self.backbone, some, sizes) for some in patches.split(few)])

    def _vlad(self, x: np.ndarray, centres: np.ndarray, sigma: float) -> np.ndarray:
        """z of each picture (N, K·d) from its patches (N, patches, d)."""
        found = np.empty((len(x), centres.size), np.float32)
        for at in range(0, len(x), _BATCH):
            some = x[at : at + _BATCH]
            shares = self._shares(some, centres, sigma)
            # Σ a (x − c) = Σ a x − (Σ a) c, which never forms the differences.
            v = np.einsum("npk,npd->nkd", shares, some) - shares.sum(1)[..., None] * centres
            found[at : at + _BATCH] = v.reshape(len(some), -1)
        return _of_length_one(np.sign(found) * np.sqrt(np.abs(found)))

    def _shares(self, x: np.ndarray, centres: np.ndarray, sigma: float) -> np.ndarray:
        """How much each patch belongs to each centre, (N, patches, K), of sum 1."""
        distances = ((x**2).sum(-1)[..., None] - 2 * x @ centres.T + (centres**2).sum(-1)).clip(0)
        kept = 1 if self.assignment == "hard" else min(self.nearest, len(centres))
        near = np.argsort(distances, axis=-1, kind="stable")[..., :kept]
        squares = np.take_along_axis(distances, near, -1)
        # The nearest one's is subtracted: its share is never 0 / 0.
        shares = np.exp((squares[..., :1] - squares) / (2 * max(sigma, 1e-12) ** 2))
        found = np.zeros_like(distances)
        np.put_along_axis(found, near, shares / shares.sum(-1, keepdims=True), -1)
        return found

    def _check_options(self) -> None:
        for name in ("components", "clusters", "nearest", "output_components", "most_patches"):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, numbers.Integral) or value < 1:
                raise ValueError(f"{name}={value!r} is not allowed: an integer, 1 or more")
        for name, values in (("scales", self.scales), ("stride", (self.stride,))):
            several = tuple(values) if isinstance(values, Sequence) or getattr(values, "shape", ()) else ()
            if not several or not all(isinstance(v, numbers.Real) and 0 < v <= 1 for v in several):
                raise ValueError(f"{name}={getattr(self, name)!r} is not allowed: above 0 and at most 1")
        if self.assignment not in ("soft", "hard"):
            raise ValueError(f'assignment={self.assignment!r} is not allowed: "soft" or "hard"')
        if self.sigma is not None and not (isinstance(self.sigma, numbers.Real) and 0 < self.sigma < math.inf):
            raise ValueError(f"sigma={self.sigma!r} is not allowed: a number above 0, or None")

    def save(self, path: Path | str) -> None:
        """Write what was fitted: numbers in safetensors, options as JSON beside them. The backbone is not written.

        Raises `NotFittedError` before `fit`; `ValueError` for a `random_state` that is no number; `OSError`.
        """
        check_is_fitted(self, "levels_")
        if not (self.random_state is None or isinstance(self.random_state, numbers.Integral)):
            raise ValueError(f"random_state={self.random_state!r} cannot be written: an int or None can")
        arrays: dict[str, np.ndarray] = {}
        for number, level in enumerate(self.levels_):
            if level is not None:
                arrays |= {f"{number}.{name}": np.ascontiguousarray(a) for name, a in _arrays(level).items()}
        options = {name: getattr(self, name) for name in _OPTIONS}
        about = {"format": FORMAT, "channels": self.channels_, "length": self._n_features_out, "options": options}
        about |= {"backbone": self.backbone is not None}
        write_atomic(Path(path), safetensors.numpy.save(arrays, metadata={_KEY: json.dumps(about, default=_plain)}))

    @classmethod
    def load(cls, path: Path | str, backbone: Backbone = None) -> MultiScaleOrderlessPooling:
        """What `save` wrote, with the backbone it was fitted with, if there was one.

        Raises `ValueError`: no such file, damaged, or a backbone is missing or was not there.
        """
        try:
            content = Path(path).read_bytes()
            arrays = safetensors.numpy.load(content)
            head = json.loads(content[8 : 8 + int.from_bytes(content[:8], "little")])
            about = json.loads(head["__metadata__"][_KEY])
            options = about["options"]
            options["scales"] = tuple(options["scales"])
            found = cls(backbone, **options)
            found._check_options()
            found.levels_ = [
                None if scale == 1 else _level_of(arrays, number) for number, scale in enumerate(found.scales)
            ]
            found.channels_, found._n_features_out = int(about["channels"]), int(about["length"])
            had_one = bool(about["backbone"])
        except (OSError, SafetensorError, ValueError, KeyError, TypeError, OverflowError) as error:
            raise ValueError(f"{path} holds no fitted multi-scale orderless pooling ({error})") from None
        if had_one != (backbone is not None):
            wanted = "give load the backbone that it was fitted with" if had_one else "it was fitted without one"
            raise ValueError(f"{path}: {wanted}")
        return found


def _pictures(X: Any) -> np.ndarray:
    """X as float32 (N, C, H, W); raises `ValueError`."""
    if isinstance(X, torch.Tensor):
        X = X.detach().cpu()
        X = (X.float() if X.is_floating_point() else X).numpy()  # NumPy knows no bfloat16
    x: np.ndarray = check_array(X, dtype=np.float32, allow_nd=True, ensure_2d=False, order="C")
    if x.ndim != 4 or 0 in x.shape:
        raise ValueError(f"expected pictures or maps of shape (N, C, H, W), got {x.shape}")
    return x


def _by_backbone(backbone: Callable[[torch.Tensor], Any], patches: torch.Tensor, sizes: tuple[int, ...]) -> np.ndarray:
    """The backbone's descriptions (N, patches, D) of patches (N, C, down, across, rows, columns) in these sizes."""
    found = []
    with torch.no_grad():
        for flat in patches.permute(0, 2, 3, 1, 4, 5).flatten(0, 2).split(_BATCH):
            if flat.shape[2:] != sizes:
                flat = F.interpolate(flat, sizes, mode="bilinear", align_corners=False)
            one = torch.as_tensor(backbone(flat)).float().cpu()
            if one.dim() != 2 or len(one) != len(flat):
                raise ValueError(
                    f"the backbone gave {tuple(one.shape)} for {len(flat)} patches: ({len(flat)}, D) is wanted"
                )
            found.append(one)
    return torch.cat(found).reshape(len(patches), -1, found[0].shape[1]).numpy()


def _of_length_one(x: np.ndarray) -> np.ndarray:
    """Each row divided by its length; zeros stay zeros."""
    length = np.linalg.norm(x, axis=1, keepdims=True)
    return x / np.where(length > 0, length, 1).astype(np.float32)


def _arrays(level: Level) -> dict[str, np.ndarray]:
    return {
        "patches.mean": level.patches.mean,
        "patches.directions": level.patches.directions,
        "centres": level.centres,
        "sigma": np.array([level.sigma]),
        "vectors.mean": level.vectors.mean,
        "vectors.directions": level.vectors.directions,
    }


def _level_of(arrays: dict[str, np.ndarray], number: int) -> Level:
    """One scale as it was written; raises `ValueError` where the shapes do not fit together, `KeyError`."""

    def projection(name: str) -> Projection:
        return Projection(arrays[f"{number}.{name}.mean"], arrays[f"{number}.{name}.directions"])

    sigma = arrays[f"{number}.sigma"]
    if sigma.shape != (1,):
        raise ValueError(f"the sigma of scale number {number + 1} has the shape {sigma.shape}: one number is wanted")
    level = Level(projection("patches"), arrays[f"{number}.centres"], float(sigma[0]), projection("vectors"))
    parts = (level.patches, level.vectors)
    fits = all(p.mean.ndim == 1 and p.directions.ndim == 2 and p.directions.shape[1] == len(p.mean) for p in parts)
    if not fits or level.centres.ndim != 2 or level.centres.shape[1] != len(level.patches.directions):
        raise ValueError(f"the arrays of scale number {number + 1} do not fit together")
    if level.centres.size != len(level.vectors.mean):
        raise ValueError(f"the arrays of scale number {number + 1} do not fit together")
    return level


def _plain(value: Any) -> Any:
    """NumPy's numbers and rows of them as JSON has them."""
    return value.tolist()
