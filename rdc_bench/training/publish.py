"""What a training run leaves: weights, and a card that vouches for them, with accuracy on the validation split."""

from __future__ import annotations

import importlib.metadata
import shlex
import sys
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

import safetensors.torch
import torch
import yaml
from torch import nn

from rdc_bench.core.files import file_sha256, write_atomically
from rdc_bench.core.predictions import predictions
from rdc_bench.data import Dataset
from rdc_bench.defenses import DiffusionClassifier
from rdc_bench.training.job import Job
from rdc_bench.training.loop import Trained
from rdc_bench.zoo.schema import ClassifierSpec, DenoiserSpec, ModelCard, Training, Weights

#: Validation images that a trained model is measured on, and the noise levels of a denoiser's classifier.
VALIDATION_IMAGES = 500
VALIDATION_LEVELS = 16


def publish_denoiser(
    job: Job, data: Dataset, trained: Trained, config: dict[str, Any], title: str, log_mean: float, log_std: float
) -> Path:
    """Publish a denoiser, measured by its diffusion classifier."""
    classifier = DiffusionClassifier(
        trained.model, len(data.classes), levels=VALIDATION_LEVELS, log_mean=log_mean, log_std=log_std
    )
    return publish(
        job,
        data,
        trained,
        title=title,
        role="part",
        paper="Chen et al. 2024, arXiv 2305.15241; Karras et al. 2022, arXiv 2206.00364",
        spec=lambda weights: DenoiserSpec(kind="denoiser", architecture="EDMPrecond", config=config, weights=weights),
        validation={f"clean accuracy, {VALIDATION_LEVELS} levels": accuracy(classifier, job)},
    )


def publish(
    job: Job,
    data: Dataset,
    trained: Trained,
    *,
    title: str,
    role: Literal["baseline", "part"],
    paper: str | None,
    spec: Callable[[Weights], ClassifierSpec | DenoiserSpec],
    validation: dict[str, float],
) -> Path:
    """Write the weights, then the card that vouches for them."""
    tensors = {key: value.contiguous() for key, value in trained.model.state_dict().items()}
    weights = job.out / f"{job.name}.safetensors"
    write_atomically(weights, safetensors.torch.save(tensors))
    card = ModelCard(
        schema_version=1,
        name=job.name,
        title=title,
        role=role,
        dataset=job.dataset,
        image_shape=data.image_shape,
        num_classes=len(data.classes),
        license=job.license,
        source="trained by rdc-bench",
        paper=paper,
        model=spec(Weights(file=weights.name, sha256=file_sha256(weights))),
        training=Training(
            command=shlex.join(["rdc-bench", *sys.argv[1:]]),
            seed=job.schedule.seed,
            images=job.schedule.images,
            seconds=round(trained.seconds, 1),
            data=data.provenance,
            data_sha256=data.sha256,
            date=datetime.now(UTC).date().isoformat(),
            versions={"rdc_bench": importlib.metadata.version("rdc_bench"), "torch": torch.__version__},
        ),
        validation={key: round(value, 4) for key, value in validation.items()},
    )
    path = job.out / f"{job.name}.yaml"
    document = yaml.safe_dump(card.model_dump(mode="json", exclude_defaults=True), sort_keys=False, allow_unicode=True)
    write_atomically(path, document.encode())
    return path


def accuracy(model: nn.Module, job: Job) -> float:
    """Clean accuracy on the first validation images, one draw each."""
    data = job.data("validation", job.image_shape[0])
    n = min(len(data), VALIDATION_IMAGES)
    right, note = 0, ""
    for start in range(0, n, 50):
        job.report(f"judging {job.name} on validation images", start, n, note)
        part = data.between(start, min(n, start + 50))
        keys = [("validation", start + i) for i in range(len(part))]
        right += int((predictions(model, part.images.to(job.device), keys, 1)[:, 0] == part.labels).sum())
        note = f"{right}/{start + len(part)} right"
    job.report(f"judging {job.name} on validation images", n, n, note)
    return right / n
