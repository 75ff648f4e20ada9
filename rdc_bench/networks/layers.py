"""Layers of the U-Nets whose weights EDM publishes (Karras et al. 2022, arXiv 2206.00364, appendix F).

The names of parameters and buffers are those of the published state dicts, so they cannot follow this package's taste.
All layers can be differentiated twice, which exact gradients through likelihood maximisation need.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class Init(NamedTuple):
    """How a layer's parameters start: with the variance of Glorot & Bengio (2010), 2/(fan_in + fan_out), or with 1/fan_in.

    ``weight`` and ``bias`` scale what is drawn; zero means zeros. ``normal``: drawn from a Gaussian, otherwise uniform.
    """

    xavier: bool
    weight: float = 1.0
    bias: float = 0.0
    normal: bool = False

    def parameters(self, shape: Sequence[int], bias: bool) -> tuple[nn.Parameter, nn.Parameter | None]:
        """Weight of ``shape`` (out, in, …) and bias (out,)."""
        receptive = math.prod(shape[2:])
        fan_in, fan_out = shape[1] * receptive, shape[0] * receptive
        std = math.sqrt(2 / (fan_in + fan_out) if self.xavier else 1 / fan_in)

        def drawn(shape: Sequence[int], scale: float) -> nn.Parameter:
            unit = torch.randn(*shape) if self.normal else torch.empty(*shape).uniform_(-math.sqrt(3), math.sqrt(3))
            return nn.Parameter(unit.mul_(std * scale))

        return drawn(shape, self.weight), drawn(shape[:1], self.bias) if bias else None


class Linear(nn.Module):
    """Affine map (…, in) to (…, out)."""

    def __init__(self, in_features: int, out_features: int, init: Init, bias: bool = True) -> None:
        super().__init__()
        self.in_features = in_features
        self.weight, self.bias = init.parameters((out_features, in_features), bias)

    def forward(self, x: Tensor) -> Tensor:
        return F.linear(x, self.weight, self.bias)


class Conv2d(nn.Module):
    """Convolution at constant resolution, optionally behind a change of resolution by two.

    Args:
        kernel: odd side of the kernel; 0 leaves the change of resolution alone, without parameters.
        resample: ``up``, ``down`` or nothing. taps: 1-D filter, whose outer product smooths the image on the way.
        filter_last: convolve first, then smooth and decimate. The two commute, but for the border: the image is padded once for
            both, so that no zeros enter between them.
    """

    weight: nn.Parameter | None
    bias: nn.Parameter | None
    resample_filter: Tensor | None

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel: int,
        init: Init | None = None,
        *,
        resample: str = "",
        taps: Sequence[float] = (1, 1),
        filter_last: bool = False,
    ) -> None:
        super().__init__()
        self.out_channels = out_channels
        self.resample = resample
        self.filter_last = filter_last
        self.weight = self.bias = None
        if init is not None:
            self.weight, self.bias = init.parameters((out_channels, in_channels, kernel, kernel), bias=True)
        self.padding = kernel // 2
        smoothing = torch.tensor(taps, dtype=torch.float32)
        smoothing = smoothing.outer(smoothing)[None, None] / smoothing.sum() ** 2
        self.register_buffer("resample_filter", smoothing if resample else None)

    def forward(self, x: Tensor) -> Tensor:
        if self.filter_last:
            return self._filtered(self._convolved(x, self.padding + self._filter_padding()), 0)
        if self.resample:
            x = self._filtered(x, self._filter_padding())
        return x if self.weight is None else self._convolved(x, self.padding)

    def _convolved(self, x: Tensor, padding: int) -> Tensor:
        assert self.weight is not None
        return F.conv2d(x, self.weight, self.bias, padding=padding)

    def _filter_padding(self) -> int:
        assert self.resample_filter is not None
        return (self.resample_filter.shape[-1] - 1) // 2

    def _filtered(self, x: Tensor, padding: int) -> Tensor:
        """Twice or half the resolution, channel by channel. Upsampling spreads a pixel over four, hence the factor."""
        assert self.resample_filter is not None
        channels = x.shape[1]
        smoothing = self.resample_filter.to(x.dtype).expand(channels, -1, -1, -1)
        if self.resample == "up":
            return F.conv_transpose2d(x, 4 * smoothing, stride=2, padding=padding, groups=channels)
        return F.conv2d(x, smoothing, stride=2, padding=padding, groups=channels)


def group_norm(channels: int, eps: float) -> nn.GroupNorm:
    """Group normalisation in 32 groups, fewer where a group would have less than four channels."""
    return nn.GroupNorm(min(32, channels // 4), channels, eps=eps)


class BlockStyle(NamedTuple):
    """What the residual blocks of one network have in common.

    Attributes:
        embedding: channels of the embedding. dropout: probability. eps: of the normalisations.
        skip_scale: factor after each addition. taps: smoothing filter of changes of resolution.
        adaptive_scale: the embedding scales and shifts the second normalisation's output; otherwise it shifts its input.
        head_channels: channels per attention head; None for one head.
        project_resampled: a change of resolution on the skip path is followed by a 1×1 convolution.
        init, init_last, init_attention: of most layers; of those that end a residual branch; of queries, keys and values.
    """

    embedding: int
    dropout: float
    eps: float
    skip_scale: float
    taps: Sequence[float]
    adaptive_scale: bool
    head_channels: int | None
    project_resampled: bool
    init: Init
    init_last: Init
    init_attention: Init


class UNetBlock(nn.Module):
    """Residual block modulated by an embedding, optionally with a change of resolution and self-attention."""

    def __init__(
        self, in_channels: int, out_channels: int, style: BlockStyle, *, resample: str = "", attention: bool = False
    ) -> None:
        super().__init__()
        self.style = style
        self.out_channels = out_channels
        self.norm0 = group_norm(in_channels, style.eps)
        self.conv0 = Conv2d(in_channels, out_channels, 3, style.init, resample=resample, taps=style.taps)
        self.affine = Linear(style.embedding, out_channels * (2 if style.adaptive_scale else 1), style.init)
        self.norm1 = group_norm(out_channels, style.eps)
        self.conv1 = Conv2d(out_channels, out_channels, 3, style.init_last)
        self.skip: Conv2d | None = None
        if out_channels != in_channels or (resample and style.project_resampled):
            self.skip = Conv2d(in_channels, out_channels, 1, style.init, resample=resample, taps=style.taps)
        elif resample:
            self.skip = Conv2d(in_channels, out_channels, 0, resample=resample, taps=style.taps)
        self.heads = 0
        if attention:
            self.heads = 1 if style.head_channels is None else out_channels // style.head_channels
        if self.heads:
            self.norm2 = group_norm(out_channels, style.eps)
            self.qkv = Conv2d(out_channels, 3 * out_channels, 1, style.init_attention)
            self.proj = Conv2d(out_channels, out_channels, 1, style.init_last)

    def forward(self, x: Tensor, embedding: Tensor) -> Tensor:
        """Features (B, in, H, W) and embedding (B, E) to (B, out, H′, W′)."""
        h = self.conv0(F.silu(self.norm0(x)))
        modulation = self.affine(embedding)[:, :, None, None]
        if self.style.adaptive_scale:
            scale, shift = modulation.chunk(2, dim=1)
            h = F.silu(torch.addcmul(shift, self.norm1(h), scale + 1))
        else:
            h = F.silu(self.norm1(h + modulation))
        h = self.conv1(F.dropout(h, self.style.dropout, self.training))
        h = (h + (x if self.skip is None else self.skip(x))) * self.style.skip_scale
        if self.heads:
            h = (h + self.proj(self._attended(self.norm2(h)))) * self.style.skip_scale
        return h

    def _attended(self, x: Tensor) -> Tensor:
        """Self-attention over pixels. Queries, keys and values of a channel lie side by side in ``qkv``.

        Plain products, because the fused kernels have no second derivative.
        """
        b, c, height, width = x.shape
        q, k, v = self.qkv(x).reshape(b, self.heads, c // self.heads, 3, height * width).unbind(3)
        weights = torch.softmax((q / math.sqrt(c // self.heads)).transpose(-1, -2) @ k, dim=-1)
        return (v @ weights.transpose(-1, -2)).reshape(b, c, height, width)


class PositionalEmbedding(nn.Module):
    """Angles ``c_noise · 10000^(−i/n)``, with ``i = 0 … C/2 − 1``, whose cosines and sines embed a noise label.

    ``endpoint``: n = C/2 − 1, so that the last frequency is 1/10000 exactly; otherwise n = C/2. (B,) to (B, C/2).
    """

    def __init__(self, channels: int, endpoint: bool) -> None:
        super().__init__()
        self.count = channels // 2
        self.endpoint = endpoint

    def forward(self, noise_labels: Tensor) -> Tensor:
        # Made anew at each call: a buffer outside the state dict would be lost by a network built on the meta device.
        index = torch.arange(self.count, dtype=noise_labels.dtype, device=noise_labels.device)
        return noise_labels.outer((1 / 10000) ** (index / (self.count - self.endpoint)))


class FourierEmbedding(nn.Module):
    """Angles ``2π f c_noise`` at random frequencies ``f ~ N(0, 16²)``, which are part of the state dict. (B,) to (B, C/2)."""

    freqs: Tensor

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.register_buffer("freqs", 16 * torch.randn(channels // 2))

    def forward(self, noise_labels: Tensor) -> Tensor:
        return noise_labels.outer((2 * math.pi * self.freqs).to(noise_labels.dtype))
