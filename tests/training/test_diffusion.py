from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from rdc_bench.diffusion.loss import adversarial_shift, bayes_loss, denoising_loss
from rdc_bench.diffusion.precondition import EDMPrecond
from rdc_bench.training.diffusion import fast_shift, multihead_loss, teacher_loss

TINY: dict[str, Any] = {
    "model_type": "MultiHeadUNet",
    "fine": 8,
    "coarse": 32,
    "blocks": (1, 1),
    "head": 32,
    "head_blocks": 1,
    "embedding": 16,
}


def denoiser(class_in_trunk: bool, *, untrained: bool = False) -> EDMPrecond:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = EDMPrecond(8, 1, label_dim=4, class_in_trunk=class_in_trunk, **TINY)
        if not untrained:
            for p in model.parameters():
                torch.nn.init.normal_(p, std=0.1)
    return model


@pytest.fixture
def batch() -> tuple[Tensor, Tensor]:
    g = torch.Generator().manual_seed(0)
    return torch.rand(6, 1, 8, 8, generator=g), torch.randint(0, 4, (6,), generator=g)


def generator() -> torch.Generator:
    return torch.Generator().manual_seed(5)


def recorded(model: EDMPrecond) -> list[tuple[Tensor, Tensor]]:
    """The noisy images and class labels that the denoiser is shown from now on."""
    shown: list[tuple[Tensor, Tensor]] = []
    original = model.for_classes

    def recording(z_noisy: Tensor, sigma: Tensor, class_labels: Tensor) -> Tensor:
        shown.append((z_noisy, class_labels))
        return original(z_noisy, sigma, class_labels)

    model.for_classes = recording  # type: ignore[method-assign]
    return shown


def test_teacher_loss_depends_on_its_generator_only(batch: tuple[Tensor, Tensor]) -> None:
    model, loss = denoiser(True), teacher_loss(-0.6, 1.2, 0.1)
    first = loss(model, *batch, generator())
    torch.manual_seed(17)
    assert torch.equal(first, loss(model, *batch, generator()))
    first.backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters())


def test_dropped_labels_are_not_seen(batch: tuple[Tensor, Tensor]) -> None:
    model, (x, y) = denoiser(True), batch
    dropped, kept = teacher_loss(-0.6, 1.2, 1.0), teacher_loss(-0.6, 1.2, 0.0)
    assert torch.equal(dropped(model, x, y, generator()), dropped(model, x, (y + 1) % 4, generator()))
    assert not torch.equal(kept(model, x, y, generator()), kept(model, x, (y + 1) % 4, generator()))


def test_student_that_equals_its_teacher_has_no_loss(batch: tuple[Tensor, Tensor]) -> None:
    teacher, student = denoiser(False), denoiser(False)
    assert multihead_loss(teacher, 0.0, 1.0, heads=2, loss_weight=0.02)(student, *batch, generator()).item() < 1e-10


def test_distillation_trains_the_student_alone(batch: tuple[Tensor, Tensor]) -> None:
    teacher, student = denoiser(True), denoiser(False, untrained=True)
    value = multihead_loss(teacher, 0.0, 1.0, heads=2, loss_weight=0.02)(student, *batch, generator())
    assert value > 0
    value.backward()
    assert all(p.grad is None and not p.requires_grad for p in teacher.parameters())
    assert any(p.grad is not None and p.grad.abs().sum() > 0 for p in student.parameters())


@pytest.mark.parametrize("heads", [0, 1, 3])
def test_distilled_classes_are_the_true_one_others_and_none(batch: tuple[Tensor, Tensor], heads: int) -> None:
    student, (x, y) = denoiser(False), batch
    shown = recorded(student)
    multihead_loss(denoiser(True), 0.0, 1.0, heads=heads, loss_weight=0.02)(student, x, y, generator())
    ((_, labels),) = shown
    assert labels.shape == (6, heads + 2, 4)
    assert torch.equal(labels[:, 0].argmax(dim=1), y)
    assert labels[:, -1].abs().sum() == 0
    for row in labels[:, :-1].argmax(dim=2):
        assert len(set(row.tolist())) == heads + 1


def test_matching_losses_counts_only_what_the_classifier_sees(batch: tuple[Tensor, Tensor]) -> None:
    """The added term is the squared error of the loss deviations, relative to the teacher's: checked on one image by hand."""
    teacher, student, (x, y) = denoiser(True), denoiser(False), batch
    plain = multihead_loss(teacher, 0.0, 1.0, heads=3, loss_weight=0.0)(student, x[:1], y[:1], generator())
    both = multihead_loss(teacher, 0.0, 1.0, heads=3, loss_weight=1.0)(student, x[:1], y[:1], generator())

    g, z = generator(), 2 * x[:1] - 1
    sigma = torch.randn(1, generator=g).exp()
    z_noisy = z + sigma * torch.randn(z.shape, generator=g)
    losses = [(d.all_classes(z_noisy, sigma) - z[:, None]).square().mean(dim=(2, 3, 4))[0] for d in (student, teacher)]
    found, wanted = (loss - loss.mean() for loss in losses)
    torch.testing.assert_close(both - plain, (found - wanted).square().sum() / wanted.square().sum())


@pytest.mark.parametrize("stage", ["teacher", "student"])
def test_bayes_weight_adds_the_error_of_bayes_rule_at_one_level(batch: tuple[Tensor, Tensor], stage: str) -> None:
    model, (x, y) = denoiser(stage == "teacher"), batch

    def loss(bayes_weight: float) -> Tensor:
        if stage == "teacher":
            return teacher_loss(0.0, 1.0, 0.1, rivals=3, bayes_weight=bayes_weight)(model, x, y, generator())
        return multihead_loss(denoiser(True), 0.0, 1.0, heads=3, loss_weight=0.0, bayes_weight=bayes_weight)(
            model, x, y, generator()
        )

    g, z = generator(), 2 * x - 1
    sigma = torch.randn(6, generator=g).exp()
    z_noisy = z + sigma[:, None, None, None] * torch.randn(z.shape, generator=g)
    weight = (sigma**2 + model.sigma_data**2) / (sigma * model.sigma_data) ** 2
    logits = -weight[:, None] * (model.all_classes(z_noisy, sigma) - z[:, None]).square().sum(dim=(2, 3, 4)) / 8.0
    expected = -torch.softmax(logits, dim=1)[torch.arange(6), y].log().mean()
    torch.testing.assert_close(loss(3.0) - loss(1.0), 2 * expected, rtol=1e-4, atol=1e-5)


def test_bayes_eps_shifts_target_and_noisy_image_alike(batch: tuple[Tensor, Tensor]) -> None:
    model, (x, y) = denoiser(True), batch
    shown = recorded(model)
    plain = teacher_loss(0.0, 1.0, 0.1, rivals=3, bayes_weight=1.0)(model, x, y, generator())
    shifted = teacher_loss(0.0, 1.0, 0.1, rivals=3, bayes_weight=1.0, bayes_eps=0.1)(model, x, y, generator())
    unshifted, looked_at, trained_on = (z_noisy for z_noisy, _ in shown)
    assert torch.equal(unshifted, looked_at)
    shift = trained_on - looked_at
    assert torch.allclose(shift.abs(), torch.tensor(0.2), atol=1e-5)
    # Already shifted images, shifted by nothing: the same noisy images and the same targets.
    repeated = teacher_loss(0.0, 1.0, 0.1, rivals=3, bayes_weight=1.0)(model, x + shift / 2, y, generator())
    assert torch.allclose(repeated, shifted, rtol=1e-4)
    assert shifted > plain


def test_a_shift_of_the_target_is_out_of_the_networks_sight(batch: tuple[Tensor, Tensor]) -> None:
    """The network sees what it sees without a shift, once; and the loss is that of the same denoisings of shifted targets."""
    model, (x, y) = denoiser(True), batch
    shown = recorded(model)
    plain = teacher_loss(0.0, 1.0, 0.1, rivals=3, bayes_weight=1.0)(model, x, y, generator())
    shifted = teacher_loss(0.0, 1.0, 0.1, rivals=3, bayes_weight=1.0, bayes_eps=0.1, shifted="target")(model, x, y, generator())
    (before, labels), (after, same_labels) = shown
    assert torch.equal(before, after)
    assert torch.equal(labels, same_labels)
    assert shifted > plain

    g, z = generator(), 2 * x - 1
    sigma = torch.randn(6, generator=g).exp()
    with torch.no_grad():
        denoised = model.for_classes(before, sigma, labels)
    shift = adversarial_shift(denoised[:, :-1], z, sigma, model.sigma_data, 0.1)
    losses = [denoising_loss(denoised[:, k], z + shift, sigma, model.sigma_data) for k in (0, -1)]
    bayes = bayes_loss(denoised[:, :-1], z + shift, sigma, model.sigma_data)
    torch.testing.assert_close(shifted, 0.9 * losses[0] + 0.1 * losses[1] + bayes, rtol=1e-4, atol=1e-5)


def test_the_exact_shift_is_a_step_of_fgsm_on_the_loss_that_is_trained(batch: tuple[Tensor, Tensor]) -> None:
    model, (x, y) = denoiser(True).double(), (batch[0].double(), batch[1])
    z, sigma = 2 * x - 1, torch.linspace(0.5, 2, 6, dtype=torch.float64)
    z_noisy = z + sigma[:, None, None, None] * torch.randn(z.shape, generator=generator(), dtype=torch.float64)
    classes = torch.nn.functional.one_hot((y[:, None] + torch.arange(3)) % 4, 4).double()
    eps = 0.02

    def loss(shift: Tensor) -> Tensor:
        with torch.no_grad():
            return bayes_loss(model.for_classes(z_noisy + shift, sigma, classes), z + shift, sigma, model.sigma_data)

    found = fast_shift(model, z, z_noisy, sigma, classes, eps, generator())
    start = ((2 * torch.rand(z.shape, generator=generator()) - 1) * 2 * eps).double()
    assert float(found.abs().max()) <= 2 * eps
    assert loss(found) > loss(start) > 0
    # The signs are those of finite differences: one pixel of each image in turn.
    for pixel in [(0, 0, 0), (0, 3, 5), (0, 7, 7)]:
        for i in range(len(z)):
            step = torch.zeros_like(z)
            step[(i, *pixel)] = 1e-5
            slope = (loss(start + step) - loss(start - step)) / 2e-5
            expected = (start[(i, *pixel)] + 2.5 * eps * slope.sign()).clamp(-2 * eps, 2 * eps)
            torch.testing.assert_close(found[(i, *pixel)], expected)


def test_training_on_the_exact_shift_shows_the_network_shifted_images(batch: tuple[Tensor, Tensor]) -> None:
    model, (x, y) = denoiser(True), batch
    shown = recorded(model)
    teacher_loss(0.0, 1.0, 0.1, rivals=3, bayes_weight=1.0)(model, x, y, generator())
    teacher_loss(0.0, 1.0, 0.1, rivals=3, bayes_weight=1.0, bayes_eps=0.1, shifted="exact")(model, x, y, generator())
    (unshifted, _), (looked_at, _), (trained_on, _) = shown
    assert 0 < float((looked_at - unshifted).detach().abs().max()) <= 0.2 + 1e-5
    assert float((trained_on - unshifted).abs().max()) <= 0.2 + 1e-5
    assert not torch.equal(trained_on, looked_at)


def test_teacher_with_bayes_weight_keeps_both_likelihoods(batch: tuple[Tensor, Tensor]) -> None:
    """What is left without Bayes' term is the EDM loss with the labels and, at its share, without them."""
    model, (x, y) = denoiser(True), batch
    tiny = teacher_loss(0.0, 1.0, 0.25, rivals=1, bayes_weight=1e-12)(model, x, y, generator())
    g, z = generator(), 2 * x - 1
    sigma = torch.randn(6, generator=g).exp()
    z_noisy = z + sigma[:, None, None, None] * torch.randn(z.shape, generator=g)
    weight = (sigma**2 + model.sigma_data**2) / (sigma * model.sigma_data) ** 2
    labelled, free = (
        (weight * (model(z_noisy, sigma, labels) - z).square().mean(dim=(1, 2, 3))).mean() for labels in (y, None)
    )
    torch.testing.assert_close(tiny, 0.75 * labelled + 0.25 * free)
