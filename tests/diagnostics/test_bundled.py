"""The same plants in the bundled network, at the size of a real diagnosis: minutes each."""

from pathlib import Path

import pytest
import torch
from torch import nn

import rdc_bench
from rdc_bench.core.registry import load_plugin
from rdc_bench.data import load_dataset
from rdc_bench.defenses import DiffusionClassifier
from rdc_bench.diagnostics import diagnose, gradient_agreement
from rdc_bench.diagnostics.subject import make_subject
from rdc_bench.threats import LpThreat
from rdc_bench.zoo.loading import load_denoiser

pytestmark = pytest.mark.slow
EXAMPLE = Path(__file__).parents[2] / "examples" / "masked_defense.py"


class Detached(nn.Module):
    def __init__(self):
        super().__init__()
        self.network = rdc_bench.load_model("standard-fashion-mnist")

    @torch.no_grad()
    def forward(self, x):
        return self.network(x)


class Saturated(Detached):
    def forward(self, x):
        return 1e4 * self.network(x)


def classifier(noise):
    return DiffusionClassifier(
        load_denoiser("multihead-fashion-mnist"), 10, levels=4, log_mean=1.0, log_std=0.45, noise=noise, temperature=0.006
    )


@pytest.mark.parametrize("name", ["standard-fashion-mnist", "at-linf-fashion-mnist"])
def test_honest_networks_pass(name):
    diagnosis = diagnose(name, eps="8/255")
    assert diagnosis.verdict == "pass", [(check.name, check.figures) for check in diagnosis.checks if check.verdict != "pass"]


def test_the_example_is_caught(registered):
    load_plugin(EXAMPLE)
    diagnosis = diagnose("quantized-fashion-mnist", eps="8/255")
    assert {"zero-gradients", "convergence", "growing-eps", "black-box"} <= set(diagnosis.failed)


def test_a_detached_network_is_caught(registered):
    registered.model("detached", Detached)
    diagnosis = diagnose("detached", eps="8/255")
    expected = {"zero-gradients", "finite-differences", "convergence", "growing-eps", "black-box", "transfer"}
    assert expected <= set(diagnosis.failed)


def test_saturated_logits_are_caught(registered):
    registered.model("saturated", Saturated)
    diagnosis = diagnose("saturated", eps="8/255")
    assert diagnosis.failed == ["zero-gradients"]


def test_a_diffusion_classifier_with_shared_noise_passes(registered):
    registered.model("shared", lambda: classifier("shared"))
    assert diagnose("shared", eps="8/255", n=12).verdict == "pass"


def test_fresh_noise_for_each_class_is_caught():
    dataset = load_dataset("fashion-mnist", "test", 16)
    subject = make_subject(classifier("fresh"), dataset.images, dataset.labels, LpThreat("linf", 8 / 255), 0, {})
    assert gradient_agreement.examine(subject).verdict == "fail"
