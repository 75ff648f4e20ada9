"""Decoding image files into pixel arrays."""

from __future__ import annotations

import io
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import NamedTuple

import numpy as np
from PIL import ExifTags, Image, ImageOps

from rdc_bench.errors import UserError

Shape = tuple[int, int, int]

#: The only decoders used; pillow's others are not offered what is read here.
FORMATS = ("PNG", "JPEG", "BMP", "WEBP")
CHANNELS = {"L": 1, "RGB": 3}
#: What transparent parts are laid on. An attacker can move it both ways; black and white would cut off half of an ℓp ball.
BACKGROUND = 128
_GREY = ("1", "L", "LA", "La")
_TRANSPARENT = ("LA", "La", "PA", "RGBA", "RGBa")
_INKS = ("CMYK", "YCbCr")


class Picture(NamedTuple):
    """A decoded image file.

    Attributes: pixels: uint8 (C, H, W), grey or RGB. changes: what was done to the file's own pixels that was not exact or not
        the only choice, each in a few words.
    """

    pixels: np.ndarray
    changes: tuple[str, ...]


def tally(pictures: Sequence[Picture]) -> tuple[str, ...]:
    """The changes with how many of the images had them, e.g. ``"2 of 9 images: CMYK converted to RGB"``."""
    counts = Counter(change for picture in pictures for change in picture.changes)
    return tuple(f"{count} of {len(pictures)} images: {change}" for change, count in counts.items())


def decode_exact(raw: bytes, name: str, expected: Shape) -> np.ndarray:
    """Pixels of a grey or RGB image file of a published dataset, uint8 (C, H, W).

    Args:
        name: what to call the image in an error.
        expected: the (C, H, W) that it must have, checked before its pixels are decoded.
    Raises: ``UserError`` for an undecodable image, another mode or another size.
    """
    with _opened(raw, name) as image:
        if image.mode not in CHANNELS:
            raise UserError(f"{name}: images of mode {image.mode} are not read; convert them to grey (L) or RGB")
        shape = (CHANNELS[image.mode], image.height, image.width)
        if shape != expected:
            raise UserError(f"{name}: {describe(shape)}, where {describe(expected)} are expected")
        return _array(image)


def decode_picture(raw: bytes, name: str) -> Picture:
    """A user's image file of any mode, turned upright as its EXIF orientation says.

    Grey files have one channel, all others three. 16-bit grey is scaled to 8 bits and rounded (of 16-bit colour Pillow gives
    the upper 8 bits), CMYK is converted by Pillow's formula, without colour profiles, and transparent parts are laid on
    :data:`BACKGROUND`.

    Args: name: what to call the image in an error.
    Raises: ``UserError`` for an undecodable image, and for one of several frames.
    """
    with _opened(raw, name) as image:
        orientation = image.getexif().get(ExifTags.Base.Orientation, 1)
        plain, changes = _plain(ImageOps.exif_transpose(image), name)
        turned = ("turned upright by their EXIF orientation",) if orientation in range(2, 9) else ()
        return Picture(_array(plain), (*turned, *changes))


def decode_square(raw: bytes, name: str, size: int) -> Picture:
    """The central square of a photograph of any size and mode, scaled to ``size`` × ``size``, in three channels.

    Scaled by Pillow's Lanczos filter, which averages over all pixels that fall on one; the square image that is ``size``
    pixels wide already is left as it is. Modes are treated as by :func:`decode_picture`; EXIF orientation is not followed.

    Args: name: what to call the image in an error.
    Raises: ``UserError`` for an undecodable image, and for one of several frames.
    """
    with _opened(raw, name) as image:
        plain, changes = _plain(image, name)
        side = min(plain.size)
        left, top = (plain.width - side) // 2, (plain.height - side) // 2
        square = plain.convert("RGB").crop((left, top, left + side, top + side))
        return Picture(_array(square.resize((size, size), Image.Resampling.LANCZOS)), changes)


def describe(shape: Shape) -> str:
    """E.g. ``"3 channels of 32×32 pixels"``."""
    channels, height, width = shape
    return f"{channels} channel{'s' * (channels > 1)} of {height}×{width} pixels"


@contextmanager
def _opened(raw: bytes, name: str) -> Iterator[Image.Image]:
    try:
        with Image.open(io.BytesIO(raw), formats=FORMATS) as image:
            frames = getattr(image, "n_frames", 1)
            if frames > 1:
                raise UserError(f"{name}: holds {frames} frames; save the one that is meant as an image of its own")
            yield image
    except UserError:
        raise
    except Exception as error:  # pillow raises whatever the damaged part of the file leads to
        raise UserError(f"{name}: cannot be decoded as an image ({error})") from error


def _plain(image: Image.Image, name: str) -> tuple[Image.Image, tuple[str, ...]]:
    """The same picture as opaque 8-bit grey (L) or RGB, and what had to be changed for it."""
    changes = []
    if image.mode.startswith("I"):
        image = _eight_bits(image)
        changes.append("16-bit grey rounded to 8 bits")
    mode = "L" if image.mode in _GREY else "RGB"
    if image.mode in _TRANSPARENT or "transparency" in image.info:
        image = image.convert("RGBA")
        if image.getchannel("A").getextrema() != (255, 255):
            background = Image.new("RGBA", image.size, (BACKGROUND,) * 3)
            image = Image.alpha_composite(background, image)
            changes.append(f"transparent parts laid on grey of {BACKGROUND}/255")
    elif image.mode in _INKS:
        changes.append(f"{image.mode} converted to RGB")
    elif image.mode not in (*_GREY, "P", "RGB"):
        raise UserError(f"{name}: images of mode {image.mode} are not read; convert them to grey (L) or RGB")
    return image.convert(mode), tuple(changes)


def _eight_bits(image: Image.Image) -> Image.Image:
    """16-bit grey as 8 bits, 65535 becoming 255; Pillow's own conversion cuts off all above 255."""
    values = np.asarray(image).astype(np.uint32)
    grey = Image.fromarray(((values + 128) // 257).astype(np.uint8))
    clear = image.info.get("transparency")
    return (
        grey
        if clear is None
        else Image.merge("LA", (grey, Image.fromarray(np.where(values == clear, 0, 255).astype(np.uint8))))
    )


def _array(image: Image.Image) -> np.ndarray:
    """uint8 (C, H, W)."""
    return np.ascontiguousarray(np.atleast_3d(np.asarray(image)).transpose(2, 0, 1))
