from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from rdc_bench.data import load_dataset
from rdc_bench.errors import Notice, UserError


def draw(path: Path, colour: int = 0, *, mode: str = "RGB", size: tuple[int, int] = (5, 4)) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("L", size, colour).convert(mode).save(path)


def test_classes_take_turns_in_sorted_order(tmp_path: Path) -> None:
    for colour, name in enumerate(["cat/2.png", "cat/1.bmp", "ant/b.png", "ant/a.PNG", "ant/c.png", "bee/x.png"]):
        draw(tmp_path / name, colour)
    data = load_dataset("image-folder", data_dir=tmp_path)
    assert data.classes == ("ant", "bee", "cat")
    assert data.pixels.shape == (6, 3, 4, 5)
    assert data.pixels.dtype == torch.uint8
    assert data.pixels[:, 0, 0, 0].tolist() == [3, 5, 1, 2, 0, 4]
    assert data.labels.tolist() == [0, 1, 2, 0, 2, 0]
    assert load_dataset("image-folder", n=3, data_dir=tmp_path).sha256 == data.head(3).sha256


@pytest.mark.parametrize("ending", ["png", "jpg", "jpeg", "bmp", "webp"])
def test_formats(tmp_path: Path, ending: str) -> None:
    draw(tmp_path / "a" / f"1.{ending}", 77)
    assert load_dataset("image-folder", data_dir=tmp_path).pixels.float().mean().sub(77).abs() <= 1


def test_grey_images_have_one_channel(tmp_path: Path) -> None:
    draw(tmp_path / "a" / "1.png", 9, mode="L")
    assert load_dataset("image-folder", data_dir=tmp_path).pixels.shape == (1, 1, 4, 5)


def test_hidden_files_and_files_that_are_no_images_are_ignored(tmp_path: Path) -> None:
    draw(tmp_path / "a" / "1.png")
    draw(tmp_path / "a" / ".hidden.png", size=(9, 9))
    draw(tmp_path / ".cache" / "1.png", size=(9, 9))
    for name in (".DS_Store", "Thumbs.db", "desktop.ini", "notes.txt", "labels.csv", "LICENSE", "1.png.json", "1.png~"):
        (tmp_path / "a" / name).write_text("no image")
    (tmp_path / "README.png").write_text("not in a class")
    (tmp_path / "a" / "folder.png").mkdir()
    (tmp_path / "a" / "2.png").symlink_to(tmp_path / "a" / "1.png")
    data = load_dataset("image-folder", data_dir=tmp_path)
    assert data.classes == ("a",)
    assert len(data) == 2


@pytest.mark.parametrize("name", ["2.gif", "2.TIF", "2.tiff", "2.ppm"])
def test_images_of_other_kinds_are_not_left_out_in_silence(tmp_path: Path, name: str) -> None:
    draw(tmp_path / "a" / "1.png")
    (tmp_path / "a" / name).write_bytes(b"")
    with pytest.raises(UserError, match=rf"{name}: \.\w+ files are not read; make it one of \.png, "):
        load_dataset("image-folder", data_dir=tmp_path)


@pytest.mark.parametrize("link", ["data/a/2.png", "data/b"])
def test_links_that_lead_out_are_named(tmp_path: Path, link: str) -> None:
    draw(tmp_path / "data" / "a" / "1.png")
    draw(tmp_path / "outside" / "secret.png")
    (tmp_path / link).symlink_to(tmp_path / "outside" / ("secret.png" if link.endswith("png") else ""))
    with pytest.raises(UserError, match=rf"{link}: a link that leads out of .*data; put what it leads to"):
        load_dataset("image-folder", data_dir=tmp_path / "data")


def test_the_folder_itself_may_be_a_link(tmp_path: Path) -> None:
    draw(tmp_path / "real" / "a" / "1.png")
    (tmp_path / "data").symlink_to(tmp_path / "real")
    assert len(load_dataset("image-folder", data_dir=tmp_path / "data")) == 1


@pytest.mark.parametrize("target", ["gone.png", "2.png"])
def test_links_that_lead_nowhere_are_named(tmp_path: Path, target: str) -> None:
    draw(tmp_path / "a" / "1.png")
    (tmp_path / "a" / "2.png").symlink_to(tmp_path / "a" / target)
    with pytest.raises(UserError, match=r"2\.png: a link that leads nowhere"):
        load_dataset("image-folder", data_dir=tmp_path)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs named pipes")
def test_pipes_are_not_waited_for(tmp_path: Path) -> None:
    draw(tmp_path / "a" / "1.png")
    os.mkfifo(tmp_path / "a" / "2.png")
    with pytest.raises(UserError, match=r"2\.png: not a file"):
        load_dataset("image-folder", data_dir=tmp_path)


def test_a_class_without_images_keeps_its_number(tmp_path: Path) -> None:
    draw(tmp_path / "a" / "1.png")
    (tmp_path / "b").mkdir()
    draw(tmp_path / "c" / "1.png")
    data = load_dataset("image-folder", data_dir=tmp_path)
    assert data.classes == ("a", "b", "c")
    assert data.labels.tolist() == [0, 2]


def test_splits(tmp_path: Path) -> None:
    for i in range(20):
        draw(tmp_path / "train" / ("a" if i % 2 else "b") / f"{i:02}.png", i)
    draw(tmp_path / "test" / "b" / "1.png", 100)
    train, validation, test = (load_dataset("image-folder", s, data_dir=tmp_path) for s in ("train", "validation", "test"))
    assert (len(train), len(validation), len(test)) == (18, 2, 1)
    assert sorted(torch.cat([train.pixels, validation.pixels])[:, 0, 0, 0].tolist()) == list(range(20))
    assert test.classes == train.classes == ("a", "b")
    assert test.labels.tolist() == [1]

    draw(tmp_path / "validation" / "a" / "1.png", 200)
    assert len(load_dataset("image-folder", "train", data_dir=tmp_path)) == 20
    assert load_dataset("image-folder", "validation", data_dir=tmp_path).pixels[0, 0, 0, 0] == 200


@pytest.mark.parametrize("split", ["train", "validation"])
def test_folder_without_splits_is_a_test_set(tmp_path: Path, split: str) -> None:
    draw(tmp_path / "a" / "1.png")
    with pytest.raises(UserError, match="has no folder 'train'"):
        load_dataset("image-folder", split, data_dir=tmp_path)


@pytest.mark.parametrize("size", [(4, 5), (5, 5), (1, 4)])
def test_two_images_of_different_sizes_are_named(tmp_path: Path, size: tuple[int, int]) -> None:
    for name in ("1", "2"):
        draw(tmp_path / "a" / f"{name}.png")
    draw(tmp_path / "a" / "3.png", size=size)
    draw(tmp_path / "a" / "4.png", size=(9, 9))
    message = rf"a/1\.png has 4×5 pixels, .*a/3\.png has {size[1]}×{size[0]}: all must have one size, the model's; resize"
    with pytest.raises(UserError, match=message):
        load_dataset("image-folder", data_dir=tmp_path)


def test_an_image_turned_by_its_exif_has_its_upright_size(tmp_path: Path) -> None:
    draw(tmp_path / "a" / "1.png", size=(5, 4))
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("RGB", (4, 5)).save(tmp_path / "a" / "2.png", exif=exif)
    with pytest.warns(Notice, match=r"\(1 of 2 images: turned upright by their EXIF orientation\)"):
        assert load_dataset("image-folder", data_dir=tmp_path).image_shape == (3, 4, 5)


@pytest.mark.parametrize("first", ["L", "RGB"])
def test_grey_and_colour_together_are_colour(tmp_path: Path, first: str) -> None:
    draw(tmp_path / "a" / "1.png", 7, mode=first)
    draw(tmp_path / "a" / "2.png", 8, mode="RGB" if first == "L" else "L")
    with pytest.warns(Notice) as said:
        data = load_dataset("image-folder", data_dir=tmp_path)
    assert data.image_shape == (3, 4, 5)
    assert data.pixels.float().mean(dim=(2, 3)).tolist() == [[7, 7, 7], [8, 8, 8]]
    assert data.changes == ("1 of 2 images: grey repeated in 3 channels",)
    assert str(said[0].message) == f"image-folder: {tmp_path} ({data.changes[0]})"
    assert load_dataset("image-folder", n=1, data_dir=tmp_path).image_shape[0] == (1 if first == "L" else 3)


@pytest.mark.filterwarnings("ignore::rdc_bench.errors.Notice")
@pytest.mark.parametrize("modes", [("L", "L"), ("RGB", "RGB"), ("L", "RGB"), ("RGB", "L")])
@pytest.mark.parametrize("size", [(5, 4), (1, 1), (13, 20)])
@pytest.mark.parametrize("channels", [1, 3])
def test_images_take_the_models_channels(
    tmp_path: Path, modes: tuple[str, str], size: tuple[int, int], channels: int, rng: np.random.Generator
) -> None:
    (tmp_path / "a").mkdir()
    expected = []
    for i, mode in enumerate(modes):
        image = Image.fromarray(rng.integers(0, 256, (size[1], size[0], 3), np.uint8)).convert(mode)
        image.save(tmp_path / "a" / f"{i}.png")
        as_taken = image.convert("L" if channels == 1 else "RGB")
        expected.append(np.asarray(as_taken).reshape(size[1], size[0], channels).transpose(2, 0, 1))
    data = load_dataset("image-folder", data_dir=tmp_path, channels=channels)
    assert np.array_equal(data.pixels.numpy(), np.stack(expected))
    assert data.pixels.is_contiguous()
    assert data.images.is_contiguous()
    exact = set(modes) == {"L" if channels == 1 else "RGB"}
    assert (data.provenance == str(tmp_path)) == exact
    assert (data.changes == ()) == exact


@pytest.mark.parametrize("raw", [b"", b"no image", b"GIF89a" + bytes(50), None])
def test_undecodable_image_is_named(tmp_path: Path, raw: bytes | None) -> None:
    draw(tmp_path / "a" / "1.png")
    path = tmp_path / "a" / "2.png"
    draw(path, size=(64, 64))
    path.write_bytes(path.read_bytes()[:60] if raw is None else raw)
    path.rename(tmp_path / "a" / "0.png")
    with pytest.raises(UserError, match=r"0\.png: cannot be decoded as an image"):
        load_dataset("image-folder", data_dir=tmp_path)


@pytest.mark.skipif(os.name != "posix" or os.geteuid() == 0, reason="needs a user whom file permissions bind")
def test_unreadable_image_is_named(tmp_path: Path) -> None:
    draw(tmp_path / "a" / "1.png")
    (tmp_path / "a" / "1.png").chmod(0)
    with pytest.raises(UserError, match=r"1\.png: cannot be read"):
        load_dataset("image-folder", data_dir=tmp_path)


def test_a_folder_that_may_not_be_listed_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    draw(tmp_path / "a" / "1.png")

    def refuse(path: Path) -> list[Path]:
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(Path, "iterdir", refuse)
    with pytest.raises(UserError, match=r"image-folder: cannot be read \(.*Permission denied"):
        load_dataset("image-folder", data_dir=tmp_path)


def test_no_images(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    with pytest.raises(UserError, match="no images: it must hold one folder per class"):
        load_dataset("image-folder", data_dir=tmp_path)


def test_no_folder(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no such folder"):
        load_dataset("image-folder", data_dir=tmp_path / "absent")
    (tmp_path / "file.zip").write_bytes(b"")
    with pytest.raises(UserError, match=r"file\.zip: not a folder"):
        load_dataset("image-folder", data_dir=tmp_path / "file.zip")
    with pytest.raises(UserError, match="pass --data-dir"):
        load_dataset("image-folder")


@pytest.mark.parametrize("n", [0, 2])
def test_n_out_of_range(tmp_path: Path, n: int) -> None:
    draw(tmp_path / "a" / "1.png")
    with pytest.raises(UserError, match=f"n = {n}.*"):
        load_dataset("image-folder", n=n, data_dir=tmp_path)
