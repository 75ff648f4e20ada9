"""Images in CIFAR-10's place, and a Robust Diffusion Classifier that they can be told apart by."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image

from rdc_bench.defenses import RDC, DiffusionClassifier, LikelihoodMaximization
from rdc_bench.diffusion.optimal import GaussianDenoiser, OptimalDenoiser


def patterns() -> torch.Tensor:
    """One faint pattern per class on grey, (10, 3, 32, 32): 2/255 each way, so that 8/255 can turn one into another."""
    signs = torch.randint(2, (10, 3, 32, 32), generator=torch.Generator().manual_seed(1)) * 2 - 1
    return 0.5 + signs * 2 / 255


@pytest.fixture
def plugin() -> ModuleType:
    """The plugin, where the extra is installed."""
    reason = "robustbench is not installed, or its torchvision fits another torch (pip install 'rdc-bench[robustbench]')"
    return pytest.importorskip("rdc_bench.robustbench", reason=reason, exc_type=ImportError)


@pytest.fixture(scope="session")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Sixteen noisy patterns as a parquet file in the Hub's layout."""
    labels = torch.arange(16) % 10
    noise = 0.04 * torch.randn(16, 3, 32, 32, generator=torch.Generator().manual_seed(2))
    pixels = ((patterns()[labels] + noise).clamp(0, 1) * 255).round().byte().numpy()
    rows = []
    for image, label in zip(pixels, labels.tolist(), strict=True):
        buffer = io.BytesIO()
        Image.fromarray(np.ascontiguousarray(image.transpose(1, 2, 0))).save(buffer, "PNG")
        rows.append({"img": {"bytes": buffer.getvalue(), "path": None}, "label": label})
    path = tmp_path_factory.mktemp("pictures") / "test.parquet"
    pq.write_table(pa.Table.from_pylist(rows), path)
    return path


@pytest.fixture
def tiny_rdc() -> Callable[[], RDC]:
    """Makes an RDC on denoisers in closed form, for the ten patterns: two steps of maximisation, two noise levels."""

    def make() -> RDC:
        maximization = LikelihoodMaximization(
            OptimalDenoiser(patterns(), torch.arange(10)), steps=2, step_size=0.01, optimizer="normalized"
        )
        return RDC(maximization, DiffusionClassifier(GaussianDenoiser(2 * patterns() - 1, std=0.1), 10, levels=2))

    return make
