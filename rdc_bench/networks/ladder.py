"""What EDM's U-Nets share: the ladder of blocks down and up, and how labels come in."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Literal

import torch
from torch import Tensor, nn

from rdc_bench.core.errors import UserError, unknown_name
from rdc_bench.networks.layers import (
    BlockStyle,
    Conv2d,
    UNetBlock,
)


class Ladder(nn.Module):
    """What the two networks share: blocks down and up again, named by the resolution that they work at.

    ``enc`` and ``dec`` hold them as ``{side}x{side}_{part}``. A level begins with ``conv`` (the image), ``down``, ``up`` or, at
    the bottom of the decoder, ``in0`` and ``in1``; ``block0``, ``block1``, … follow. What a subclass has beside the ladder is
    called ``aux_…``.
    """

    #: One call of this module on one row is one *network evaluation* (NFE) in the records.
    is_network = True

    def __init__(self, img_resolution: int, channel_mult: Sequence[int], num_blocks: int) -> None:
        super().__init__()
        depth = len(channel_mult)
        if img_resolution % 2 ** (depth - 1):
            raise UserError(f"img_resolution {img_resolution} cannot be halved {depth - 1} times, which channel_mult asks for")
        self.sides = [img_resolution >> level for level in range(depth)]
        self.num_blocks = num_blocks

    def _build(
        self,
        in_channels: int,
        stem: int,
        widths: Sequence[int],
        attends: Sequence[bool],
        style: BlockStyle,
        decoder_attends: Literal["all", "last"],
    ) -> None:
        """Make ``enc`` and ``dec``.

        Args:
            stem: channels of the first convolution. widths: of each level's blocks, the finest level first.
            attends: whether a level's blocks have self-attention. decoder_attends: in the decoder, ``all`` of them or the last.
        """
        self.enc = nn.ModuleDict()
        self.dec = nn.ModuleDict()
        width, skips = stem, []
        for level, side in enumerate(self.sides):
            if level == 0:
                self._set(self.enc, side, "conv", Conv2d(in_channels, stem, 3, style.init))
            else:
                self._set(self.enc, side, "down", UNetBlock(width, width, style, resample="down"))
            skips.append(width)
            for i in range(self.num_blocks):
                block = UNetBlock(width, widths[level], style, attention=attends[level])
                self._set(self.enc, side, f"block{i}", block)
                width = widths[level]
                skips.append(width)

        for level, side in reversed(list(enumerate(self.sides))):
            if side == self.sides[-1]:
                self._set(self.dec, side, "in0", UNetBlock(width, width, style, attention=True))
                self._set(self.dec, side, "in1", UNetBlock(width, width, style))
            else:
                self._set(self.dec, side, "up", UNetBlock(width, width, style, resample="up"))
            for i in range(self.num_blocks + 1):
                attention = attends[level] and (decoder_attends == "all" or i == self.num_blocks)
                block = UNetBlock(width + skips.pop(), widths[level], style, attention=attention)
                self._set(self.dec, side, f"block{i}", block)
                width = widths[level]

    @staticmethod
    def _set(where: nn.ModuleDict, side: int, part: str, layer: nn.Module) -> None:
        where[f"{side}x{side}_{part}"] = layer

    @staticmethod
    def _at(where: nn.ModuleDict, side: int, part: str) -> nn.Module:
        return where[f"{side}x{side}_{part}"]

    def _down(self, x: Tensor, embedding: Tensor) -> tuple[Tensor, list[Tensor]]:
        """The coarsest features, and the features that the decoder takes up again."""
        h = image = x
        skips = []
        for side in self.sides:
            if side == self.sides[0]:
                h = self._at(self.enc, side, "conv")(h)
            else:
                h, image = self._beside_encoder(side, self._at(self.enc, side, "down")(h, embedding), image)
            skips.append(h)
            for i in range(self.num_blocks):
                h = self._at(self.enc, side, f"block{i}")(h, embedding)
                skips.append(h)
        return h, skips

    def _beside_encoder(self, side: int, h: Tensor, image: Tensor) -> tuple[Tensor, Tensor]:
        """A path of the image beside the ladder: new features, and the image for the next level."""
        return h, image

    def _up(self, h: Tensor, skips: list[Tensor], embedding: Tensor) -> Iterator[tuple[int, Tensor]]:
        """Side and features of each level, the coarsest first."""
        for side in reversed(self.sides):
            if side == self.sides[-1]:
                h = self._at(self.dec, side, "in1")(self._at(self.dec, side, "in0")(h, embedding), embedding)
            else:
                h = self._at(self.dec, side, "up")(h, embedding)
            for i in range(self.num_blocks + 1):
                h = self._at(self.dec, side, f"block{i}")(torch.cat([h, skips.pop()], dim=1), embedding)
            yield side, h


def one_hot_labels(class_labels: Tensor | None, x: Tensor, label_dim: int, dropout: float) -> Tensor:
    """One-hot labels in the type of ``x``, each zeroed with probability ``dropout``; None means zeros."""
    if class_labels is None:
        return x.new_zeros(1, label_dim)
    class_labels = class_labels.to(x.dtype)
    if dropout:
        class_labels = class_labels * (torch.rand(len(x), 1, device=x.device) >= dropout).to(x.dtype)
    return class_labels


def require_known(argument: str, value: str, known: Sequence[str]) -> None:
    """Raise ``UserError`` with close matches for a value that there is not."""
    if value not in known:
        raise unknown_name(argument, value, known, f"Known: {', '.join(known)}.")
