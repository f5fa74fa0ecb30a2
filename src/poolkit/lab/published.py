"""The published data sets: where their files are, which bytes they have, and how those become arrays."""

from __future__ import annotations

import gzip
import zlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

import numpy as np

from poolkit.lab import fetch
from poolkit.lab.fetch import Archive, DataError

_MAX_IDX = 64_000_000  # bytes once unpacked; the largest published file has 47 million
_PIXELS = (3, 32, 32)


class Decoded(NamedTuple):
    """A published set as arrays: `arrays` are train_x, train_y, test_x, test_y as in `Data`; the rest too."""

    arrays: tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]
    classes: tuple[str, ...]
    source: str
    caveat: str | None


@dataclass(frozen=True)
class Shard:
    """A file of records: its name, their number, and the published file's digest (`md5:…`, `sha256:…`)."""

    name: str
    records: int
    digest: str


@dataclass(frozen=True)
class Records:
    """A published .tar.gz of files of records: `label_bytes` (the last one counts), then 3×32×32 pixels."""

    title: str
    archive: Archive
    train: tuple[Shard, ...]
    test: tuple[Shard, ...]
    label_bytes: int
    classes: tuple[str, ...]

    def read(self, data_dir: Path | None = None, download: bool = True, test: bool = True) -> Decoded:
        """Find or download the set and decode it; arguments and errors as in `poolkit.lab.data.load`."""
        archive = replace(self.archive, inside=(self.test if test else self.train)[0].name)
        (path,) = fetch.copies(self.title, [archive], data_dir, download)
        unpacked = path.is_dir()
        x, y, differing = self._decode(path, unpacked, self.train + self.test if test else self.train)
        n = sum(shard.records for shard in self.train)
        how = "unpacked, each file compared with the published one" if unpacked else "SHA-256 checked"
        source = f"{self.title}, {self.archive.url} ({how})"
        return Decoded((x[:n], y[:n], x[n:], y[n:]), self.classes, source, _caveat(self.title, differing))

    def _decode(self, path: Path, unpacked: bool, shards: Sequence[Shard]) -> tuple[np.ndarray, np.ndarray, list[str]]:
        prefix = "" if unpacked else f"{self.archive.unpacked}/"
        width = self.label_bytes + int(np.prod(_PIXELS))
        starts = np.cumsum([0, *(shard.records for shard in shards)])
        rows_of = {
            prefix + s.name: (s, slice(start, start + s.records)) for s, start in zip(shards, starts[:-1], strict=True)
        }
        sizes = {member: shard.records * width for member, (shard, _) in rows_of.items()}
        x = np.empty((starts[-1], *_PIXELS), np.uint8)  # filled file by file: never two copies of the whole
        y = np.empty(starts[-1], np.int64)
        differing = []
        for member, content in (fetch.files if unpacked else fetch.members)(path, sizes):
            shard, rows = rows_of[member]
            table = np.frombuffer(content, np.uint8).reshape(shard.records, width)
            x[rows] = table[:, self.label_bytes :].reshape(-1, *_PIXELS)
            y[rows] = table[:, self.label_bytes - 1]
            fetch.check_labels(member, y[rows], len(self.classes))
            if unpacked and not fetch.matches(content, shard.digest):
                differing.append(shard.name)
        return x, y, differing


@dataclass(frozen=True)
class Idx:
    """A set published as four gzipped idx files: grey pictures and their labels."""

    title: str
    train_images: Archive
    train_labels: Archive
    test_images: Archive
    test_labels: Archive
    classes: tuple[str, ...]

    def read(self, data_dir: Path | None = None, download: bool = True, test: bool = True) -> Decoded:
        """Find or download the set and decode it; arguments and errors as in `poolkit.lab.data.load`."""
        archives = [self.train_images, self.train_labels] + ([self.test_images, self.test_labels] if test else [])
        paths = fetch.copies(self.title, archives, data_dir, download)
        parts = [self._pair(*paths[first : first + 2]) for first in range(0, len(paths), 2)]
        train_x, train_y = parts[0]
        test_x, test_y = parts[1] if test else (train_x[:0], train_y[:0])
        base = self.train_images.url.rsplit("/", 1)[0]
        source = f"{self.title}, {base}/ (SHA-256 of each file checked)"
        return Decoded((train_x, train_y, test_x, test_y), self.classes, source, None)

    def _pair(self, images: Path, labels: Path) -> tuple[np.ndarray, np.ndarray]:
        x, y = _read_idx(images), _read_idx(labels)
        if x.ndim != 3 or y.shape != (len(x),):
            raise DataError(f"{labels}: {y.shape} labels do not go with {x.shape} pictures.")
        fetch.check_labels(str(labels), y, len(self.classes))
        return x[:, None], y.astype(np.int64)


def _caveat(title: str, differing: Sequence[str]) -> str | None:
    if not differing:
        return None
    named, verb = " and ".join(differing), "differs" if len(differing) == 1 else "differ"
    return f"In this copy of {title}, {named} {verb} from what is published, so results may differ a little."


def _read_idx(path: Path) -> np.ndarray:
    try:
        with gzip.open(path) as stream:
            content = stream.read(_MAX_IDX + 1)
    except (OSError, EOFError, zlib.error) as error:
        raise DataError(f"{path} cannot be read as a gzip file: {error}.") from None
    # 0, 0, 8 (unsigned bytes), the number of dimensions, then each dimension as a big-endian 32-bit number.
    dimensions = content[3] if content[:3] == b"\0\0\x08" and len(content) > 3 else 0
    header = 4 + 4 * dimensions
    if not 1 <= dimensions <= 3 or len(content) < header or len(content) > _MAX_IDX:
        raise DataError(f"{path} is not an idx file of bytes: 1 to 3 dimensions, at most {_MAX_IDX:,} bytes.")
    shape = tuple(int(size) for size in np.frombuffer(content, ">u4", dimensions, offset=4))
    if 0 in shape or int(np.prod(shape, dtype=object)) != len(content) - header:
        raise DataError(f"{path}: its header promises {shape}, but {len(content) - header:,} bytes follow.")
    return np.frombuffer(content, np.uint8, offset=header).reshape(shape).copy()


def _idx(title: str, base: str, folder: str, files: Sequence[tuple[str, int]], classes: Sequence[str]) -> Idx:
    stems = ("train-images-idx3", "train-labels-idx1", "t10k-images-idx3", "t10k-labels-idx1")
    archives = [
        Archive(f"{base}/{stem}-ubyte.gz", sha256, size, folder)
        for stem, (sha256, size) in zip(stems, files, strict=True)
    ]
    return Idx(title, archives[0], archives[1], archives[2], archives[3], tuple(classes))


CIFAR10 = Records(
    "CIFAR-10",
    Archive(
        "https://www.cs.toronto.edu/~kriz/cifar-10-binary.tar.gz",
        "c4a38c50a1bc5f3a1c5537f2155ab9d68f9f25eb1ed8d9ddda3db29a59bca1dd",
        170_052_171,
        unpacked="cifar-10-batches-bin",
    ),
    train=(
        Shard("data_batch_1.bin", 10_000, "md5:5dd7e06a14cb22eb9f671a540d1b7c25"),
        Shard("data_batch_2.bin", 10_000, "md5:5ea93a67294ea407fff1d09f752e9692"),
        Shard("data_batch_3.bin", 10_000, "md5:942cd6a4bcdd0dd3c604fbe906cb4421"),
        Shard("data_batch_4.bin", 10_000, "md5:ae636b3ba5c66a11e91e8cb52e771fcb"),
        Shard("data_batch_5.bin", 10_000, "md5:53f37980c15c3d472c316c40844f3f0d"),
    ),
    test=(Shard("test_batch.bin", 10_000, "md5:803d5f7f4d78ea53de84dbe85f74fb6d"),),
    label_bytes=1,
    classes=("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"),
)

CIFAR100 = Records(
    "CIFAR-100",
    Archive(
        "https://www.cs.toronto.edu/~kriz/cifar-100-binary.tar.gz",
        "58a81ae192c23a4be8b1804d68e518ed807d710a4eb253b1f2a199162a40d8ec",
        168_513_733,
        unpacked="cifar-100-binary",
    ),
    train=(Shard("train.bin", 50_000, "sha256:f31298fc616915fa142368359df1c4ca2ae984d6915ca468b998a5ec6aeebf29"),),
    test=(Shard("test.bin", 10_000, "sha256:d8b1e6b7b3bee4020055f0699b111f60b1af1e262aeb93a0b659061746f8224a"),),
    label_bytes=2,  # one of 20 coarse labels, then one of the 100 fine ones
    classes=tuple(
        """
        apple aquarium_fish baby bear beaver bed bee beetle bicycle bottle bowl boy bridge bus butterfly
        camel can castle caterpillar cattle chair chimpanzee clock cloud cockroach couch crab crocodile cup
        dinosaur dolphin elephant flatfish forest fox girl hamster house kangaroo keyboard lamp lawn_mower
        leopard lion lizard lobster man maple_tree motorcycle mountain mouse mushroom oak_tree orange orchid
        otter palm_tree pear pickup_truck pine_tree plain plate poppy porcupine possum rabbit raccoon ray
        road rocket rose sea seal shark shrew skunk skyscraper snail snake spider squirrel streetcar
        sunflower sweet_pepper table tank telephone television tiger tractor train trout tulip turtle
        wardrobe whale willow_tree wolf woman worm
        """.split()
    ),
)

MNIST = _idx(
    "MNIST",
    "https://ossci-datasets.s3.amazonaws.com/mnist",
    "mnist",
    (
        ("440fcabf73cc546fa21475e81ea370265605f56be210a4024d2ca8f203523609", 9_912_422),
        ("3552534a0a558bbed6aed32b30c495cca23d567ec52cac8be1a0730e8010255c", 28_881),
        ("8d422c7b0a1c1c79245a5bcf07fe86e33eeafee792b84584aec276f5a2dbc4e6", 1_648_877),
        ("f7ae60f92e00ec6debd23a6088c31dbd2371eca3ffa0defaefb259924204aec6", 4_542),
    ),
    "0123456789",
)

FASHION_MNIST = _idx(
    "Fashion-MNIST",
    "https://raw.githubusercontent.com/zalandoresearch/fashion-mnist/master/data/fashion",
    "fashion-mnist",
    (
        ("f46450982819e161325683178a5324fc64e606fb3758c65c6ca7dcc91aa489fd", 26_202_446),
        ("bee2410e017aef275ad0716cfa389481fe80dd89f974536e863d982da161f14c", 29_491),
        ("55ec2dd7358c56fba81678bf2cd00a44de07bae64c342921600298a2b5eb517d", 4_385_785),
        ("bad34aa92450454a281e4959ab5a22f03213e21212f4261dadf52e42fa6cd580", 5_125),
    ),
    ("T-shirt", "trouser", "pullover", "dress", "coat", "sandal", "shirt", "sneaker", "bag", "ankle boot"),
)

PUBLISHED: dict[str, Records | Idx] = {
    "cifar10": CIFAR10,
    "cifar100": CIFAR100,
    "mnist": MNIST,
    "fashion-mnist": FASHION_MNIST,
}
