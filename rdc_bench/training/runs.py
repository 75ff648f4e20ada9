"""Whole training runs: build, fit, measure on the validation split, write weights and card."""

from __future__ import annotations

import importlib.metadata
import shlex
import sys
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, TypeVar

import safetensors.torch
import torch
import yaml
from torch import nn

from rdc_bench.cards import ClassifierSpec, DenoiserSpec, ModelCard, Training, Weights, check_card_name, file_sha256
from rdc_bench.data import Dataset, dataset_info, load_dataset
from rdc_bench.data.images import Shape, describe
from rdc_bench.defenses import DiffusionClassifier
from rdc_bench.diffusion import EDMPrecond
from rdc_bench.eps import Eps
from rdc_bench.errors import UserError, first_line
from rdc_bench.evaluation.judge import predictions
from rdc_bench.files import check_writable, write_atomically
from rdc_bench.loading import load_denoiser
from rdc_bench.networks import MultiHeadUNet, network_class
from rdc_bench.stages import Report, unheard
from rdc_bench.threats import LpThreat
from rdc_bench.training.adversarial import InnerAttack, pgd_loss, standard_loss, trades_loss
from rdc_bench.training.diffusion import Shifted, multihead_loss, teacher_loss
from rdc_bench.training.loop import Loss, Schedule, Trained, fit

M = TypeVar("M", bound=nn.Module)

#: Validation images that a trained model is measured on, and the noise levels of a denoiser's classifier.
VALIDATION_IMAGES = 500
VALIDATION_LEVELS = 16


@dataclass(frozen=True)
class Job:
    """What all training runs share.

    Raises: ``UserError`` for what is wrong by itself, before data are looked for; ``OSError`` where it cannot write.

    Attributes:
        name: of the card and the weights. dataset: its name. schedule: see :class:`~rdc_bench.training.loop.Schedule`.
        out: folder for card and weights. checkpoints: folder for checkpoints. fresh: throw an earlier checkpoint away.
        report: is told what the run is doing.
    """

    name: str
    dataset: str
    schedule: Schedule
    out: Path
    checkpoints: Path
    fresh: bool = False
    device: str = "cpu"
    data_dir: Path | None = None
    allow_download: bool = False
    license: str = "MIT"
    report: Report = unheard

    def __post_init__(self) -> None:
        check_card_name(self.name)
        shape = dataset_info(self.dataset).shape
        if shape and self.schedule.shift >= min(shape[1:]):
            raise UserError(f"shift = {self.schedule.shift}: the images of {self.dataset} have {min(shape[1:])} pixels a side")
        for folder in (self.out, self.checkpoints):  # hours of training come before the first file
            check_writable(folder)

    @cached_property
    def image_shape(self) -> Shape:
        """Channels, height and width of the images: known of most datasets before they are read."""
        return dataset_info(self.dataset).shape or self.data("train").image_shape

    @cached_property
    def num_classes(self) -> int:
        """Number of classes, known as the shape is."""
        return len(dataset_info(self.dataset).classes or self.data("train").classes)

    def check_wrong_classes(self, option: str, number: int) -> None:
        """Raise ``UserError`` for more wrong classes per image than there are."""
        if number >= self.num_classes:
            raise UserError(f"{option} = {number}: of {self.num_classes} classes, {self.num_classes - 1} are wrong")

    def data(self, split: str, channels: int | None = None) -> Dataset:
        """A split of the job's dataset; ``channels``: see :func:`rdc_bench.data.load_dataset`."""
        self.report(f"reading {self.dataset} ({split})")
        return load_dataset(self.dataset, split, data_dir=self.data_dir, allow_download=self.allow_download, channels=channels)

    def fit(self, model: nn.Module, loss: Loss, data: Dataset) -> Trained:
        """Train, resuming from the job's checkpoint."""

        def progress(step: int, steps: int, running: float) -> None:
            self.report(f"training {self.name}", step, steps, f"loss {running:.4f}")

        self.report(f"preparing to train {self.name}")
        checkpoint = self.checkpoints / f"{self.name}.pt"
        if self.fresh:
            checkpoint.unlink(missing_ok=True)
        return fit(model, loss, data, self.schedule, checkpoint=checkpoint, device=self.device, progress=progress)


def train_diffusion(
    job: Job,
    *,
    start: str | None = None,
    log_mean: float,
    log_std: float,
    label_dropout: float,
    rivals: int = 2,
    bayes_weight: float = 0.0,
    bayes_eps: float = 0.0,
    shifted: Shifted = "both",
    network: dict[str, Any],
) -> Path:
    """Train a class-conditional denoiser with the EDM loss, and with Bayes' rule when ``bayes_weight`` is not zero.

    Args:
        start: card of an earlier denoiser, conditional or multi-head, to go on from; its shape then replaces ``network``.
        log_mean, log_std: of ``ln σ`` in training. label_dropout: share of labels dropped.
        rivals, bayes_weight, bayes_eps, shifted: see :func:`rdc_bench.training.diffusion.teacher_loss`.
        network: arguments of ``MultiHeadUNet`` beyond the image's shape and the classes.
    Returns: the path of its card.
    """
    if bayes_eps and not bayes_weight:
        raise UserError("bayes-eps shifts the images against Bayes' rule, which only a bayes-weight above 0 trains")
    if bayes_weight:
        job.check_wrong_classes("rivals", rivals)
    if start is None:
        shape = _square(job)
        _check_network(shape, network)
        data = job.data("train")
        config = {
            **shape,
            "sigma_data": _sigma_data(data),
            "model_type": "MultiHeadUNet",
            **network,
            "class_in_trunk": True,
        }
        denoiser = _seeded(lambda: EDMPrecond(**config), job.schedule.seed)
    else:
        denoiser = _denoiser_for(start, job).requires_grad_(True)
        data = job.data("train")
        config = denoiser.config
    loss = teacher_loss(log_mean, log_std, label_dropout, rivals, bayes_weight, bayes_eps, shifted)
    trained = job.fit(denoiser, loss, data)
    title = "Class-conditional denoiser" if config["class_in_trunk"] else "Multi-head denoiser"
    return _publish_denoiser(job, data, trained, config, title, log_mean, log_std)


def train_multihead(
    job: Job,
    *,
    teacher: str,
    start: str | None,
    log_mean: float,
    log_std: float,
    heads: int,
    loss_weight: float,
    bayes_weight: float = 0.0,
) -> Path:
    """Distil a teacher into a multi-head student of the same shape, which starts from the teacher's weights.

    Args:
        teacher: name of its card. start: card of an earlier student to go on from.
        heads: wrong classes per image and step, besides the true one and the unconditional head.
        loss_weight: of matching the classes' diffusion losses, bayes_weight: of the true labels; see
            :func:`rdc_bench.diffusion.loss.distillation_loss`.
    Returns: the path of the student's card.
    """
    job.check_wrong_classes("heads", heads)
    source = _denoiser_for(teacher, job).to(job.device)
    config = {**source.config, "class_in_trunk": False}
    student = _seeded(lambda: EDMPrecond(**config), job.schedule.seed)
    earlier = source if start is None else _denoiser_for(start, job)
    try:
        student.load_state_dict(earlier.state_dict())
    except RuntimeError as error:
        raise UserError(f"start {start!r} has not the shape of its teacher {teacher!r}") from error
    data = job.data("train")
    trained = job.fit(student, multihead_loss(source, log_mean, log_std, heads, loss_weight, bayes_weight), data)
    return _publish_denoiser(job, data, trained, config, f"Multi-head denoiser distilled from {teacher}", log_mean, log_std)


def train_baseline(
    job: Job,
    *,
    method: Literal["standard", "pgd", "trades"],
    threat: LpThreat,
    eps: Eps,
    inner_steps: int,
    beta: float,
    network: dict[str, Any],
) -> Path:
    """Train a classifier: standard, PGD adversarial training or TRADES. Returns the path of its card."""
    data = job.data("train")
    # Steps of 2 eps / steps let the inner attack cross the whole ball.
    inner = InnerAttack(threat, inner_steps, 2 * threat.eps / inner_steps)
    loss = {"standard": standard_loss, "pgd": pgd_loss(inner), "trades": trades_loss(inner, beta)}[method]
    config = {"in_channels": data.pixels.shape[1], "num_classes": len(data.classes), **_statistics(data), **network}
    trained = job.fit(_seeded(lambda: network_class("SmallResNet")(**config), job.schedule.seed), loss, data)
    trained.model.to(job.device)
    within = f"{threat.norm} {eps.text}"
    title = {
        "standard": "Standard training",
        "pgd": f"PGD adversarial training, {within}",
        "trades": f"TRADES, {within}, β = {beta:g}",
    }[method]
    paper = {"standard": None, "pgd": "Madry et al. 2018, arXiv 1706.06083", "trades": "Zhang et al. 2019, arXiv 1901.08573"}
    return _publish(
        job,
        data,
        trained,
        title=title,
        role="baseline",
        paper=paper[method],
        spec=lambda weights: ClassifierSpec(kind="classifier", architecture="SmallResNet", config=config, weights=weights),
        validation={"clean accuracy": _accuracy(trained.model, job)},
    )


def _denoiser_for(name: str, job: Job) -> EDMPrecond:
    """The denoiser called ``name``, which must be a network of ours for the images and the classes of the job's dataset."""
    job.report(f"loading {name}")
    denoiser = load_denoiser(name)
    if not (isinstance(denoiser, EDMPrecond) and isinstance(denoiser.model, MultiHeadUNet)):
        raise UserError(f"denoiser {name!r} is no EDMPrecond of a MultiHeadUNet, the network that is trained here")
    if denoiser.label_dim != job.num_classes:
        raise UserError(f"denoiser {name!r} knows {denoiser.label_dim} classes, {job.dataset} has {job.num_classes}")
    shape = (denoiser.img_channels, denoiser.img_resolution, denoiser.img_resolution)
    if shape != job.image_shape:
        raise UserError(f"denoiser {name!r} is for {describe(shape)}, {job.dataset} has {describe(job.image_shape)}")
    return denoiser


def _check_network(shape: dict[str, Any], network: dict[str, Any]) -> None:
    """Raise ``UserError`` for arguments that no network can be made of."""
    try:
        with torch.device("meta"):
            EDMPrecond(**shape, model_type="MultiHeadUNet", **network)
    except (TypeError, ValueError) as error:
        raise UserError(f"no such network: {first_line(error)}") from error


def _publish_denoiser(
    job: Job, data: Dataset, trained: Trained, config: dict[str, Any], title: str, log_mean: float, log_std: float
) -> Path:
    classifier = DiffusionClassifier(
        trained.model, len(data.classes), levels=VALIDATION_LEVELS, log_mean=log_mean, log_std=log_std
    )
    return _publish(
        job,
        data,
        trained,
        title=title,
        role="part",
        paper="Chen et al. 2024, arXiv 2305.15241; Karras et al. 2022, arXiv 2206.00364",
        spec=lambda weights: DenoiserSpec(kind="denoiser", architecture="EDMPrecond", config=config, weights=weights),
        validation={f"clean accuracy, {VALIDATION_LEVELS} levels": _accuracy(classifier, job)},
    )


def _publish(
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


def _seeded(build: Callable[[], M], seed: int) -> M:
    """Build a module with initial weights that depend on ``seed`` only."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return build()


def _square(job: Job) -> dict[str, Any]:
    channels, height, width = job.image_shape
    if height != width:
        raise UserError(f"{job.dataset}: the denoiser needs square images, these are {height}×{width}")
    return {"img_resolution": height, "img_channels": channels, "label_dim": job.num_classes}


def _sigma_data(data: Dataset) -> float:
    """Standard deviation of the training images in [−1, 1], to one digit."""
    return round(2 * float(data.pixels.float().std()) / 255, 1)


def _statistics(data: Dataset) -> dict[str, list[float]]:
    pixels = data.pixels.float() / 255
    mean, std = pixels.mean(dim=(0, 2, 3)), pixels.std(dim=(0, 2, 3))
    return {"mean": [round(v, 4) for v in mean.tolist()], "std": [round(v, 4) for v in std.tolist()]}


def _accuracy(model: nn.Module, job: Job) -> float:
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
