"""Datasets by name."""

from __future__ import annotations

import warnings
from pathlib import Path

from rdc_bench.data import cifar10_c, fashion_mnist, image_folder, restricted_imagenet
from rdc_bench.data.cifar import CIFAR10, CIFAR100
from rdc_bench.data.dataset import SPLITS, Dataset, DatasetInfo
from rdc_bench.errors import Notice, UserError, unknown_name

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
    channels: int | None = None,
) -> Dataset:
    """The first ``n`` images (all when None) of a split.

    Args:
        data_dir: look here and nowhere else. allow_download: without ``data_dir``, fetch what is missing into the cache.
        channels: of the models that will see the images, 1 or 3. A user's own images are converted to it
            (:meth:`Dataset.with_channels`); those of a published dataset are what they are.
    Warns: ``Notice`` when the pixels are not those of the files.
    Raises: ``UserError`` for an unknown name or split, missing files, or ``n`` out of range.
    """
    info = dataset_info(name)
    if split not in SPLITS:
        raise unknown_name("split", split, SPLITS, f"Splits: {', '.join(SPLITS)}.")
    folder = Path(data_dir) if data_dir else None
    try:
        dataset = info.load(split, n=n, data_dir=folder, allow_download=allow_download)
    except OSError as error:  # a folder that may not be listed, a file that vanished
        raise UserError(f"{name}: cannot be read ({error})") from error
    if n is not None:
        dataset = dataset.head(n)
    if channels is not None and info.shape is None:
        dataset = dataset.with_channels(channels)
    if dataset.changes:
        warnings.warn(f"{name}: {dataset.provenance}", Notice, stacklevel=2)
    return dataset
