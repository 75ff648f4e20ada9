"""Defences: modules that map images in [0, 1] to logits and can be differentiated exactly."""

from __future__ import annotations

from rdc_bench.defenses.diffusion_classifier import DiffusionClassifier
from rdc_bench.defenses.likelihood_maximization import LikelihoodMaximization
from rdc_bench.defenses.rdc import RDC

__all__ = ["RDC", "DiffusionClassifier", "LikelihoodMaximization"]
