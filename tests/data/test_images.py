from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image

from rdc_bench.data.images import BACKGROUND, decode_picture, decode_square, tally
from rdc_bench.errors import UserError

H, W = 5, 7


def encoded(image: Image.Image, kind: str = "PNG", **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


@pytest.fixture
def colour(rng: np.random.Generator) -> np.ndarray:
    return rng.integers(0, 256, (H, W, 3), np.uint8)


@pytest.fixture
def grey(rng: np.random.Generator) -> np.ndarray:
    return rng.integers(0, 256, (H, W), np.uint8)


@pytest.mark.parametrize("kind", ["PNG", "BMP", "WEBP"])
def test_grey_and_colour_are_exact(colour: np.ndarray, grey: np.ndarray, kind: str) -> None:
    lossless = {"lossless": True} if kind == "WEBP" else {}
    pixels, changes = decode_picture(encoded(Image.fromarray(colour), kind, **lossless), "x")
    assert changes == ()
    assert pixels.flags.c_contiguous
    assert np.array_equal(pixels, colour.transpose(2, 0, 1))
    if kind != "WEBP":  # which has colour alone
        assert np.array_equal(decode_picture(encoded(Image.fromarray(grey), kind), "x").pixels, grey[None])


@pytest.mark.parametrize("shape", [(1, 1), (1, 6), (6, 1), (13, 20)])
def test_any_size(shape: tuple[int, int], rng: np.random.Generator) -> None:
    for channels in ((), (3,)):
        drawn = rng.integers(0, 256, (*shape, *channels), np.uint8)
        pixels = decode_picture(encoded(Image.fromarray(drawn)), "x").pixels
        assert np.array_equal(pixels, np.atleast_3d(drawn).transpose(2, 0, 1))


def test_two_level_and_palette_images(colour: np.ndarray, grey: np.ndarray) -> None:
    levels = Image.fromarray(grey > 99)
    assert levels.mode == "1"
    assert np.array_equal(decode_picture(encoded(levels), "x").pixels, 255 * (grey > 99)[None].astype(np.uint8))
    palette = Image.fromarray(colour).convert("P", palette=Image.Palette.ADAPTIVE, colors=200)
    pixels, changes = decode_picture(encoded(palette), "x")
    assert np.array_equal(pixels, colour.transpose(2, 0, 1))  # 35 colours fit
    assert changes == ()


def test_16_bit_grey_is_scaled_not_cut_off() -> None:
    values = np.array([[0, 128, 129, 255, 256], [257, 32767, 32896, 65406, 65535]], np.uint16)
    pixels, changes = decode_picture(encoded(Image.fromarray(values)), "x")
    assert np.array_equal(pixels[0], np.round(values / 257))
    assert changes == ("16-bit grey rounded to 8 bits",)


def test_16_bit_colour_has_its_upper_bits() -> None:
    """Pillow writes no such file, so the chunks are written here."""
    import struct
    import zlib

    def chunk(name: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    header = struct.pack(">IIBBBBB", 2, 1, 16, 2, 0, 0, 0)
    rows = b"\0" + struct.pack(">6H", 0, 65535, 0x1234, 255, 256, 0x80FF)
    raw = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
    assert decode_picture(raw, "x").pixels[:, 0].T.tolist() == [[0, 255, 0x12], [0, 1, 0x80]]


def test_opaque_alpha_is_dropped(colour: np.ndarray, grey: np.ndarray) -> None:
    full = np.full((H, W), 255, np.uint8)
    for image, expected in (
        (Image.fromarray(np.dstack([colour, full])), colour.transpose(2, 0, 1)),
        (Image.fromarray(np.dstack([grey, full]), "LA"), grey[None]),
    ):
        pixels, changes = decode_picture(encoded(image), "x")
        assert np.array_equal(pixels, expected)
        assert changes == ()


def left_clear(mode: str) -> bytes:
    """The left half transparent over hidden colours, the right half of value 200."""
    alpha = np.zeros((H, W), np.uint8)
    alpha[:, W // 2 :] = 255
    hidden = np.where(alpha == 255, 200, 10).astype(np.uint8)
    if mode == "I;16":
        return encoded(Image.fromarray(hidden.astype(np.uint16) * 257), transparency=10 * 257)
    if mode in ("LA", "RGBA"):
        image = Image.fromarray(hidden).convert(mode)
        image.putalpha(Image.fromarray(alpha))
        return encoded(image)
    image = Image.fromarray(hidden)
    if mode == "P":
        image = image.convert("P")
        return encoded(image, transparency=image.getpixel((0, 0)))
    if mode == "P bytes":
        table = bytearray([255] * 256)
        table[10] = 0
        return encoded(image.convert("P"), transparency=bytes(table))
    return encoded(image.convert(mode), transparency=10 if mode == "L" else (10, 10, 10))


@pytest.mark.parametrize("mode", ["L", "LA", "RGB", "RGBA", "P", "P bytes", "I;16"])
def test_transparent_parts_show_the_background_and_not_what_they_hide(mode: str) -> None:
    pixels, changes = decode_picture(left_clear(mode), "x")
    assert pixels.shape[0] == (1 if mode in ("L", "LA", "I;16") else 3)
    assert (pixels[:, :, : W // 2] == BACKGROUND).all()
    assert (pixels[:, :, W // 2 :] == 200).all()
    assert changes[-1] == "transparent parts laid on grey of 128/255"


def test_half_transparent_parts_are_mixed() -> None:
    image = Image.new("RGBA", (W, H), (255, 0, BACKGROUND, 128))
    pixels = decode_picture(encoded(image), "x").pixels
    assert np.abs(pixels[:, 0, 0].astype(int) - [191, 64, BACKGROUND]).max() <= 1


def test_printed_images_are_converted() -> None:
    flat = Image.new("CMYK", (16, 16), (255, 0, 0, 0))
    pixels, changes = decode_picture(encoded(flat, "JPEG", quality=95), "x")
    assert np.abs(pixels.astype(int) - np.array([0, 255, 255])[:, None, None]).max() <= 8
    assert changes == ("CMYK converted to RGB",)


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_is_followed(kind: str, orientation: int) -> None:
    upright = np.zeros((16, 24), np.uint8)
    upright[:8, :8] = 255  # a bright upper left corner
    stored = {
        1: upright,
        2: upright[:, ::-1],
        3: upright[::-1, ::-1],
        4: upright[::-1],
        5: upright.T,
        6: np.rot90(upright),
        7: upright.T[::-1, ::-1],
        8: np.rot90(upright, -1),
    }[orientation]
    exif = Image.Exif()
    exif[0x0112] = orientation
    pixels, changes = decode_picture(encoded(Image.fromarray(stored).convert("RGB"), kind, exif=exif, quality=95), "x")
    assert pixels.shape == (3, 16, 24)
    assert np.abs(pixels[0].astype(int) - upright).mean() < 8
    assert changes == (() if orientation == 1 else ("turned upright by their EXIF orientation",))


@pytest.mark.parametrize("orientation", [0, 9, 77])
def test_orientations_that_do_not_exist_turn_nothing(orientation: int, colour: np.ndarray) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    pixels, changes = decode_picture(encoded(Image.fromarray(colour), exif=exif), "x")
    assert np.array_equal(pixels, colour.transpose(2, 0, 1))
    assert changes == ()


@pytest.mark.parametrize("kind", ["PNG", "WEBP"])
@pytest.mark.parametrize("decode", [decode_picture, lambda raw, name: decode_square(raw, name, 4)])
def test_several_frames_are_refused(kind: str, decode: object) -> None:
    frames = [Image.new("RGB", (W, H), (i, 0, 0)) for i in (0, 90, 200)]
    raw = encoded(frames[0], kind, save_all=True, append_images=frames[1:])
    with pytest.raises(UserError, match=r"^cat\.png: holds 3 frames; save the one that is meant"):
        decode(raw, "cat.png")  # type: ignore[operator]


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "BMP", "WEBP"])
def test_truncated_files_are_named(kind: str, rng: np.random.Generator) -> None:
    raw = encoded(Image.fromarray(rng.integers(0, 256, (64, 64, 3), np.uint8)), kind)
    for kept in (0, 1, 10, 30, len(raw) // 2, len(raw) - len(raw) // 8):
        with pytest.raises(UserError, match=r"^cat\.png: cannot be decoded as an image \("):
            decode_picture(raw[:kept], "cat.png")


def test_other_formats_are_no_images_here(colour: np.ndarray) -> None:
    for kind in ("GIF", "TIFF", "PPM", "ICO", "TGA"):
        with pytest.raises(UserError, match=r"^cat\.png: cannot be decoded as an image"):
            decode_picture(encoded(Image.fromarray(colour), kind), "cat.png")


def test_tally_counts_images() -> None:
    pictures = [decode_picture(left_clear(mode), "x") for mode in ("L", "RGB", "I;16")]
    assert tally(pictures) == (
        "3 of 3 images: transparent parts laid on grey of 128/255",
        "1 of 3 images: 16-bit grey rounded to 8 bits",
    )


@pytest.mark.parametrize("mode", ["L", "LA", "RGB", "RGBA", "P", "I;16"])
def test_squares_treat_modes_alike(mode: str) -> None:
    pixels, changes = decode_square(left_clear(mode), "x", H)
    whole = decode_picture(left_clear(mode), "x")
    assert np.array_equal(pixels, np.broadcast_to(whole.pixels[:, :, 1:-1], pixels.shape))
    assert changes == whole.changes
