"""A small U-Net denoiser with one head per class.

The network has a *trunk*, which works on the noisy image, and a *head*, which turns the trunk's coarse features into the
denoising for one class. Everything the head computes is repeated per class, everything in the trunk is not, so a thin head
makes the denoisings of all ``K`` classes cost little more than one (multi-head diffusion, Chen et al., arXiv 2305.15241,
section 3.4).

One parameter turns the same network into a teacher or a student. With ``class_in_trunk=True`` the class modulates every block
(an ordinary class-conditional network; all classes cost ``K`` passes). With ``class_in_trunk=False`` the trunk never sees the
class (a multi-head network; all classes cost one trunk pass and ``K`` head passes), and the weights of a teacher of the same
shape load into it.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

#: Of every normalisation.
GROUPS = 8


class NoiseEmbedding(nn.Module):
    """Sinusoidal embedding of the noise label ``c_noise``, then a two-layer perceptron. Maps (B,) to (B, channels)."""

    frequencies: Tensor

    def __init__(self, channels: int, frequencies: int = 16, max_period: float = 64.0) -> None:
        super().__init__()
        octaves = torch.linspace(0.0, 1.0, frequencies)
        self.register_buffer("frequencies", 2 * math.pi * max_period**octaves / 4, persistent=False)
        self.layers = nn.Sequential(nn.Linear(2 * frequencies, channels), nn.SiLU(), nn.Linear(channels, channels))

    def forward(self, noise_labels: Tensor) -> Tensor:
        angles = noise_labels[:, None] * self.frequencies.to(noise_labels.dtype)
        return self.layers(torch.cat([angles.cos(), angles.sin()], dim=1))


class SelfAttention(nn.Module):
    """Multi-head self-attention over the pixels of a feature map, added to it.

    Written with plain matrix products because the fused kernels have no second derivative, which exact gradients through
    likelihood maximisation need.
    """

    def __init__(self, channels: int, head_channels: int = 32) -> None:
        super().__init__()
        self.heads = max(1, channels // head_channels)
        if channels % self.heads:
            raise ValueError(
                f"{channels} channels cannot be shared by {self.heads} heads of attention; take a multiple of {head_channels}"
            )
        self.norm = nn.GroupNorm(GROUPS, channels)
        self.qkv = nn.Conv2d(channels, 3 * channels, 1)
        self.out = _zeroed(nn.Conv2d(channels, channels, 1))

    def forward(self, x: Tensor) -> Tensor:
        b, c, h, w = x.shape
        q, k, v = self.qkv(self.norm(x)).reshape(b, 3, self.heads, c // self.heads, h * w).unbind(1)
        weights = torch.softmax(q.transpose(-1, -2) @ k / math.sqrt(c // self.heads), dim=-1)
        return x + self.out((v @ weights.transpose(-1, -2)).reshape(b, c, h, w))


class ResidualBlock(nn.Module):
    """Pre-activation residual block whose second normalisation is scaled and shifted by an embedding.

    ``embedding`` may have ``m`` rows for each row of ``x`` (row ``i`` of ``x`` meets rows ``i·m … i·m+m−1``): the first
    convolution, which does not see the embedding, then runs once per row of ``x``.
    """

    def __init__(self, channels: int, embedding_channels: int, attention: bool = False) -> None:
        super().__init__()
        self.norm1 = nn.GroupNorm(GROUPS, channels)
        self.conv1 = nn.Conv2d(channels, channels, 3, padding=1)
        self.affine = nn.Linear(embedding_channels, 2 * channels)
        self.norm2 = nn.GroupNorm(GROUPS, channels)
        self.conv2 = _zeroed(nn.Conv2d(channels, channels, 3, padding=1))
        self.attention = SelfAttention(channels) if attention else nn.Identity()

    def forward(self, x: Tensor, embedding: Tensor) -> Tensor:
        h = self.norm2(self.conv1(F.silu(self.norm1(x))))
        repeats = embedding.shape[0] // x.shape[0]
        if repeats > 1:
            x, h = x.repeat_interleave(repeats, dim=0), h.repeat_interleave(repeats, dim=0)
        scale, shift = self.affine(embedding)[:, :, None, None].chunk(2, dim=1)
        return self.attention(x + self.conv2(F.silu(h * (1 + scale) + shift)))


class Trunk(nn.Module):
    """The part of the network that is evaluated once, whatever the number of classes.

    Returns the coarse features (B, ``coarse``, H/2p, W/2p) for the head and an image-sized detail map (B, C, H, W), where
    ``p`` is ``patch``.
    """

    #: One call of this module on one row is one *network evaluation* (NFE) in the records.
    is_network = True

    def __init__(
        self, in_channels: int, out_channels: int, patch: int, fine: int, coarse: int, blocks: tuple[int, int], embedding: int
    ) -> None:
        super().__init__()
        self.patch = patch
        self.stem = nn.Conv2d(in_channels * patch**2, fine, 3, padding=1)
        self.fine_encoder = nn.ModuleList(ResidualBlock(fine, embedding) for _ in range(blocks[0]))
        self.down = nn.Conv2d(4 * fine, coarse, 1)
        self.coarse_encoder = nn.ModuleList(ResidualBlock(coarse, embedding, attention=i % 2 == 1) for i in range(blocks[1]))
        self.up = nn.Conv2d(coarse, 4 * fine, 1)
        self.fine_decoder = nn.ModuleList(ResidualBlock(fine, embedding) for _ in range(blocks[0]))
        self.detail_norm = nn.GroupNorm(GROUPS, fine)
        self.detail = _zeroed(nn.Conv2d(fine, out_channels * patch**2, 3, padding=1))

    def forward(self, x: Tensor, embedding: Tensor) -> tuple[Tensor, Tensor]:
        h = self.stem(F.pixel_unshuffle(x, self.patch))
        for block in self.fine_encoder:
            h = block(h, embedding)
        skip = h
        h = self.down(F.pixel_unshuffle(h, 2))
        for block in self.coarse_encoder:
            h = block(h, embedding)
        coarse = h
        h = skip + F.pixel_shuffle(self.up(h), 2)
        for block in self.fine_decoder:
            h = block(h, embedding)
        return coarse, F.pixel_shuffle(self.detail(F.silu(self.detail_norm(h))), self.patch)


class Head(nn.Module):
    """The class-specific part: from the trunk's coarse features to an image-sized map, for ``m`` classes per row."""

    def __init__(self, out_channels: int, patch: int, coarse: int, channels: int, blocks: int, embedding: int) -> None:
        super().__init__()
        self.pixels = 2 * patch
        self.narrow = nn.Conv2d(coarse, channels, 1)
        self.blocks = nn.ModuleList(ResidualBlock(channels, embedding, attention=i == 0) for i in range(blocks))
        self.norm = nn.GroupNorm(GROUPS, channels)
        self.out = _zeroed(nn.Conv2d(channels, out_channels * self.pixels**2, 1))

    def forward(self, coarse: Tensor, embedding: Tensor) -> Tensor:
        h = self.narrow(coarse)
        for block in self.blocks:
            h = block(h, embedding)
        return F.pixel_shuffle(self.out(F.silu(self.norm(h))), self.pixels)


class MultiHeadUNet(nn.Module):
    """Two-level U-Net with class-specific heads (the raw network ``F_θ`` of EDM; wrap it in ``EDMPrecond``).

    Args:
        img_resolution: height and width; divisible by ``2 * patch``.
        in_channels, out_channels: image channels.
        label_dim: number of classes ``K``; 0 for an unconditional network.
        patch: pixels per side folded into channels at the fine level.
        fine, coarse: channels at the fine (H/p) and coarse (H/2p) level.
        blocks: residual blocks of the trunk at the fine (encoder and decoder each) and the coarse level.
        head: channels of the class-specific path; ``head_blocks``: its residual blocks.
        embedding: channels of the noise and class embedding.
        class_in_trunk: True for a class-conditional teacher, False for a multi-head student.
    """

    def __init__(
        self,
        img_resolution: int,
        in_channels: int,
        out_channels: int,
        label_dim: int = 0,
        *,
        patch: int = 2,
        fine: int = 32,
        coarse: int = 96,
        blocks: tuple[int, int] = (1, 4),
        head: int = 64,
        head_blocks: int = 2,
        embedding: int = 128,
        class_in_trunk: bool = True,
    ) -> None:
        super().__init__()
        if img_resolution % (2 * patch):
            raise ValueError(f"img_resolution {img_resolution} is not divisible by 2 * patch = {2 * patch}")
        for name, channels in {"fine": fine, "coarse": coarse, "head": head}.items():
            if channels < GROUPS or channels % GROUPS:
                raise ValueError(f"{name} = {channels}: channels are normalised in {GROUPS} groups, so take a multiple of it")
        self.label_dim = label_dim
        self.class_in_trunk = class_in_trunk
        self.noise_embedding = NoiseEmbedding(embedding)
        # No bias: the zero label vector then adds nothing, which is how the unconditional denoiser is asked for.
        self.class_embedding = nn.Linear(label_dim, embedding, bias=False) if label_dim else None
        self.trunk = Trunk(in_channels, out_channels, patch, fine, coarse, blocks, embedding)
        self.head = Head(out_channels, patch, coarse, head, head_blocks, embedding)

    def forward(self, x: Tensor, noise_labels: Tensor, class_labels: Tensor | None = None) -> Tensor:
        """Network output for one class per row.

        Args:
            x: (B, C, H, W). noise_labels: (B,). class_labels: one-hot (B, K); zeros or None mean unconditional.
        Returns: (B, C, H, W).
        """
        if class_labels is None:
            class_labels = x.new_zeros(x.shape[0], self.label_dim)
        return self.for_classes(x, noise_labels, class_labels[:, None])[:, 0]

    def for_classes(self, x: Tensor, noise_labels: Tensor, class_labels: Tensor) -> Tensor:
        """Network outputs for ``m`` classes per row: ``class_labels`` one-hot (B, m, K) gives (B, m, C, H, W)."""
        b, m, _ = class_labels.shape
        noise = self.noise_embedding(noise_labels)
        embedding = noise.repeat_interleave(m, dim=0)
        if self.class_embedding is not None:
            embedding = embedding + self.class_embedding(class_labels.reshape(b * m, -1))
        if self.class_in_trunk:
            x, trunk_embedding = x.repeat_interleave(m, dim=0), embedding
        else:
            trunk_embedding = noise
        coarse, detail = self.trunk(x, F.silu(trunk_embedding))
        heads = self.head(coarse, F.silu(embedding))
        return heads.reshape(b, m, *heads.shape[1:]) + detail.reshape(b, -1, *detail.shape[1:])


def _zeroed(layer: nn.Conv2d) -> nn.Conv2d:
    """Start a residual branch at zero, so that the untrained network is the identity of its skip connection."""
    nn.init.zeros_(layer.weight)
    if layer.bias is not None:
        nn.init.zeros_(layer.bias)
    return layer
