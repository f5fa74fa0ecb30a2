"""Pictures: a file to an array of pixels, and arrays of pixels to a PNG.

Picture files are hostile until read: only PNG, JPEG and WebP are decoded, and the size is taken from the
header and checked before anything is decoded.
"""

from __future__ import annotations

import io
import warnings
from pathlib import Path
from typing import cast

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

FORMATS = ("PNG", "JPEG", "WEBP")
SUFFIXES = (".png", ".jpg", ".jpeg", ".webp")
MAX_BYTES = 64_000_000
MAX_PIXELS = 50_000_000

# Only for the error message: files that people do try, by how they begin.
_OTHER_FORMATS = {b"GIF8": "GIF", b"II*\0": "TIFF", b"MM\0*": "TIFF", b"%PDF": "PDF", b"<svg": "SVG"}


class PictureError(Exception):
    """A file that cannot be read as a picture; the message names the file, the reason and what to do."""


def read_picture(path: str | Path, shape: tuple[int, int, int] = (3, 32, 32)) -> np.ndarray:
    """Read a picture file as the pixels a network takes.

    The EXIF orientation is applied, transparent parts become white, the middle is cropped to the shape's
    proportions (a square) and resized with an antialiasing bicubic filter. A picture that already has the
    wanted size keeps its pixels. Of an animation, the first frame is read.

    Arguments: `path`, a PNG, JPEG or WebP file of at most 64 MB and 50 megapixels; `shape`, channels (1:
    grey, 3: red, green, blue), height and width in pixels, each side 1 to 4096.
    Returns: uint8, shape (C, H, W).
    Raises `PictureError` for anything that is not such a file, `ValueError` for a shape that is not
    allowed.
    """
    channels, height, width = shape
    if channels not in (1, 3) or not (1 <= height <= 4096 and 1 <= width <= 4096):
        raise ValueError(f"shape {tuple(shape)}: allowed are 1 or 3 channels and sides of 1 to 4096 pixels.")
    file = Path(path)
    _check_file(file)
    picture = _decode(file, "L" if channels == 1 else "RGB")
    fitted = ImageOps.fit(picture, (width, height), method=Image.Resampling.BICUBIC)
    pixels = np.array(fitted, dtype=np.uint8).reshape(height, width, channels)
    return np.ascontiguousarray(pixels.transpose(2, 0, 1))


def to_png(pixels: np.ndarray, scale: int = 1) -> bytes:
    """Encode one picture as a PNG file.

    Arguments: `pixels`, uint8 of shape (C, H, W) with 1 or 3 channels; `scale`, every pixel becomes a
    square of `scale` × `scale` sharp pixels.
    Raises `ValueError` for another type or shape, or a scale under 1.
    """
    if pixels.ndim != 3:
        raise ValueError(f"pixels have shape {pixels.shape}; wanted is one picture, (C, H, W).")
    _check_pixels(pixels[None], scale)
    return _encode(_enlarged(pixels, scale))


def grid(pixels: np.ndarray, columns: int, scale: int = 1, gap: int = 1) -> bytes:
    """Encode several pictures as one PNG file, row by row.

    Gaps and unused cells are transparent, so that the grid fits a light page and a dark one.

    Arguments: `pixels`, uint8 of shape (N, C, H, W) with 1 or 3 channels; `columns`, pictures in a row;
    `scale`, as in `to_png`; `gap`, pixels of the PNG between pictures, 0 or more.
    Raises `ValueError` for another type or shape, no picture, or a number out of range.
    """
    _check_pixels(pixels, scale)
    if columns < 1 or gap < 0:
        raise ValueError(f"columns {columns}, gap {gap}: columns must be 1 or more and gap 0 or more.")
    count, channels, height, width = pixels.shape
    columns = min(columns, count)
    rows = -(-count // columns)
    step_y, step_x = height * scale + gap, width * scale + gap
    canvas = np.zeros((channels + 1, rows * step_y - gap, columns * step_x - gap), np.uint8)
    for index, picture in enumerate(pixels):
        top, left = index // columns * step_y, index % columns * step_x
        cell = canvas[:, top : top + height * scale, left : left + width * scale]
        cell[:channels] = _enlarged(picture, scale)
        cell[channels] = 255
    return _encode(canvas)


def _check_file(file: Path) -> None:
    if not file.exists():
        raise PictureError(f"{file}: there is no such file.")
    if file.is_dir():
        raise PictureError(f"{file}: this is a folder; give a picture file (PNG, JPEG or WebP).")
    if not file.is_file():
        raise PictureError(f"{file}: this is not a regular file.")
    size = file.stat().st_size
    if size == 0:
        raise PictureError(f"{file}: the file is empty.")
    if size > MAX_BYTES:
        raise PictureError(f"{file}: {size / 1e6:.0f} MB is too large; at most {MAX_BYTES / 1e6:.0f} MB are read.")


def _decode(file: Path, mode: str) -> Image.Image:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # odd metadata is no reason to stop
        warnings.simplefilter("error", Image.DecompressionBombWarning)
        try:
            with Image.open(file, formats=FORMATS) as image:
                if image.width * image.height > MAX_PIXELS:
                    raise _too_many_pixels(file)
                return _flattened(ImageOps.exif_transpose(image), mode)
        except PictureError:
            raise
        except (Image.DecompressionBombWarning, Image.DecompressionBombError):
            raise _too_many_pixels(file) from None
        except UnidentifiedImageError:
            raise PictureError(f"{file}: {_what_else(file)}") from None
        except PermissionError:
            raise PictureError(f"{file}: you may not read this file.") from None
        except Exception as error:  # decoders meet a broken file with exceptions of many types
            raise PictureError(f"{file}: the picture is damaged or cut off ({error}).") from None


def _too_many_pixels(file: Path) -> PictureError:
    return PictureError(f"{file}: too many pixels; at most {MAX_PIXELS // 1_000_000} megapixels are read.")


def _what_else(file: Path) -> str:
    with file.open("rb") as stream:
        start = stream.read(4)
    if start in _OTHER_FORMATS:
        return f"{_OTHER_FORMATS[start]} is not read; save the picture as PNG, JPEG or WebP."
    return "this is not a PNG, JPEG or WebP picture (the file's name does not matter, its content does)."


def _flattened(image: Image.Image, mode: str) -> Image.Image:
    if image.mode.startswith("I"):
        # Pillow would clip 16-bit greys at 255 instead of scaling them.
        image = Image.fromarray((np.asarray(image).astype(np.uint32) >> 8).astype(np.uint8))
    if image.has_transparency_data:
        front = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", front.size, "white"), front)
    return image.convert(mode)


def _check_pixels(pixels: np.ndarray, scale: int) -> None:
    if pixels.dtype != np.uint8 or pixels.ndim != 4 or pixels.shape[1] not in (1, 3) or 0 in pixels.shape:
        raise ValueError(f"pixels are {pixels.dtype} {pixels.shape}; wanted are uint8 (N, C, H, W), C 1 or 3.")
    if scale < 1:
        raise ValueError(f"scale {scale}: must be 1 or more.")


def _enlarged(pixels: np.ndarray, scale: int) -> np.ndarray:
    return cast(np.ndarray, pixels.repeat(scale, axis=1).repeat(scale, axis=2))


def _encode(pixels: np.ndarray) -> bytes:
    rows = pixels.transpose(1, 2, 0)
    image = Image.fromarray(np.ascontiguousarray(rows[..., 0] if rows.shape[2] == 1 else rows))
    buffer = io.BytesIO()
    image.save(buffer, format="PNG", optimize=True)
    return buffer.getvalue()
