"""The residual network with 18 layers, as it is used on 32×32 images."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional as F

WIDTHS = (64, 128, 256, 512)


class ResNet18(nn.Module):
    """ResNet-18 (He et al. 2016, arXiv 1512.03385) in the CIFAR style: a 3×3 stem without pooling. Images in [0, 1] to logits.

    Parameters are named as the CIFAR literature names them (``layer2.0.shortcut.0.weight``, ``linear.bias``), so that published
    state dicts load. The input is not normalised.

    Args: in_channels: image channels. num_classes: K.
    """

    is_network = True

    def __init__(self, in_channels: int = 3, num_classes: int = 10) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(in_channels, WIDTHS[0], 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(WIDTHS[0])
        self.layer1 = nn.Sequential(_BasicBlock(WIDTHS[0], WIDTHS[0], 1), _BasicBlock(WIDTHS[0], WIDTHS[0], 1))
        self.layer2 = nn.Sequential(_BasicBlock(WIDTHS[0], WIDTHS[1], 2), _BasicBlock(WIDTHS[1], WIDTHS[1], 1))
        self.layer3 = nn.Sequential(_BasicBlock(WIDTHS[1], WIDTHS[2], 2), _BasicBlock(WIDTHS[2], WIDTHS[2], 1))
        self.layer4 = nn.Sequential(_BasicBlock(WIDTHS[2], WIDTHS[3], 2), _BasicBlock(WIDTHS[3], WIDTHS[3], 1))
        self.linear = nn.Linear(WIDTHS[3], num_classes)

    def forward(self, x: Tensor) -> Tensor:
        h = F.relu(self.bn1(self.conv1(x)))
        h = self.layer4(self.layer3(self.layer2(self.layer1(h))))
        return self.linear(h.mean(dim=(2, 3)))


class _BasicBlock(nn.Module):
    def __init__(self, in_channels: int, channels: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(in_channels, channels, 3, stride=stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(channels)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(channels)
        projected = stride != 1 or in_channels != channels
        self.shortcut = nn.Sequential(
            *([nn.Conv2d(in_channels, channels, 1, stride=stride, bias=False), nn.BatchNorm2d(channels)] if projected else [])
        )

    def forward(self, x: Tensor) -> Tensor:
        h = F.relu(self.bn1(self.conv1(x)))
        return F.relu(self.bn2(self.conv2(h)) + self.shortcut(x))
