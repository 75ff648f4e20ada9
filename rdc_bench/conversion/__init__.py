"""Checkpoints of others made safe: read without executing them, checked, and written as safetensors with a card."""
