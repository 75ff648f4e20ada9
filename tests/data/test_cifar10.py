from __future__ import annotations

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

from rdc_bench.data import cifar10, load_dataset
from rdc_bench.errors import UserError

Serve = Callable[[Callable[[BaseHTTPRequestHandler], None]], str]


def batch(rng: np.random.Generator, count: int) -> dict:
    pixels = rng.integers(0, 256, (count, 3072), np.uint8)
    return {
        b"batch_label": b"a batch",
        b"data": pixels,
        b"labels": rng.integers(0, 10, count).tolist(),
        b"filenames": [b"a.png"],
    }


def write_batches(folder: Path, rng: np.random.Generator, count: int = 8) -> list[dict]:
    """Torchvision's cache layout; returns the five training batches and the test batch."""
    folder.mkdir(parents=True)
    batches = []
    for name in [*cifar10.BATCHES["train"], "test_batch"]:
        batches.append(batch(rng, count))
        (folder / name).write_bytes(pickle.dumps(batches[-1], protocol=2))
    return batches


def png(pixels: np.ndarray) -> bytes:
    """(3, H, W) uint8."""
    buffer = io.BytesIO()
    Image.fromarray(pixels.transpose(1, 2, 0)).save(buffer, "PNG")
    return buffer.getvalue()


def write_parquet(path: Path, images: Sequence[bytes | None], labels: Sequence[int | None]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    img = pa.array(
        [{"bytes": image, "path": None} for image in images], pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    )
    pq.write_table(pa.table({"img": img, "label": pa.array(labels, pa.int64())}), path)


@pytest.fixture
def pngs(rng: np.random.Generator) -> list[bytes]:
    return [png(pixels) for pixels in rng.integers(0, 256, (4, 3, 32, 32), np.uint8)]


def test_torchvision_layout(tmp_path: Path, rng: np.random.Generator) -> None:
    batches = write_batches(tmp_path / cifar10.FOLDER, rng)
    test = load_dataset("cifar10", data_dir=tmp_path)
    assert test.pixels.shape == (8, 3, 32, 32)
    assert torch.equal(test.pixels.flatten(1), torch.from_numpy(batches[5][b"data"]))
    assert test.labels.tolist() == batches[5][b"labels"]

    train, validation = (
        load_dataset("cifar10", split, data_dir=tmp_path / cifar10.FOLDER) for split in ("train", "validation")
    )
    assert (len(train), len(validation)) == (36, 4)
    assert torch.cat([train.labels, validation.labels]).tolist() == [y for b in batches[:5] for y in b[b"labels"]]
    assert load_dataset("cifar10", "validation", 2, data_dir=tmp_path).sha256 == validation.head(2).sha256


def test_cache_is_read_without_data_dir(cache: Path, rng: np.random.Generator) -> None:
    write_batches(cache / cifar10.FOLDER, rng)
    assert len(load_dataset("cifar10")) == 8


def test_missing_batch(tmp_path: Path, rng: np.random.Generator) -> None:
    write_batches(tmp_path / cifar10.FOLDER, rng)
    (tmp_path / cifar10.FOLDER / "data_batch_3").unlink()
    with pytest.raises(UserError, match=r"cifar10: .* holds neither"):
        load_dataset("cifar10", "train", data_dir=tmp_path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({b"data": np.zeros((8, 3071), np.uint8)}, "'data'"),
        ({b"data": [1, 2]}, "'data'"),
        ({b"data": np.zeros((8, 3072))}, "refused"),
        ({b"labels": [0] * 7}, "'labels' is not a list of 8"),
        ({b"labels": [0] * 7 + [10]}, "labels are not whole numbers from 0 to 9"),
        ({b"labels": [0] * 7 + [None]}, "labels are not whole numbers from 0 to 9"),
        ({b"data": np.zeros((0, 3072), np.uint8), b"labels": []}, "holds no images"),
    ],
)
def test_batch_of_another_form(tmp_path: Path, rng: np.random.Generator, change: dict, message: str) -> None:
    (tmp_path / "test_batch").write_bytes(pickle.dumps({**batch(rng, 8), **change}, protocol=4))
    with pytest.raises(UserError, match=rf"test_batch: .*{message}"):
        load_dataset("cifar10", data_dir=tmp_path)


def test_parquet_round_trip(tmp_path: Path, rng: np.random.Generator) -> None:
    test = write_batches(tmp_path / "torchvision", rng)[5]
    images = [png(pixels) for pixels in test[b"data"].reshape(-1, 3, 32, 32)]
    write_parquet(tmp_path / "hub" / "plain_text" / "test-00000-of-00001.parquet", images, test[b"labels"])
    from_hub = load_dataset("cifar10", data_dir=tmp_path / "hub")
    assert from_hub.sha256 == load_dataset("cifar10", data_dir=tmp_path / "torchvision").sha256
    assert load_dataset("cifar10", n=3, data_dir=tmp_path / "hub").sha256 == from_hub.head(3).sha256


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


@pytest.mark.parametrize("n", [0, 5])
def test_n_out_of_range(tmp_path: Path, pngs: list[bytes], n: int) -> None:
    write_parquet(tmp_path / "test.parquet", pngs, [0, 1, 2, 3])
    with pytest.raises(UserError, match=f"n = {n}"):
        load_dataset("cifar10", n=n, data_dir=tmp_path)


@pytest.mark.usefixtures("cache")
def test_nothing_found_says_how_to_get_it() -> None:
    with pytest.raises(UserError, match=r"--data-dir.*--download"):
        load_dataset("cifar10")


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
def archive(tmp_path: Path, rng: np.random.Generator) -> bytes:
    """An archive in the official one's form, with a member more that has no business there."""
    folder = tmp_path / "packed" / cifar10.FOLDER
    write_batches(folder, rng)
    (folder / "batches.meta").write_bytes(pickle.dumps({}, protocol=2))
    (folder / "surprise").write_text("unexpected")
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as tar:
        tar.add(folder, cifar10.FOLDER)
    return buffer.getvalue()


def serving(content: bytes) -> Callable[[BaseHTTPRequestHandler], None]:
    def respond(handler: BaseHTTPRequestHandler) -> None:
        handler.send_response(200)
        handler.send_header("Content-Length", str(len(content)))
        handler.end_headers()
        handler.wfile.write(content)

    return respond


def test_download(serve: Serve, cache: Path, archive: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cifar10, "URL", serve(serving(archive)))
    monkeypatch.setattr(cifar10, "MD5", hashlib.md5(archive).hexdigest())
    assert len(load_dataset("cifar10", allow_download=True)) == 8
    assert len(load_dataset("cifar10", "train")) == 36
    written = {path.name for path in (cache / cifar10.FOLDER).iterdir()}
    assert written == {*cifar10.BATCHES["train"], "test_batch", "batches.meta"}


def test_download_of_something_else(serve: Serve, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cifar10, "URL", serve(serving(b"<html>please log in</html>")))
    with pytest.raises(UserError, match="not the official CIFAR-10 archive"):
        load_dataset("cifar10", allow_download=True)
    assert list(cache.iterdir()) == []


def test_data_dir_is_not_downloaded_into(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cifar10, "URL", "http://127.0.0.1:9/never-asked")
    with pytest.raises(UserError, match="holds neither"):
        load_dataset("cifar10", data_dir=tmp_path, allow_download=True)
