from __future__ import annotations

import dataclasses
import hashlib
import io
import pickle
import tarfile
from collections.abc import Callable, Sequence
from http.server import BaseHTTPRequestHandler
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image

from rdc_bench.core.errors import UserError
from rdc_bench.data import load_dataset
from rdc_bench.data.cifar import CIFAR10, CIFAR100, Cifar

Serve = Callable[[Callable[[BaseHTTPRequestHandler], None]], str]


@pytest.fixture(params=[CIFAR10, CIFAR100], ids=lambda kind: kind.name)
def kind(request: pytest.FixtureRequest) -> Cifar:
    return request.param


def batch(kind: Cifar, rng: np.random.Generator, count: int) -> dict:
    pixels = rng.integers(0, 256, (count, 3072), np.uint8)
    labels = rng.integers(0, len(kind.classes), count).tolist()
    return {
        b"batch_label": b"a batch",
        b"data": pixels,
        kind.batch_label.encode(): labels,
        b"coarse_labels": [label // 5 for label in labels],
        b"filenames": [b"a.png"],
    }


def write_batches(kind: Cifar, folder: Path, rng: np.random.Generator, count: int = 8) -> list[dict]:
    """Torchvision's cache layout; returns the training batches and the test batch."""
    folder.mkdir(parents=True)
    batches = []
    for name in [*kind.train, *kind.test]:
        batches.append(batch(kind, rng, count))
        (folder / name).write_bytes(pickle.dumps(batches[-1], protocol=2))
    return batches


def png(pixels: np.ndarray) -> bytes:
    """(3, H, W) uint8."""
    buffer = io.BytesIO()
    Image.fromarray(pixels.transpose(1, 2, 0)).save(buffer, "PNG")
    return buffer.getvalue()


def labels_of(kind: Cifar, batch: dict) -> list[int]:
    return batch[kind.batch_label.encode()]


def write_parquet(
    path: Path, images: Sequence[bytes | None], labels: Sequence[int | None], column: str = CIFAR10.column
) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    img = pa.array(
        [{"bytes": image, "path": None} for image in images], pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    )
    pq.write_table(pa.table({"img": img, column: pa.array(labels, pa.int64())}), path)


@pytest.fixture
def pngs(rng: np.random.Generator) -> list[bytes]:
    return [png(pixels) for pixels in rng.integers(0, 256, (4, 3, 32, 32), np.uint8)]


def test_torchvision_layout(kind: Cifar, tmp_path: Path, rng: np.random.Generator) -> None:
    *train_batches, test_batch = write_batches(kind, tmp_path / kind.folder, rng)
    test = load_dataset(kind.name, data_dir=tmp_path)
    assert test.pixels.shape == (8, 3, 32, 32)
    assert torch.equal(test.pixels.flatten(1), torch.from_numpy(test_batch[b"data"]))
    assert test.labels.tolist() == labels_of(kind, test_batch)

    train, validation = (load_dataset(kind.name, split, data_dir=tmp_path / kind.folder) for split in ("train", "validation"))
    assert len(train) + len(validation) == 8 * len(kind.train)
    assert len(validation) == -(-8 * len(kind.train) // 10)
    assert torch.cat([train.labels, validation.labels]).tolist() == [y for b in train_batches for y in labels_of(kind, b)]
    assert load_dataset(kind.name, "validation", 1, data_dir=tmp_path).sha256 == validation.head(1).sha256


def test_cache_is_read_without_data_dir(kind: Cifar, cache: Path, rng: np.random.Generator) -> None:
    write_batches(kind, cache / kind.folder, rng)
    assert len(load_dataset(kind.name)) == 8


def test_the_two_share_a_cache(cache: Path, rng: np.random.Generator, pngs: list[bytes]) -> None:
    write_batches(CIFAR10, cache / CIFAR10.folder, rng)
    write_parquet(cache / CIFAR100.hub_folder / "test-00000-of-00001.parquet", pngs, [99, 0, 1, 2], CIFAR100.column)
    assert len(load_dataset("cifar10")) == 8
    assert load_dataset("cifar100").labels.tolist() == [99, 0, 1, 2]


def test_class_names() -> None:
    assert [len(set(kind.classes)) for kind in (CIFAR10, CIFAR100)] == [10, 100]
    assert list(CIFAR100.classes) == sorted(CIFAR100.classes)  # the official order is the alphabetical one
    assert (CIFAR100.classes[0], CIFAR100.classes[49], CIFAR100.classes[99]) == ("apple", "mountain", "worm")


def test_missing_batch(tmp_path: Path, rng: np.random.Generator) -> None:
    write_batches(CIFAR10, tmp_path / CIFAR10.folder, rng)
    (tmp_path / CIFAR10.folder / "data_batch_3").unlink()
    with pytest.raises(UserError, match=r"cifar10: .* holds neither"):
        load_dataset("cifar10", "train", data_dir=tmp_path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"data": np.zeros((8, 3071), np.uint8)}, "'data'"),
        ({"data": [1, 2]}, "'data'"),
        ({"data": np.zeros((8, 3072))}, "refused"),
        ({"labels": [0] * 7}, "labels' is not a list of 8"),
        ({"labels": [0] * 7 + ["K"]}, "labels are not whole numbers from 0 to"),
        ({"labels": [0] * 7 + [None]}, "labels are not whole numbers from 0 to"),
        ({"data": np.zeros((0, 3072), np.uint8), "labels": []}, "holds no images"),
    ],
)
def test_batch_of_another_form(kind: Cifar, tmp_path: Path, rng: np.random.Generator, change: dict, message: str) -> None:
    keys = {"data": b"data", "labels": kind.batch_label.encode()}
    changed = {
        keys[key]: [len(kind.classes) if y == "K" else y for y in value] if key == "labels" else value
        for key, value in change.items()
    }
    (tmp_path / kind.test[0]).write_bytes(pickle.dumps({**batch(kind, rng, 8), **changed}, protocol=4))
    with pytest.raises(UserError, match=rf"{kind.test[0]}: .*{message}"):
        load_dataset(kind.name, data_dir=tmp_path)


def test_the_other_dataset_is_not_taken_for_this_one(tmp_path: Path, rng: np.random.Generator, pngs: list[bytes]) -> None:
    other = {CIFAR10: CIFAR100, CIFAR100: CIFAR10}
    for kind in other:
        (tmp_path / kind.name).mkdir()
        content = pickle.dumps(batch(other[kind], rng, 8), protocol=2)
        (tmp_path / kind.name / kind.test[0]).write_bytes(content)
        with pytest.raises(UserError, match=rf"not a {kind.name} batch: '{kind.batch_label}'"):
            load_dataset(kind.name, data_dir=tmp_path / kind.name)
        write_parquet(tmp_path / "test.parquet", pngs, [0, 1, 2, 3], other[kind].column)
        with pytest.raises(UserError, match=rf"no columns 'img' .* and '{kind.column}'"):
            load_dataset(kind.name, data_dir=tmp_path / "test.parquet")


def test_parquet_round_trip(kind: Cifar, tmp_path: Path, rng: np.random.Generator) -> None:
    test = write_batches(kind, tmp_path / "torchvision", rng)[-1]
    images = [png(pixels) for pixels in test[b"data"].reshape(-1, 3, 32, 32)]
    hub = tmp_path / "hub" / kind.hub_folder
    write_parquet(hub / "test-00000-of-00001.parquet", images, labels_of(kind, test), kind.column)
    from_hub = load_dataset(kind.name, data_dir=tmp_path / "hub")
    assert from_hub.sha256 == load_dataset(kind.name, data_dir=tmp_path / "torchvision").sha256
    assert load_dataset(kind.name, n=3, data_dir=hub).sha256 == from_hub.head(3).sha256


def test_shards_are_joined_in_order(tmp_path: Path, pngs: list[bytes]) -> None:
    write_parquet(tmp_path / "train-00001-of-00002.parquet", pngs[2:], [2, 3])
    write_parquet(tmp_path / "train-00000-of-00002.parquet", pngs[:2], [0, 1])
    assert load_dataset("cifar10", "train", data_dir=tmp_path).labels.tolist() == [0, 1, 2]
    assert load_dataset("cifar10", "validation", data_dir=tmp_path).labels.tolist() == [3]


@pytest.mark.parametrize(
    "names", [["00001-of-00002"], ["00000-of-00002"], ["00000-of-00001", "00000-of-00002", "00001-of-00002"]]
)
def test_incomplete_or_mixed_shards(tmp_path: Path, pngs: list[bytes], names: list[str]) -> None:
    for name in names:
        write_parquet(tmp_path / f"test-{name}.parquet", pngs, [0, 1, 2, 3])
    with pytest.raises(UserError, match="not one complete set of test shards"):
        load_dataset("cifar10", data_dir=tmp_path)


def test_several_candidates_need_a_choice(tmp_path: Path, pngs: list[bytes]) -> None:
    write_parquet(tmp_path / "test.a.parquet", pngs, [0, 1, 2, 3])
    write_parquet(tmp_path / "test.b.parquet", pngs, [3, 2, 1, 0])
    with pytest.raises(UserError, match=r"test\.a\.parquet, test\.b\.parquet\); pass the file itself as --data-dir"):
        load_dataset("cifar10", data_dir=tmp_path)
    chosen = load_dataset("cifar10", data_dir=tmp_path / "test.b.parquet")
    assert chosen.labels.tolist() == [3, 2, 1, 0]
    assert chosen.source.endswith("test.b.parquet")


def test_training_file_is_not_taken_for_the_test_set(tmp_path: Path, pngs: list[bytes]) -> None:
    write_parquet(tmp_path / "train.parquet", pngs, [0, 1, 2, 3])
    with pytest.raises(UserError, match="by its name this is the train set"):
        load_dataset("cifar10", data_dir=tmp_path / "train.parquet")


def test_data_dir_is_another_file(tmp_path: Path) -> None:
    (tmp_path / "test.csv").write_text("label\n")
    with pytest.raises(UserError, match=r"takes a folder or a \.parquet file"):
        load_dataset("cifar10", data_dir=tmp_path / "test.csv")


def test_jpeg_is_decoded(tmp_path: Path) -> None:
    buffer = io.BytesIO()
    Image.new("RGB", (32, 32), (200, 100, 50)).save(buffer, "JPEG")
    write_parquet(tmp_path / "test.parquet", [buffer.getvalue()], [4])
    mean = load_dataset("cifar10", data_dir=tmp_path).pixels.float().mean(dim=(0, 2, 3))
    assert torch.allclose(mean, torch.tensor([200.0, 100.0, 50.0]), atol=3)


@pytest.mark.parametrize(
    ("image", "message"),
    [
        (png(np.zeros((3, 32, 31), np.uint8)), "3 channels of 32×31 pixels, where 3 channels of 32×32 pixels are expected"),
        (b"GIF89a", "cannot be decoded"),
        (png(np.zeros((3, 32, 32), np.uint8))[:-30], "cannot be decoded"),
        (None, "holds no image bytes"),
    ],
    ids=["size", "format", "truncated", "null"],
)
def test_odd_image_is_named_by_its_row(tmp_path: Path, pngs: list[bytes], image: bytes | None, message: str) -> None:
    write_parquet(tmp_path / "test.parquet", [pngs[0], pngs[1], image], [0, 1, 2])
    with pytest.raises(UserError, match=rf"test\.parquet: row 2:? .*{message}"):
        load_dataset("cifar10", data_dir=tmp_path)
    assert len(load_dataset("cifar10", n=2, data_dir=tmp_path)) == 2


@pytest.mark.parametrize("label", [None, -1, 10])
def test_parquet_with_odd_labels(tmp_path: Path, pngs: list[bytes], label: int | None) -> None:
    write_parquet(tmp_path / "test.parquet", pngs, [0, 1, 2, label])
    with pytest.raises(UserError, match="labels are not whole numbers from 0 to 9"):
        load_dataset("cifar10", data_dir=tmp_path)


def test_parquet_with_other_columns(tmp_path: Path) -> None:
    pq.write_table(pa.table({"image": [1], "label": [1]}), tmp_path / "test.parquet")
    with pytest.raises(UserError, match=r"test\.parquet: has no columns 'img'"):
        load_dataset("cifar10", data_dir=tmp_path)


@pytest.mark.parametrize("raw", [b"", b"PAR1 not really PAR1", b"x" * 100])
def test_damaged_parquet(tmp_path: Path, raw: bytes) -> None:
    (tmp_path / "test.parquet").write_bytes(raw)
    with pytest.raises(UserError, match=r"test\.parquet: cannot be read as parquet"):
        load_dataset("cifar10", data_dir=tmp_path)


def test_truncated_files(kind: Cifar, tmp_path: Path, rng: np.random.Generator, pngs: list[bytes]) -> None:
    write_parquet(tmp_path / "test.parquet", pngs, [0, 1, 2, 3], kind.column)
    write_batches(kind, tmp_path / kind.folder, rng)
    for path, message in (
        (tmp_path / kind.folder / kind.test[0], ""),
        (tmp_path / "test.parquet", "cannot be read as parquet"),
    ):
        path.write_bytes(path.read_bytes()[:-40])
        with pytest.raises(UserError, match=rf"{path.name}: .*{message}") as caught:
            load_dataset(kind.name, data_dir=path if path.suffix else path.parent)
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize("n", [0, 5])
def test_n_out_of_range(tmp_path: Path, pngs: list[bytes], n: int) -> None:
    write_parquet(tmp_path / "test.parquet", pngs, [0, 1, 2, 3])
    with pytest.raises(UserError, match=f"n = {n}"):
        load_dataset("cifar10", n=n, data_dir=tmp_path)


@pytest.mark.usefixtures("cache")
def test_nothing_found_says_how_to_get_it(kind: Cifar) -> None:
    with pytest.raises(UserError, match=rf"{kind.name}: .*--data-dir.*--download"):
        load_dataset(kind.name)


def test_real_images(real_cifar10: Path) -> None:
    test = load_dataset("cifar10", n=10, data_dir=real_cifar10)
    names = [test.classes[label] for label in test.labels]
    assert names == ["cat", "ship", "ship", "airplane", "frog", "frog", "automobile", "frog", "cat", "automobile"]
    assert test.pixels[0, :, 0, 0].tolist() == [158, 112, 49]
    with pytest.raises(UserError, match="pass the file itself as --data-dir"):
        load_dataset("cifar10", "train", data_dir=real_cifar10)
    exact = real_cifar10 / "train.exact5085.parquet"
    first = load_dataset("cifar10", "train", 2, data_dir=exact)
    assert [first.classes[label] for label in first.labels] == ["frog", "truck"]
    assert len(load_dataset("cifar10", "validation", data_dir=exact)) == 509


@pytest.fixture
def archive(kind: Cifar, tmp_path: Path, rng: np.random.Generator) -> bytes:
    """An archive in the official one's form, with a member more that has no business there."""
    folder = tmp_path / "packed" / kind.folder
    write_batches(kind, folder, rng)
    (folder / kind.meta).write_bytes(pickle.dumps({}, protocol=2))
    (folder / "surprise").write_text("unexpected")
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as tar:
        tar.add(folder, kind.folder)
    return buffer.getvalue()


def serving(content: bytes) -> Callable[[BaseHTTPRequestHandler], None]:
    def respond(handler: BaseHTTPRequestHandler) -> None:
        handler.send_response(200)
        handler.send_header("Content-Length", str(len(content)))
        handler.end_headers()
        handler.wfile.write(content)

    return respond


def test_download(serve: Serve, kind: Cifar, cache: Path, archive: bytes) -> None:
    local = dataclasses.replace(kind, url=f"{serve(serving(archive))}/c.tar.gz", md5=hashlib.md5(archive).hexdigest())
    assert len(local.load("test", allow_download=True)) == 8
    assert len(load_dataset(kind.name, "train")) == 8 * len(kind.train) - -(-8 * len(kind.train) // 10)
    written = {path.name for path in (cache / kind.folder).iterdir()}
    assert written == {*kind.train, *kind.test, kind.meta}


def test_download_of_something_else(serve: Serve, kind: Cifar, cache: Path) -> None:
    local = dataclasses.replace(kind, url=f"{serve(serving(b'<html>please log in</html>'))}/c.tar.gz")
    with pytest.raises(UserError, match=f"not the official {kind.name} archive"):
        local.load("test", allow_download=True)
    assert list(cache.iterdir()) == []


def test_data_dir_is_not_downloaded_into(kind: Cifar, tmp_path: Path) -> None:
    local = dataclasses.replace(kind, url="http://127.0.0.1:9/never-asked")
    with pytest.raises(UserError, match="holds neither"):
        local.load("test", data_dir=tmp_path, allow_download=True)
