from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from rdc_bench.data import load_dataset
from rdc_bench.data.restricted_imagenet import CLASSES, GROUPS
from rdc_bench.errors import Notice, UserError

NAME = "restricted-imagenet"


def draw(path: Path, colour: int, *, mode: str = "RGB", size: tuple[int, int] = (70, 66)) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("L", size, colour).convert(mode).save(path, "PNG" if path.suffix == ".png" else "JPEG", quality=95)


@pytest.fixture(scope="module")
def imagenet(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """1,000 folders with WordNet ids in irregular steps; a photograph in each, whose grey value tells the class modulo 251."""
    root = tmp_path_factory.mktemp("imagenet")
    for label in range(1000):
        # Names run against the order of the classes, as those of the validation set run against any order.
        path = root / "val" / f"n{1_440_764 + 7_919 * label:08d}" / f"ILSVRC2012_val_{50_000 - label:08d}.JPEG"
        draw(path, label % 251, size=(66, 66))
    return root


def test_the_groups_are_the_papers() -> None:
    assert [group.start for group in GROUPS.values()] == [151, 281, 30, 33, 80, 365, 389, 118, 300]
    members = [i for group in GROUPS.values() for i in group]
    assert len(members) == len(set(members)) == 203


def test_classes_are_numbered_by_sorted_wordnet_ids(imagenet: Path) -> None:
    data = load_dataset(NAME, data_dir=imagenet)
    assert (len(data), data.image_shape, data.classes) == (203, (3, 64, 64), CLASSES)
    assert torch.bincount(data.labels).tolist() == [len(group) for group in GROUPS.values()]
    # The first nine are the first image of each group by file name: the one of the group's last class.
    assert data.labels[:9].tolist() == list(range(9))
    grey = data.pixels[:9].float().mean(dim=(1, 2, 3)).round().int().tolist()
    assert grey == [group[-1] % 251 for group in GROUPS.values()]
    assert load_dataset(NAME, n=20, data_dir=imagenet / "val").sha256 == data.head(20).sha256


@pytest.mark.parametrize("removed", [1, 600])
def test_too_few_wordnet_ids_cannot_be_numbered(tmp_path: Path, removed: int) -> None:
    for label in range(1000 - removed):
        folder = tmp_path / f"n{label:08d}"
        folder.mkdir()
        (folder / "a.JPEG").write_bytes(b"")
    with pytest.raises(UserError, match=rf"holds images of {1000 - removed} WordNet ids, where all 1,000 are needed"):
        load_dataset(NAME, data_dir=tmp_path)


def nine_folders(root: Path) -> None:
    for colour, name in enumerate(CLASSES):
        draw(root / name / "1.png", 10 * colour)


def test_one_folder_per_group(tmp_path: Path) -> None:
    nine_folders(tmp_path)
    draw(tmp_path / "dog" / "2.png", 200)
    data = load_dataset(NAME, data_dir=tmp_path)
    assert data.labels.tolist() == [*range(9), 0]
    assert data.pixels[:, 0, 0, 0].tolist() == [*range(0, 90, 10), 200]


def test_a_missing_group_is_named(tmp_path: Path) -> None:
    nine_folders(tmp_path)
    (tmp_path / "crab" / "1.png").unlink()
    with pytest.raises(UserError, match=r"holds images of 0 WordNet ids.*missing: crab\)"):
        load_dataset(NAME, data_dir=tmp_path)


def test_images_are_cut_to_their_central_square_and_scaled_by_averaging(tmp_path: Path) -> None:
    nine_folders(tmp_path)
    wide = np.zeros((128, 384, 3), np.uint8)
    wide[:, 128:256] = np.where(np.indices((128, 128)).sum(axis=0)[..., None] % 2, 200, 100)  # a chequered square
    Image.fromarray(wide).save(tmp_path / "dog" / "1.png")
    first = load_dataset(NAME, n=1, data_dir=tmp_path).pixels[0].float()
    assert first.shape == (3, 64, 64)
    assert first[:, 2:-2, 2:-2].sub(150).abs().max() <= 1


def test_images_of_the_right_size_are_left_as_they_are(tmp_path: Path, rng: np.random.Generator) -> None:
    nine_folders(tmp_path)
    pixels = rng.integers(0, 256, (64, 64, 3), np.uint8)
    Image.fromarray(pixels).save(tmp_path / "dog" / "1.png")
    loaded = load_dataset(NAME, n=1, data_dir=tmp_path)
    assert torch.equal(loaded.pixels[0], torch.from_numpy(pixels.transpose(2, 0, 1)))


@pytest.mark.filterwarnings("ignore::rdc_bench.errors.Notice")
@pytest.mark.parametrize("mode", ["L", "CMYK"])
def test_grey_and_printed_photographs_become_rgb(tmp_path: Path, mode: str) -> None:
    nine_folders(tmp_path)
    (tmp_path / "dog" / "1.png").unlink()
    draw(tmp_path / "dog" / "1.JPEG", 120, mode=mode)
    data = load_dataset(NAME, n=1, data_dir=tmp_path)
    assert data.image_shape == (3, 64, 64)
    assert data.pixels.float().sub(120).abs().max() <= 3
    assert data.changes == (() if mode == "L" else ("1 of 1 images: CMYK converted to RGB",))


def test_16_bit_photographs_are_not_cut_off(tmp_path: Path) -> None:
    nine_folders(tmp_path)
    Image.fromarray(np.full((67, 99), 120 * 257, np.uint16)).save(tmp_path / "dog" / "1.png")
    with pytest.warns(Notice, match="1 of 9 images: 16-bit grey rounded to 8 bits"):
        assert (load_dataset(NAME, data_dir=tmp_path).pixels[0] == 120).all()


@pytest.mark.parametrize("size", [(64, 65), (1, 1), (3, 200), (200, 63), (65, 64)])
def test_photographs_of_any_size(tmp_path: Path, size: tuple[int, int]) -> None:
    nine_folders(tmp_path)
    draw(tmp_path / "dog" / "1.png", 120, size=size)
    data = load_dataset(NAME, n=1, data_dir=tmp_path)
    assert data.pixels.is_contiguous()
    assert (data.pixels == 120).all()


def test_a_truncated_photograph_is_named(tmp_path: Path) -> None:
    nine_folders(tmp_path)
    buffer = io.BytesIO()
    Image.effect_noise((99, 99), 80).convert("RGB").save(buffer, "JPEG")
    (tmp_path / "cat" / "1.png").write_bytes(buffer.getvalue()[:-500])
    assert len(load_dataset(NAME, n=1, data_dir=tmp_path)) == 1
    with pytest.raises(UserError, match=r"cat/1\.png: cannot be decoded as an image"):
        load_dataset(NAME, data_dir=tmp_path)


def test_other_splits_and_missing_folders(tmp_path: Path, cache: Path) -> None:
    with pytest.raises(UserError, match="has a test split alone"):
        load_dataset(NAME, "train", data_dir=tmp_path)
    with pytest.raises(UserError, match=r"nowhere: no such folder; pass --data-dir"):
        load_dataset(NAME, data_dir=tmp_path / "nowhere")
    with pytest.raises(UserError, match=rf"{cache.name}/imagenet: no such folder; ImageNet cannot be downloaded from here"):
        load_dataset(NAME, allow_download=True)
    nine_folders(tmp_path)
    with pytest.raises(UserError, match=r"n = 10, but restricted-imagenet .* holds 9"):
        load_dataset(NAME, n=10, data_dir=tmp_path)
