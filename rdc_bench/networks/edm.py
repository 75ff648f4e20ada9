"""The U-Nets whose weights EDM publishes: DDPM++ and NCSN++ (``SongUNet``) and ADM (``DhariwalUNet``).

Constructor arguments, state-dict keys and outputs are those of the networks of the same names in NVlabs' EDM, so published
state dicts load with ``strict=True``. The architectures are those of Song et al. 2021 (arXiv 2011.13456, appendix H) and of
Dhariwal & Nichol 2021 (arXiv 2105.05233, section 3), as Karras et al. 2022 (arXiv 2206.00364, appendix F.2) restate them.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal, get_args

import torch
from torch import Tensor
from torch.nn import functional as F

from rdc_bench.networks.ladder import Ladder, one_hot_labels, require_known
from rdc_bench.networks.layers import (
    BlockStyle,
    Conv2d,
    FourierEmbedding,
    Init,
    Linear,
    PositionalEmbedding,
    group_norm,
)

EmbeddingType = Literal["positional", "fourier"]
EncoderType = Literal["standard", "skip", "residual"]
DecoderType = Literal["standard", "skip"]


class SongUNet(Ladder):
    """DDPM++ (the defaults) and NCSN++ of Song et al. 2021: a raw network ``F_θ``, to be wrapped in a preconditioning.

    Args:
        img_resolution, in_channels, out_channels: image size (square) and channels.
        label_dim: number of classes K, 0 for none. augment_dim: size of augmentation labels, 0 for none.
        model_channels: the width that all others are multiples of. channel_mult: per resolution, the finest first.
        channel_mult_emb: of the embedding. num_blocks: residual blocks per resolution.
        attn_resolutions: sides of feature maps whose blocks attend.
        dropout, label_dropout: probabilities in training, of activations and of whole labels.
        embedding_type: of noise labels; ``positional`` in DDPM++, ``fourier`` in NCSN++.
        channel_mult_noise: of the noise embedding; 1 in DDPM++, 2 in NCSN++.
        encoder_type: ``standard`` in DDPM++, ``residual`` in NCSN++; ``skip`` adds the shrunken image at each resolution.
        decoder_type: ``standard`` in both; ``skip`` sums up an image from each resolution.
        resample_filter: taps of the smoothing filter; [1, 1] in DDPM++, [1, 3, 3, 1] in NCSN++.
    Raises: ``UserError`` for an unknown type, or a resolution that cannot be halved as often as ``channel_mult`` asks.
    """

    def __init__(
        self,
        img_resolution: int,
        in_channels: int,
        out_channels: int,
        label_dim: int = 0,
        augment_dim: int = 0,
        model_channels: int = 128,
        channel_mult: Sequence[int] = (1, 2, 2, 2),
        channel_mult_emb: int = 4,
        num_blocks: int = 4,
        attn_resolutions: Sequence[int] = (16,),
        dropout: float = 0.10,
        label_dropout: float = 0,
        embedding_type: EmbeddingType = "positional",
        channel_mult_noise: int = 1,
        encoder_type: EncoderType = "standard",
        decoder_type: DecoderType = "standard",
        resample_filter: Sequence[float] = (1, 1),
    ) -> None:
        require_known("embedding_type", embedding_type, get_args(EmbeddingType))
        require_known("encoder_type", encoder_type, get_args(EncoderType))
        require_known("decoder_type", decoder_type, get_args(DecoderType))
        super().__init__(img_resolution, channel_mult, num_blocks)
        self.label_dropout = label_dropout
        self.encoder_type = encoder_type
        self.decoder_type = decoder_type
        embedding = model_channels * channel_mult_emb
        noise = model_channels * channel_mult_noise
        init = Init(xavier=True)
        style = BlockStyle(
            embedding=embedding,
            dropout=dropout,
            eps=1e-6,
            skip_scale=math.sqrt(0.5),
            taps=resample_filter,
            adaptive_scale=False,
            head_channels=None,
            project_resampled=True,
            init=init,
            init_last=Init(xavier=True, weight=1e-5),
            init_attention=Init(xavier=True, weight=math.sqrt(0.2)),
        )
        positional = embedding_type == "positional"
        self.map_noise = PositionalEmbedding(noise, endpoint=True) if positional else FourierEmbedding(noise)
        self.map_label = Linear(label_dim, noise, init) if label_dim else None
        self.map_augment = Linear(augment_dim, noise, init, bias=False) if augment_dim else None
        self.map_layer0 = Linear(noise, embedding, init)
        self.map_layer1 = Linear(embedding, embedding, init)
        widths = [model_channels * mult for mult in channel_mult]
        attends = [side in attn_resolutions for side in self.sides]
        self._build(in_channels, model_channels, widths, attends, style, decoder_attends="last")
        self._build_beside(in_channels, out_channels, widths, style)

    def _build_beside(self, in_channels: int, out_channels: int, widths: Sequence[int], style: BlockStyle) -> None:
        image = in_channels
        for side, width in zip(self.sides[1:], widths, strict=False):  # a level's ``down`` still has the width above it
            if self.encoder_type == "skip":
                self._set(self.enc, side, "aux_down", Conv2d(image, image, 0, resample="down", taps=style.taps))
                self._set(self.enc, side, "aux_skip", Conv2d(image, width, 1, style.init))
            elif self.encoder_type == "residual":
                shrink = Conv2d(image, width, 3, style.init, resample="down", taps=style.taps, filter_last=True)
                self._set(self.enc, side, "aux_residual", shrink)
                image = width
        for side, width in zip(self.sides, widths, strict=True):
            if self._yields_image(side):
                self._set(self.dec, side, "aux_norm", group_norm(width, style.eps))
                self._set(self.dec, side, "aux_conv", Conv2d(width, out_channels, 3, style.init_last))
                if self.decoder_type == "skip" and side != self.sides[-1]:
                    grow = Conv2d(out_channels, out_channels, 0, resample="up", taps=style.taps)
                    self._set(self.dec, side, "aux_up", grow)

    def _yields_image(self, side: int) -> bool:
        return self.decoder_type == "skip" or side == self.sides[0]

    def forward(
        self, x: Tensor, noise_labels: Tensor, class_labels: Tensor | None = None, augment_labels: Tensor | None = None
    ) -> Tensor:
        """Network output.

        Args:
            x: (B, in, H, W). noise_labels: c_noise (B,). class_labels: one-hot (B, K) or (1, K); None means zeros.
            augment_labels: (B, augment_dim); None means zeros.
        Returns: (B, out, H, W).
        """
        angles = self.map_noise(noise_labels)
        embedding = torch.cat([angles.sin(), angles.cos()], dim=1).to(x.dtype)
        if self.map_label is not None:
            label_dim = self.map_label.in_features
            labels = one_hot_labels(class_labels, x, label_dim, self.label_dropout if self.training else 0)
            embedding = embedding + self.map_label(labels * math.sqrt(label_dim))
        if self.map_augment is not None and augment_labels is not None:
            embedding = embedding + self.map_augment(augment_labels.to(x.dtype))
        embedding = F.silu(self.map_layer1(F.silu(self.map_layer0(embedding))))

        image: Tensor | None = None
        for side, h in self._up(*self._down(x, embedding), embedding):
            if self._yields_image(side):
                part = self._at(self.dec, side, "aux_conv")(F.silu(self._at(self.dec, side, "aux_norm")(h)))
                image = part if image is None else part + self._at(self.dec, side, "aux_up")(image)
        assert image is not None
        return image

    def _beside_encoder(self, side: int, h: Tensor, image: Tensor) -> tuple[Tensor, Tensor]:
        if self.encoder_type == "skip":
            image = self._at(self.enc, side, "aux_down")(image)
            return h + self._at(self.enc, side, "aux_skip")(image), image
        if self.encoder_type == "residual":
            h = (h + self._at(self.enc, side, "aux_residual")(image)) * math.sqrt(0.5)
            return h, h
        return h, image


class DhariwalUNet(Ladder):
    """ADM of Dhariwal & Nichol 2021: a raw network ``F_θ``, to be wrapped in a preconditioning.

    Arguments, shapes and errors as in :class:`SongUNet`; attention heads have 64 channels.
    """

    def __init__(
        self,
        img_resolution: int,
        in_channels: int,
        out_channels: int,
        label_dim: int = 0,
        augment_dim: int = 0,
        model_channels: int = 192,
        channel_mult: Sequence[int] = (1, 2, 3, 4),
        channel_mult_emb: int = 4,
        num_blocks: int = 3,
        attn_resolutions: Sequence[int] = (32, 16, 8),
        dropout: float = 0.10,
        label_dropout: float = 0,
    ) -> None:
        super().__init__(img_resolution, channel_mult, num_blocks)
        self.label_dropout = label_dropout
        embedding = model_channels * channel_mult_emb
        init = Init(xavier=False, weight=math.sqrt(1 / 3), bias=math.sqrt(1 / 3))
        zero = Init(xavier=False, weight=0, bias=0)
        style = BlockStyle(
            embedding=embedding,
            dropout=dropout,
            eps=1e-5,
            skip_scale=1.0,
            taps=(1, 1),
            adaptive_scale=True,
            head_channels=64,
            project_resampled=False,
            init=init,
            init_last=zero,
            init_attention=init,
        )
        self.map_noise = PositionalEmbedding(model_channels, endpoint=False)
        self.map_augment = Linear(augment_dim, model_channels, zero, bias=False) if augment_dim else None
        self.map_layer0 = Linear(model_channels, embedding, init)
        self.map_layer1 = Linear(embedding, embedding, init)
        unit = Init(xavier=False, weight=math.sqrt(label_dim), normal=True)
        self.map_label = Linear(label_dim, embedding, unit, bias=False) if label_dim else None
        widths = [model_channels * mult for mult in channel_mult]
        attends = [side in attn_resolutions for side in self.sides]
        self._build(in_channels, widths[0], widths, attends, style, decoder_attends="all")
        self.out_norm = group_norm(widths[0], style.eps)
        self.out_conv = Conv2d(widths[0], out_channels, 3, zero)

    def forward(
        self, x: Tensor, noise_labels: Tensor, class_labels: Tensor | None = None, augment_labels: Tensor | None = None
    ) -> Tensor:
        """Network output, as :meth:`SongUNet.forward`."""
        angles = self.map_noise(noise_labels)
        embedding = torch.cat([angles.cos(), angles.sin()], dim=1).to(x.dtype)
        if self.map_augment is not None and augment_labels is not None:
            embedding = embedding + self.map_augment(augment_labels.to(x.dtype))
        embedding = self.map_layer1(F.silu(self.map_layer0(embedding)))
        if self.map_label is not None:
            dropout = self.label_dropout if self.training else 0
            embedding = embedding + self.map_label(one_hot_labels(class_labels, x, self.map_label.in_features, dropout))
        embedding = F.silu(embedding)

        *_, (_, h) = self._up(*self._down(x, embedding), embedding)
        return self.out_conv(F.silu(self.out_norm(h)))
