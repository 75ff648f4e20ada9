"""Datasets by name."""

from __future__ import annotations

from pathlib import Path

from rdc_bench.data import cifar10_c, fashion_mnist, image_folder, restricted_imagenet
from rdc_bench.data.cifar import CIFAR10, CIFAR100
from rdc_bench.data.dataset import SPLITS, Dataset, DatasetInfo
from rdc_bench.errors import unknown_name

__all__ = ["DATASETS", "SPLITS", "Dataset", "DatasetInfo", "dataset_info", "dataset_of_models", "list_datasets", "load_dataset"]

DATASETS = {
    info.name: info
    for info in (
        fashion_mnist.INFO,
        CIFAR10.info,
        cifar10_c.INFO,
        CIFAR100.info,
        restricted_imagenet.INFO,
        image_folder.INFO,
    )
}


def list_datasets() -> list[str]:
    """Names that :func:`load_dataset` takes."""
    return sorted(DATASETS)


def dataset_of_models(name: str) -> str:
    """The dataset that the models for ``name`` have on their cards: corrupted images are for the models of the clean ones."""
    return CIFAR10.name if name.startswith(f"{cifar10_c.NAME}:") else name


def dataset_info(name: str) -> DatasetInfo:
    """What is known of a dataset before it is read, or even here. Raises ``UserError`` for an unknown name."""
    if name.startswith(f"{cifar10_c.NAME}:"):
        return cifar10_c.variant(name)
    if name not in DATASETS:
        raise unknown_name("dataset", name, DATASETS, "`rdc-bench list datasets` shows them all.")
    return DATASETS[name]


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
    info = dataset_info(name)
    if split not in SPLITS:
        raise unknown_name("split", split, SPLITS, f"Splits: {', '.join(SPLITS)}.")
    folder = Path(data_dir) if data_dir else None
    dataset = info.load(split, n=n, data_dir=folder, allow_download=allow_download)
    return dataset if n is None else dataset.head(n)
