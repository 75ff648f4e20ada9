"""Every dataset, in every layout that is read, from its files to a run that is verified."""

import io
import pickle

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image

import rdc_bench
from rdc_bench.data import DATASETS, dataset_of_models
from rdc_bench.data.cifar import CIFAR10, CIFAR100
from rdc_bench.data.restricted_imagenet import CLASSES

N = 6


def batches(kind, folder, pixels, labels):
    content = {b"data": pixels.transpose(0, 3, 1, 2).reshape(N, -1), kind.batch_label.encode(): labels}
    (folder / kind.test[0]).write_bytes(pickle.dumps(content, protocol=2))


def parquet(kind, folder, pixels, labels):
    images = [{"bytes": png(each), "path": None} for each in pixels]
    pq.write_table(pa.table({"img": images, kind.column: labels}), folder / "test-00000-of-00001.parquet")


def png(pixels):
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    return buffer.getvalue()


def corrupted(folder, pixels, labels):
    np.save(folder / "fog.npy", np.repeat(pixels, 5, axis=0))
    np.save(folder / "labels.npy", np.repeat(np.uint8(labels), 5))


def photographs(folder, pixels, labels):
    for i, name in enumerate(CLASSES):
        (folder / name).mkdir()
        Image.fromarray(pixels[i % N]).resize((70 + i, 65)).convert("L" if i % 2 else "RGB").save(folder / name / "1.png")


LAYOUTS = {
    "bundled": ("fashion-mnist", None),
    "cifar10 batches": ("cifar10", lambda *drawn: batches(CIFAR10, *drawn)),
    "cifar10 parquet": ("cifar10", lambda *drawn: parquet(CIFAR10, *drawn)),
    "cifar100 batches": ("cifar100", lambda *drawn: batches(CIFAR100, *drawn)),
    "cifar100 parquet": ("cifar100", lambda *drawn: parquet(CIFAR100, *drawn)),
    "cifar10-c": ("cifar10-c:fog:2", corrupted),
    "restricted-imagenet": ("restricted-imagenet", photographs),
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_every_layout_runs_and_is_verified(tmp_path, registered, layout):
    name, write = LAYOUTS[layout]
    data = None
    if write:
        data = tmp_path / "data"
        data.mkdir()
        rng = np.random.default_rng(0)
        write(data, rng.integers(0, 256, (N, 32, 32, 3), np.uint8), rng.integers(0, 10, N).tolist())
    info = DATASETS[dataset_of_models(name)]

    class Linear(torch.nn.Module):
        def __init__(self):
            super().__init__()
            size = len(info.classes), int(np.prod(info.shape))
            self.weight = torch.nn.Parameter(torch.randn(size, generator=torch.Generator().manual_seed(0)))

        def forward(self, x):
            return x.flatten(1) @ self.weight.T

    rdc_bench.model("linear", dataset=info.name, image_shape=info.shape, num_classes=len(info.classes))(Linear)
    done = rdc_bench.run(["linear"], attacks=["fgsm"], dataset=name, n=N, out=tmp_path / "out", data_dir=data)
    assert done.complete
    assert rdc_bench.verify(done.path, data_dir=data).ok


def test_no_dataset_is_forgotten():
    assert {name.split(":")[0] for name, _ in LAYOUTS.values()} == set(DATASETS) - {"image-folder"}  # its tests are its own
