"""timm's networks."""

from __future__ import annotations

import timm
from timm.models import get_pretrained_cfg
from torch import nn

from rdc_bench.core.errors import unknown_name
from rdc_bench.libraries.library import Library, Published
from rdc_bench.zoo.reference import SCHEME
from rdc_bench.zoo.schema import LibrarySpec, ModelCard


def published(name: str) -> Published:
    """timm's ``pretrained_cfg`` of a network; with a tag after a dot (``resnet18.a1_in1k``), that of these weights."""
    architecture, dot, _ = name.partition(".")
    tags = timm.list_models(f"{architecture}.*", pretrained=True) if dot else []
    if not timm.is_model(architecture) or (dot and name not in tags):
        raise unknown_name("network of timm", name, tags or timm.list_models(), "timm.list_models() lists them all.")
    cfg = get_pretrained_cfg(name)
    weights = f"{SCHEME}{cfg.hf_hub_id}" if cfg and cfg.hf_hub_id else ""
    if cfg is None:
        return Published(architecture, (), (), "", "")
    return Published(architecture, tuple(cfg.mean), tuple(cfg.std), cfg.interpolation, weights)


def make(spec: LibrarySpec, card: ModelCard) -> nn.Module:
    """The network for the card's images. One that is made for images of one size is told which it will see."""
    channels, *size = card.image_shape
    size = [spec.resize] * 2 if spec.resize else size
    cfg = get_pretrained_cfg(spec.architecture, allow_unregistered=True)
    fixed = {"img_size": tuple(size)} if cfg and cfg.fixed_input_size and list(cfg.input_size[1:]) != size else {}
    network: nn.Module = timm.create_model(
        spec.architecture, pretrained=False, num_classes=card.num_classes, in_chans=channels, **fixed
    )
    return network


LIBRARY = Library(timm.__version__, published, make)
