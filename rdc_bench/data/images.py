"""Decoding image files into pixel arrays."""

from __future__ import annotations

import io

import numpy as np
from PIL import Image

from rdc_bench.errors import UserError

Shape = tuple[int, int, int]

#: The only decoders used; pillow's others are not offered what is read here.
FORMATS = ("PNG", "JPEG", "BMP", "WEBP")
CHANNELS = {"L": 1, "RGB": 3}


def decode_image(raw: bytes, name: str, expected: Shape | None = None) -> np.ndarray:
    """Pixels of a grey or RGB image file, uint8 (C, H, W).

    Args:
        name: what to call the image in an error.
        expected: the (C, H, W) that it must have, checked before its pixels are decoded.
    Raises: ``UserError`` for an undecodable image, another mode or another size.
    """
    try:
        with Image.open(io.BytesIO(raw), formats=FORMATS) as image:
            if image.mode not in CHANNELS:
                raise UserError(f"{name}: images of mode {image.mode} are not read; convert them to grey (L) or RGB")
            shape = (CHANNELS[image.mode], image.height, image.width)
            if expected is not None and shape != expected:
                raise UserError(f"{name}: {describe(shape)}, where {describe(expected)} are expected")
            pixels = np.asarray(image)
    except UserError:
        raise
    except Exception as error:  # pillow raises whatever the damaged part of the file leads to
        raise UserError(f"{name}: cannot be decoded as an image ({error})") from error
    return pixels.reshape(shape[1], shape[2], shape[0]).transpose(2, 0, 1)


def decode_square(raw: bytes, name: str, size: int) -> np.ndarray:
    """The central square of a photograph of any size and mode, scaled to ``size`` × ``size``: uint8 (3, size, size).

    Scaled by Pillow's Lanczos filter, which averages over all pixels that fall on one; the square image that is ``size``
    pixels wide already is left as it is.

    Args: name: what to call the image in an error.
    Raises: ``UserError`` for an undecodable image.
    """
    try:
        with Image.open(io.BytesIO(raw), formats=FORMATS) as image:
            width, height = image.size
            side = min(width, height)
            left, top = (width - side) // 2, (height - side) // 2
            square = image.convert("RGB").crop((left, top, left + side, top + side))
            pixels = np.asarray(square.resize((size, size), Image.Resampling.LANCZOS))
    except Exception as error:  # pillow raises whatever the damaged part of the file leads to
        raise UserError(f"{name}: cannot be decoded as an image ({error})") from error
    return pixels.transpose(2, 0, 1)


def describe(shape: Shape) -> str:
    """E.g. ``"3 channels of 32×32 pixels"``."""
    channels, height, width = shape
    return f"{channels} channel{'s' * (channels > 1)} of {height}×{width} pixels"
