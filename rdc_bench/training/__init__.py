"""Training of denoisers, multi-head students and adversarial-training baselines."""
