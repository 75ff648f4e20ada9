from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch
from PIL import Image

from rdc_bench.data import load_dataset
from rdc_bench.errors import UserError


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


def test_hidden_files_other_files_and_links_outside_are_ignored(tmp_path: Path) -> None:
    folder, outside = tmp_path / "data", tmp_path / "outside"
    draw(folder / "a" / "1.png")
    draw(folder / "a" / ".hidden.png", size=(9, 9))
    draw(folder / ".cache" / "1.png", size=(9, 9))
    draw(outside / "secret.png", size=(9, 9))
    (folder / "a" / "notes.txt").write_text("no image")
    (folder / "README.png").write_text("not in a class")
    (folder / "a" / "folder.png").mkdir()
    (folder / "a" / "2.png").symlink_to(outside / "secret.png")
    (folder / "a" / "3.png").symlink_to(folder / "a" / "1.png")
    (folder / "b").symlink_to(outside)
    data = load_dataset("image-folder", data_dir=folder)
    assert data.classes == ("a",)
    assert len(data) == 2


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


@pytest.mark.parametrize(
    ("odd", "message"),
    [
        ({"size": (4, 5)}, "3 channels of 5×4 pixels, where 3 channels of 4×5 pixels are expected"),
        ({"mode": "L"}, "1 channel of 4×5 pixels, where 3 channels"),
        ({"mode": "RGBA"}, "mode RGBA are not read"),
        ({"mode": "P"}, "mode P are not read"),
    ],
)
def test_first_odd_image_is_named(tmp_path: Path, odd: dict, message: str) -> None:
    draw(tmp_path / "a" / "1.png")
    draw(tmp_path / "a" / "2.png", **odd)
    draw(tmp_path / "a" / "3.png", **odd)
    with pytest.raises(UserError, match=rf"2\.png: .*{message}"):
        load_dataset("image-folder", data_dir=tmp_path)


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


def test_no_images(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    with pytest.raises(UserError, match="no images: it must hold one folder per class"):
        load_dataset("image-folder", data_dir=tmp_path)


def test_no_folder(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no such folder"):
        load_dataset("image-folder", data_dir=tmp_path / "absent")
    with pytest.raises(UserError, match="pass --data-dir"):
        load_dataset("image-folder")


@pytest.mark.parametrize("n", [0, 2])
def test_n_out_of_range(tmp_path: Path, n: int) -> None:
    draw(tmp_path / "a" / "1.png")
    with pytest.raises(UserError, match=f"n = {n}.*"):
        load_dataset("image-folder", n=n, data_dir=tmp_path)
