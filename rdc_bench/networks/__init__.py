"""Networks by name: denoisers (raw, to be preconditioned) and classifiers."""

from __future__ import annotations

from torch import nn

from rdc_bench.core.errors import unknown_name
from rdc_bench.networks.edm import DhariwalUNet, SongUNet
from rdc_bench.networks.resnet import SmallResNet
from rdc_bench.networks.resnet18 import ResNet18
from rdc_bench.networks.unet import MultiHeadUNet

__all__ = ["NETWORKS", "DhariwalUNet", "MultiHeadUNet", "ResNet18", "SmallResNet", "SongUNet", "network_class"]

#: The only classes that a card or a configuration file can name.
NETWORKS: dict[str, type[nn.Module]] = {
    cls.__name__: cls for cls in (DhariwalUNet, MultiHeadUNet, ResNet18, SmallResNet, SongUNet)
}


def network_class(name: str) -> type[nn.Module]:
    """The network class called ``name``; raises ``UserError`` for a name that is not on the list."""
    if name not in NETWORKS:
        raise unknown_name("network", name, NETWORKS, f"Known networks: {', '.join(NETWORKS)}.")
    return NETWORKS[name]
