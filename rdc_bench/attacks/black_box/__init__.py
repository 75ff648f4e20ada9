"""Attacks under any threat without the model's own gradient: the threat's attack on other models, or by estimated gradients."""
