"""The version of this package, as records carry it."""

__version__ = "0.2.0"
