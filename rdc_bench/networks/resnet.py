"""A small residual network for baselines of about the size of the denoiser's trunk."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class SmallResNet(nn.Module):
    """Pre-activation ResNet (He et al. 2016, arXiv 1603.05027) at two resolutions. Images in [0, 1] to logits (B, K).

    Args:
        in_channels: image channels. num_classes: K.
        widths: channels at half and at a quarter of the image's resolution; blocks: residual blocks at each.
        mean, std: the training images' statistics per channel, which normalise the input.
    """

    is_network = True
    mean: Tensor
    std: Tensor

    def __init__(
        self,
        in_channels: int,
        num_classes: int,
        *,
        widths: tuple[int, int] = (32, 96),
        blocks: tuple[int, int] = (1, 2),
        mean: tuple[float, ...] = (0.5,),
        std: tuple[float, ...] = (0.5,),
    ) -> None:
        super().__init__()
        self.register_buffer("mean", torch.tensor(mean)[:, None, None], persistent=False)
        self.register_buffer("std", torch.tensor(std)[:, None, None], persistent=False)
        layers: list[nn.Module] = []
        previous = in_channels
        for width, count in zip(widths, blocks, strict=True):
            layers.append(nn.Conv2d(previous, width, 3, stride=2, padding=1))
            layers += [_PreActivationBlock(width) for _ in range(count)]
            previous = width
        self.features = nn.Sequential(*layers)
        self.norm = nn.BatchNorm2d(previous)
        self.classifier = nn.Linear(previous, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        h = self.features((x - self.mean) / self.std)
        return self.classifier(F.relu(self.norm(h)).mean(dim=(2, 3)))


class _PreActivationBlock(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.norm1 = nn.BatchNorm2d(channels)
        self.conv1 = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.norm2 = nn.BatchNorm2d(channels)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        h = self.conv1(F.relu(self.norm1(x)))
        return x + self.conv2(F.relu(self.norm2(h)))
