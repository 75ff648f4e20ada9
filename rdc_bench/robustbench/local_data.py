"""RobustBench on CIFAR-10 images that are already here.

RobustBench reads CIFAR-10 through torchvision, which downloads it unless all of its original files are there. The Hub's parquet
files, or a part of the test set, then count for nothing.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import robustbench.data
import torch
from PIL import Image
from robustbench.model_zoo.enums import BenchmarkDataset
from torch import Tensor

from rdc_bench.data import load_dataset


def use_local_cifar10(data_dir: str | Path | None = None) -> None:
    """From now on, ``robustbench.benchmark`` takes CIFAR-10's test images from ``data_dir``, whatever its own argument says.

    The images are those of ``rdc-bench run --data-dir``, in the same order. It replaces RobustBench's loader for this process:
    nothing else calls it, and nothing is done unless you do.

    Args: data_dir: a folder in torchvision's or the Hub's layout, or a parquet file; None is rdc-bench's dataset cache.
    Raises: ``UserError`` when there are no such images.
    """
    place = None if data_dir is None else Path(data_dir)
    load_dataset("cifar10", "test", 1, data_dir=place)

    def load(n_examples: int | None, _: str, preprocessing: Callable[[Image.Image], Any]) -> tuple[Tensor, Tensor]:
        dataset = load_dataset("cifar10", "test", n_examples, data_dir=place)
        pictures = (Image.fromarray(pixels) for pixels in dataset.pixels.permute(0, 2, 3, 1).numpy())
        return torch.stack([preprocessing(picture) for picture in pictures]), dataset.labels

    robustbench.data._clean_dataset_loaders[BenchmarkDataset.cifar_10] = load
