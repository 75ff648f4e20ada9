"""Attacks under unseen threats, one module for each threat, in that threat's own parameters."""
