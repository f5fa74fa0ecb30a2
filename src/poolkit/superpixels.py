"""What goes with superpixel pooling in PyTorch: counts of cells, the way back to the map, and labels by SLIC."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor


def counts(labels: Tensor, segments: int) -> Tensor:
    """How many cells each label has: (N, *sizes) to (N, K); labels outside 0 … K−1 count nowhere.

    >>> counts(torch.tensor([[[0, 0], [2, -1]]]), 3).tolist()
    [[2, 0, 1]]
    """
    flat = _inside(labels.flatten(1), segments)
    return torch.zeros(len(flat), segments + 1, dtype=torch.int64, device=labels.device).scatter_add(
        1, flat, torch.ones_like(flat)
    )[:, :-1]


def unpool(y: Tensor, labels: Tensor) -> Tensor:
    """Give each cell its region's value: y (N, C, K) and labels (N, *sizes) to (N, C, *sizes); 0 for other labels.

    >>> unpool(torch.tensor([[[5.0, 7.0]]]), torch.tensor([[[0, 1], [1, -1]]])).tolist()
    [[[[5.0, 7.0], [7.0, 0.0]]]]
    """
    n, c, segments = y.shape
    flat = _inside(labels.flatten(1), segments)
    padded = torch.cat([y, y.new_zeros(n, c, 1)], 2)
    return padded.gather(2, flat[:, None].expand(-1, c, -1)).reshape(n, c, *labels.shape[1:])


def _inside(flat: Tensor, segments: int) -> Tensor:
    flat = flat.long()  # before they are compared: a type such as uint8 may not hold the number of segments
    return torch.where((flat >= 0) & (flat < segments), flat, segments)


def slic(images: Tensor, segments: int, **options: Any) -> Tensor:
    """Labels 0 … segments − 1 of pictures (N, C, H, W) by scikit-image's SLIC, and −1, which is no region.

    Args:
        images: floating point, C = 1 or 3.
        segments: the largest number of regions K. SLIC may find fewer, so that labels are missing at the end, or more:
            cells of the regions from K on have the label −1, and count nowhere in superpixel pooling.
        options: further arguments of `skimage.segmentation.slic`, such as `compactness`.

    Raises:
        ImportError: scikit-image is not installed.

    SLIC is R. Achanta et al., SLIC superpixels compared to state-of-the-art superpixel methods, TPAMI 34 (2012).
    """
    try:
        from skimage.segmentation import slic as found
    except ImportError as error:
        raise ImportError(
            "labels by SLIC come from scikit-image, which is not installed\n  pip install scikit-image"
        ) from error
    maps = [
        torch.from_numpy(found(image.numpy(), n_segments=segments, channel_axis=0, start_label=0, **options))
        for image in images.detach().double().cpu()
    ]
    # SLIC aims at a number of regions and may exceed it: what is beyond belongs to no region of ours.
    labels = torch.stack(maps)
    return torch.where(labels < segments, labels, -1).to(images.device)
