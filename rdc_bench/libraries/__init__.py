"""Networks of timm and torchvision with weights of the user: ``timm:NAME``, ``torchvision:NAME``. Needs the extra ``timm``."""

from rdc_bench.libraries.naming import resolve
from rdc_bench.libraries.network import load

__all__ = ["load", "resolve"]
