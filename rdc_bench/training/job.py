"""What all training runs share: names, data, folders, and a loop that resumes."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from torch import nn

from rdc_bench.core.card_files import check_card_name
from rdc_bench.core.errors import UserError
from rdc_bench.core.files import check_writable
from rdc_bench.core.stages import Report, unheard
from rdc_bench.data import Dataset, dataset_info, load_dataset
from rdc_bench.data.images import Shape
from rdc_bench.training.loop import Loss, Schedule, Trained, fit


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
