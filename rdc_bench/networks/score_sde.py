"""Weights of score_sde's ``NCSNpp`` (Song et al. 2021, arXiv 2011.13456) under the names of :class:`SongUNet`.

The two networks compute the same. score_sde numbers its layers in the order of their use (``all_modules.0``, …), keeps
attention apart from the residual block before it, and has separate matrices for queries, keys and values.

The RDC authors' multi-head network (Chen et al., arXiv 2305.15241, section 3.4) is an ``NCSNpp`` whose last convolution has K·C
channels. Its class embedding is left over from the network that it was distilled from: no head reads it, and it is dropped. A
network that does read its class embedding is another one, which ``SongUNet`` cannot express.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import torch
from torch import Tensor, nn

from rdc_bench.core.errors import UserError
from rdc_bench.networks.edm import SongUNet
from rdc_bench.networks.layers import FourierEmbedding, UNetBlock

#: Parts of a residual block, and of the attention behind it: our name and theirs.
BLOCK = {"norm0": "GroupNorm_0", "conv0": "Conv_0", "affine": "Dense_0", "norm1": "GroupNorm_1", "conv1": "Conv_1"}
ATTENTION = ("NIN_0", "NIN_1", "NIN_2")
#: Beside the network's layers: the noise levels of training, and the class embedding.
UNUSED = ("sigmas", "label_embed.weight")


def from_score_sde(state: Mapping[str, Tensor], network: SongUNet) -> dict[str, Tensor]:
    """A state dict of ``NCSNpp`` under the names of ``network``, which has the same shape.

    Args:
        state: with keys ``all_modules.…``. network: made with the arguments that correspond to the checkpoint's configuration:
            ``nf`` is ``model_channels``, ``ch_mult`` is ``channel_mult``, ``num_res_blocks`` is ``num_blocks``, ``fir`` is
            ``resample_filter`` [1, 3, 3, 1] rather than [1, 1], ``progressive_input`` is ``encoder_type``, and ``progressive``
            is ``decoder_type``.
    Returns: what ``network.load_state_dict(…, strict=True)`` takes.
    Raises: ``UserError`` naming a key that is missing, left over, or of another shape.
    """
    left = {key: value for key, value in state.items() if key not in UNUSED}

    def take(key: str) -> Tensor:
        if key not in left:
            raise UserError(f"the checkpoint has no {key!r}; the network's arguments are not those of the checkpoint")
        return left.pop(key)

    def matrix(key: str) -> Tensor:
        """A map between the channels of a pixel, (in, out) in the checkpoint, as a 1×1 convolution."""
        return take(f"{key}.W").t()[:, :, None, None]

    wanted = network.state_dict()
    found = {key: value for key, value in wanted.items() if key.endswith("resample_filter")}
    index = 0
    for name, layer in _in_order(network):
        theirs = f"all_modules.{index}"
        index += 1
        if isinstance(layer, FourierEmbedding):
            found[f"{name}.freqs"] = take(f"{theirs}.W")
            continue
        if not isinstance(layer, UNetBlock):
            beside = {"aux_skip": ".Conv_0", "aux_residual": ".Conv2d_0"}.get(name.partition("_")[2], "")
            for part in ("weight", "bias"):
                found[f"{name}.{part}"] = take(f"{theirs}{beside}.{part}")
            continue
        parts = BLOCK if layer.skip is None else {**BLOCK, "skip": "Conv_2"}
        for ours, part in parts.items():
            found[f"{name}.{ours}.weight"] = take(f"{theirs}.{part}.weight")
            found[f"{name}.{ours}.bias"] = take(f"{theirs}.{part}.bias")
        if layer.heads:
            theirs = f"all_modules.{index}"
            index += 1
            found[f"{name}.norm2.weight"] = take(f"{theirs}.GroupNorm_0.weight")
            found[f"{name}.norm2.bias"] = take(f"{theirs}.GroupNorm_0.bias")
            # Side by side for each channel: its query, its key, its value.
            found[f"{name}.qkv.weight"] = torch.stack([matrix(f"{theirs}.{part}") for part in ATTENTION], dim=1).flatten(0, 1)
            found[f"{name}.qkv.bias"] = torch.stack([take(f"{theirs}.{part}.b") for part in ATTENTION], dim=1).flatten()
            found[f"{name}.proj.weight"] = matrix(f"{theirs}.NIN_3")
            found[f"{name}.proj.bias"] = take(f"{theirs}.NIN_3.b")
    if left:
        raise UserError(
            f"the checkpoint's {next(iter(left))!r} has no place; the network's arguments are not those of the checkpoint"
        )
    for key, value in found.items():
        if value.shape != wanted[key].shape:
            raise UserError(
                f"{key} has shape {tuple(value.shape)} in the checkpoint, {tuple(wanted[key].shape)} in the network"
            )
    return found


def _in_order(network: SongUNet) -> Iterator[tuple[str, nn.Module]]:
    """Our names and layers that have parameters (or random frequencies), in the order in which score_sde numbers them."""
    if isinstance(network.map_noise, FourierEmbedding):
        yield "map_noise", network.map_noise
    yield "map_layer0", network.map_layer0
    yield "map_layer1", network.map_layer1
    blocks = [f"block{i}" for i in range(network.num_blocks + 1)]
    down = ["conv", "down", "aux_skip", "aux_residual", *blocks]
    up = ["in0", "in1", "up", *blocks, "aux_norm", "aux_conv"]
    for where, sides, parts in (("enc", network.sides, down), ("dec", reversed(network.sides), up)):
        layers = network.get_submodule(where)
        assert isinstance(layers, nn.ModuleDict)
        for name in (f"{side}x{side}_{part}" for side in sides for part in parts):
            if name in layers:
                yield f"{where}.{name}", layers[name]
