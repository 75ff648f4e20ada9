"""Weights from elsewhere: safe conversion of foreign checkpoints, and the Hugging Face Hub."""
