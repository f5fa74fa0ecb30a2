"""Pictures: what is read is what was drawn, and hostile files are refused with a reason."""

import io
import os
import struct
import warnings
import zlib

import numpy as np
import pytest

pytest.importorskip("PIL")

from PIL import Image  # noqa: E402

from poolkit.lab import pictures  # noqa: E402
from poolkit.lab.pictures import PictureError, grid, read_picture, to_png  # noqa: E402

NOISE = np.random.default_rng(0).integers(0, 256, (3, 32, 32), dtype=np.uint8)


def chunk(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def png_header(width: int, height: int) -> bytes:
    """A PNG that claims a size and holds one row at most."""
    size = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    rows = chunk(b"IDAT", zlib.compress(b"\0" * 100))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", size) + rows + chunk(b"IEND", b"")


def decoded(png: bytes) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(png)))


def test_a_png_of_the_wanted_size_keeps_its_pixels(tmp_path):
    path = tmp_path / "a.png"
    path.write_bytes(to_png(NOISE))
    assert np.array_equal(read_picture(path), NOISE)
    assert read_picture(str(path)).flags.c_contiguous


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP"])
@pytest.mark.parametrize("shape", [(3, 32, 32), (1, 28, 28), (3, 10, 20)])
def test_every_format_gives_the_wanted_shape(kind, shape, tmp_path):
    Image.new("RGB", (50, 70), (200, 100, 50)).save(tmp_path / "a", format=kind)
    pixels = read_picture(tmp_path / "a", shape)
    assert pixels.shape == shape and pixels.dtype == np.uint8
    wanted = [200, 100, 50] if shape[0] == 3 else [124]  # 0.299 R + 0.587 G + 0.114 B
    assert np.abs(pixels.reshape(shape[0], -1).T.astype(int) - wanted).max() <= 3


def test_the_middle_square_is_kept(tmp_path):
    wide = Image.new("RGB", (96, 32), "red")
    wide.paste(Image.new("RGB", (32, 32), "blue"), (32, 0))
    wide.save(tmp_path / "a.png")
    assert (read_picture(tmp_path / "a.png").reshape(3, -1).T == [0, 0, 255]).all()


def test_shrinking_averages_instead_of_picking(tmp_path):
    board = (np.indices((320, 320)).sum(0) % 2 * 255).astype(np.uint8)
    Image.fromarray(board).save(tmp_path / "a.png")
    pixels = read_picture(tmp_path / "a.png", (1, 32, 32))
    assert np.abs(pixels[0, 2:-2, 2:-2].astype(int) - 127).max() <= 2


def test_the_orientation_of_a_photograph_is_honoured(tmp_path):
    halves = np.zeros((32, 32), np.uint8)
    halves[:16] = 255  # light on top
    turned = Image.Exif()
    turned[0x0112] = 3  # to be shown upside down
    Image.fromarray(halves).save(tmp_path / "a.jpg", exif=turned, quality=95)
    pixels = read_picture(tmp_path / "a.jpg", (1, 32, 32))[0]
    assert pixels[:14].max() < 50 and pixels[18:].min() > 200


def test_what_is_transparent_becomes_white(tmp_path):
    Image.new("RGBA", (8, 8), (0, 0, 0, 0)).save(tmp_path / "a.png")
    assert (read_picture(tmp_path / "a.png") == 255).all()
    Image.new("RGBA", (8, 8), (0, 0, 0, 128)).save(tmp_path / "b.png")
    assert np.abs(read_picture(tmp_path / "b.png").astype(int) - 127).max() <= 1
    palette = Image.new("P", (8, 8), 0)
    palette.putpalette([10, 20, 30])
    palette.save(tmp_path / "c.png", transparency=0)
    assert (read_picture(tmp_path / "c.png") == 255).all()


def test_sixteen_bit_greys_are_scaled_not_clipped(tmp_path):
    Image.fromarray(np.full((8, 8), 0x8000, np.uint16)).save(tmp_path / "a.png")
    assert (read_picture(tmp_path / "a.png", (1, 8, 8)) == 128).all()


def write(path, content: bytes):
    path.write_bytes(content)
    return path


def saved(kind: str) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(np.moveaxis(NOISE, 0, -1)).save(buffer, format=kind)
    return buffer.getvalue()


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "empty"),
        (b"just some text, no picture", "not a PNG, JPEG or WebP"),
        (saved("GIF"), "GIF is not read"),
        (saved("TIFF"), "TIFF is not read"),
        (saved("BMP"), "not a PNG, JPEG or WebP"),
        (saved("PNG")[:300], "damaged or cut off"),
        (saved("JPEG")[:300], "damaged or cut off|not a PNG"),
        (saved("WEBP")[:300], "damaged or cut off|not a PNG"),
        (saved("PNG")[:20], "damaged or cut off|not a PNG"),
        (png_header(60_000, 60_000), "too many pixels"),
        (png_header(10_000, 10_000), "too many pixels"),
        (png_header(7_100, 7_100), "too many pixels"),
        (png_header(2**31 - 1, 2**31 - 1), "too many pixels|damaged"),
        (png_header(64, 64), "damaged or cut off"),
    ],
)
def test_a_hostile_file_is_refused_with_its_name_and_a_reason(content, reason, tmp_path):
    path = write(tmp_path / "picture.png", content)
    with pytest.raises(PictureError, match=f"picture.png: .*({reason})"):
        read_picture(path)


def test_a_huge_size_is_refused_before_decoding(tmp_path, monkeypatch):
    monkeypatch.setattr(pictures, "_flattened", lambda *_: pytest.fail("it was decoded"))
    with pytest.raises(PictureError, match="megapixels"):
        read_picture(write(tmp_path / "a.png", png_header(8_000, 8_000)))


def test_a_large_file_is_refused_unread(tmp_path):
    path = tmp_path / "a.png"
    with path.open("wb") as file:
        file.truncate(64_000_001)
    with pytest.raises(PictureError, match="at most 64 MB"):
        read_picture(path)


def test_what_is_no_file_is_refused(tmp_path):
    with pytest.raises(PictureError, match="no such file"):
        read_picture(tmp_path / "none.png")
    with pytest.raises(PictureError, match="folder"):
        read_picture(tmp_path)
    if hasattr(os, "mkfifo"):
        os.mkfifo(tmp_path / "pipe")
        with pytest.raises(PictureError, match="regular file"):
            read_picture(tmp_path / "pipe")


def test_no_prefix_of_a_picture_gets_through_or_fails_otherwise(tmp_path):
    """Every way to cut a file ends in a PictureError: never another exception, never half a picture."""
    for kind in ("PNG", "JPEG"):
        whole = saved(kind)
        for end in range(1, len(whole) - 14, 97):
            with pytest.raises(PictureError):
                read_picture(write(tmp_path / "a", whole[:end]))


def test_garbled_bytes_give_a_picture_or_a_picture_error(tmp_path):
    rng = np.random.default_rng(3)
    for kind in ("PNG", "JPEG", "WEBP"):
        whole = np.frombuffer(saved(kind), np.uint8)
        for _ in range(60):
            garbled = whole.copy()
            garbled[rng.integers(8, len(garbled), 4)] = rng.integers(0, 256, 4)
            try:
                assert read_picture(write(tmp_path / "a", garbled.tobytes())).shape == (3, 32, 32)
            except PictureError:
                pass


def test_the_caller_keeps_its_warning_filters(tmp_path):
    before = list(warnings.filters)
    with pytest.raises(PictureError):
        read_picture(write(tmp_path / "a.png", png_header(10_000, 10_000)))
    assert warnings.filters == before


@pytest.mark.parametrize("shape", [(2, 8, 8), (3, 0, 8), (3, 8, 5000)])
def test_a_shape_that_is_not_allowed_is_a_value_error(shape, tmp_path):
    with pytest.raises(ValueError, match="allowed are 1 or 3 channels"):
        read_picture(write(tmp_path / "a.png", to_png(NOISE)), shape)


def test_to_png_enlarges_without_smoothing():
    assert np.array_equal(decoded(to_png(NOISE)), NOISE.transpose(1, 2, 0))
    large = decoded(to_png(NOISE[:1], scale=3))
    assert large.shape == (96, 96) and np.array_equal(large[1::3, 1::3], NOISE[0])
    assert np.array_equal(large, np.kron(NOISE[0], np.ones((3, 3), np.uint8)))


def test_a_grid_places_pictures_row_by_row_with_transparent_gaps():
    five = np.stack([np.full((3, 4, 6), 40 * (i + 1), np.uint8) for i in range(5)])
    image = decoded(grid(five, columns=3, scale=2, gap=1))
    assert image.shape == (2 * 8 + 1, 3 * 12 + 2, 4)
    assert image[0, 13].tolist() == [80, 80, 80, 255] and image[9, 0].tolist() == [160, 160, 160, 255]
    assert image[0, 12, 3] == 0 and image[8, 0, 3] == 0 and image[9, 26:, 3].max() == 0
    assert (image[..., 3] == 255).sum() == 5 * 8 * 12
    assert decoded(grid(five[:2, :1], columns=9, gap=0)).shape == (4, 12, 2)


@pytest.mark.parametrize(
    "call",
    [
        lambda: to_png(NOISE.astype(np.float32)),
        lambda: to_png(NOISE[None]),
        lambda: to_png(NOISE[:2]),
        lambda: to_png(NOISE, scale=0),
        lambda: grid(NOISE, 2),
        lambda: grid(NOISE[None][:0], 2),
        lambda: grid(NOISE[None], 0),
        lambda: grid(NOISE[None], 1, gap=-1),
    ],
)
def test_pixels_of_another_kind_are_value_errors(call):
    with pytest.raises(ValueError, match="wanted|must be"):
        call()
