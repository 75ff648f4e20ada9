"""Attacks under ℓp threats: by gradients or logits, in search of the nearest adversarial image, and ensembles of them."""
