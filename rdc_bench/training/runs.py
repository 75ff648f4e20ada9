"""Whole training runs: build, fit, and publish."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal, TypeVar

import torch
from torch import nn

from rdc_bench.core.eps import Eps
from rdc_bench.core.errors import UserError, first_line
from rdc_bench.data import Dataset
from rdc_bench.data.images import describe
from rdc_bench.diffusion import EDMPrecond
from rdc_bench.networks import MultiHeadUNet, network_class
from rdc_bench.threats import LpThreat
from rdc_bench.training.adversarial import InnerAttack, pgd_loss, standard_loss, trades_loss
from rdc_bench.training.diffusion import Shifted, multihead_loss, teacher_loss
from rdc_bench.training.job import Job
from rdc_bench.training.publish import accuracy, publish, publish_denoiser
from rdc_bench.zoo.loading import load_denoiser
from rdc_bench.zoo.schema import ClassifierSpec

M = TypeVar("M", bound=nn.Module)


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
    return publish_denoiser(job, data, trained, config, title, log_mean, log_std)


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
    return publish_denoiser(job, data, trained, config, f"Multi-head denoiser distilled from {teacher}", log_mean, log_std)


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
    return publish(
        job,
        data,
        trained,
        title=title,
        role="baseline",
        paper=paper[method],
        spec=lambda weights: ClassifierSpec(kind="classifier", architecture="SmallResNet", config=config, weights=weights),
        validation={"clean accuracy": accuracy(trained.model, job)},
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
