"""Datasets by name."""

from __future__ import annotations

from pathlib import Path

from rdc_bench.data import fashion_mnist, image_folder, restricted_imagenet
from rdc_bench.data.cifar import CIFAR10, CIFAR100
from rdc_bench.data.dataset import SPLITS, Dataset, DatasetInfo
from rdc_bench.errors import unknown_name

__all__ = ["DATASETS", "SPLITS", "Dataset", "DatasetInfo", "list_datasets", "load_dataset"]

DATASETS = {
    info.name: info for info in (fashion_mnist.INFO, CIFAR10.info, CIFAR100.info, restricted_imagenet.INFO, image_folder.INFO)
}


def list_datasets() -> list[str]:
    """Names that :func:`load_dataset` takes."""
    return sorted(DATASETS)


def load_dataset(
    name: str,
    split: str = "test",
    n: int | None = None,
    *,
    data_dir: str | Path | None = None,
    allow_download: bool = False,
) -> Dataset:
    """The first ``n`` images (all when None) of a split.

    Args:
        data_dir: look here and nowhere else. allow_download: without ``data_dir``, fetch what is missing into the cache.
    Raises: ``UserError`` for an unknown name or split, missing files, or ``n`` out of range.
    """
    if name not in DATASETS:
        raise unknown_name("dataset", name, DATASETS, "`rdc-bench list datasets` shows them all.")
    if split not in SPLITS:
        raise unknown_name("split", split, SPLITS, f"Splits: {', '.join(SPLITS)}.")
    folder = Path(data_dir) if data_dir else None
    dataset = DATASETS[name].load(split, n=n, data_dir=folder, allow_download=allow_download)
    return dataset if n is None else dataset.head(n)
