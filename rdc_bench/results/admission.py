"""What was seen of a model before it was attacked, and what of it was mended."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict

#: Where a model's answer has its logits: it is them; its first element is; its entry or its attribute ``logits`` is.
Output = Literal["tensor", "first", "key", "attribute"]
#: What a draw of randomness is made for. Copies of an image in one batch share what is drawn for the batch.
Draws = Literal["none", "image", "batch"]
Gradient = Literal["none", "zero", "not finite", "nonzero"]


class Admission(BaseModel):
    """Facts about a model on a few clean images. From them :func:`rdc_bench.evaluation.mending.mended` mends it again.

    Attributes:
        output, container: where the logits are in what the model returns, and the type of that. dtype: of the logits there.
        images_as: the floating-point type that the model takes images in.
        columns: logits per image.
        declared: the model says of itself that it is randomised. calls_agree: two calls on an image gave the same logits.
        repeatable: randomness apart, or under the same draws, they did. copies_agree: copies of an image in one batch had the
            same logits. batch_independent: an image had the same logits alone as among others, under the same keys.
        agrees_with_gradient: logits are the same whether gradients are asked for or not; None where draws hide it.
        writes_input: the model writes into the images that it is given. training_mode: parts of it stayed in training mode.
        finite: all logits were finite.
        gradient: of the margin on the clean images: no graph leads to the image, zero on all, not finite on some.
        draws: what a draw of the model's randomness is made for: an image, or a batch. Copies in a batch then share it.
        by_rows: images are shown one at a time, and generators are seeded for each by its key: draws then belong to images.
        agreement: mean cosine between the margin's gradients of two draws, against the same rival class. noise: standard
            deviation of the margin between draws, as a share of the margin. Both are None for a deterministic model, and where
            there are no gradients.
        needed_draws: how many an attack should average a step.
        nonzero_gradients, deterministic, no_optimization_loop: what RobustBench asks of a defence. A loop is seen by the
            gradients that a forward pass takes.
        cost: images that were classified to find this out; an image with its gradient counts as two.
        mended: what was done about it, in words.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    output: Output
    container: str
    dtype: str
    images_as: str
    columns: int
    declared: bool
    calls_agree: bool
    repeatable: bool
    copies_agree: bool
    batch_independent: bool
    agrees_with_gradient: bool | None
    writes_input: bool
    training_mode: bool
    finite: bool
    gradient: Gradient
    draws: Draws
    by_rows: bool
    agreement: float | None
    noise: float | None
    needed_draws: int
    nonzero_gradients: bool
    deterministic: bool
    no_optimization_loop: bool
    cost: int
    mended: list[str]

    @property
    def stochastic(self) -> bool:
        """Whether the model is judged as a randomised one: it says so, or was seen to be."""
        return self.declared or self.draws != "none"

    @property
    def approximate(self) -> bool:
        """Whether the gradient is another function's than the one that is judged."""
        return self.agrees_with_gradient is False

    @property
    def remarks(self) -> list[str]:
        """What a user should know, mended or not; nothing about an honest model."""
        said = list(self.mended)
        if not self.repeatable:
            said.append("draws from a generator that nothing controls, so `verify` will see other draws")
        if self.approximate:
            said.append("answers otherwise when gradients are asked for: they count as an approximation (bpda)")
        if self.training_mode:
            said.append("stays in training mode")
        if not self.finite:
            said.append("has logits that are not finite on clean images: wrong answers")
        if self.gradient != "nonzero":
            said.append(f"has {_GRADIENTS[self.gradient]} on clean images")
        if self.needed_draws > 1:
            said.append(f"draws disagree: {self.needed_draws} of them a step are needed")
        return said


_GRADIENTS = {"none": "no gradient", "zero": "the gradient zero", "not finite": "a gradient that is not finite"}
