"""DenseNet-121 (Huang et al. 2017), which transformers does not have."""

from __future__ import annotations

from typing import Any

_GROWTH = 32
_BLOCKS = (6, 12, 24, 16)


def densenet(labels: int) -> Any:
    """The network with the weights that PyTorch gives new layers."""
    import torch
    from torch import nn

    def convolution(inputs: int, outputs: int, size: int) -> list[nn.Module]:
        return [
            nn.BatchNorm2d(inputs),
            nn.ReLU(),
            nn.Conv2d(inputs, outputs, size, padding=size // 2, bias=False),
        ]

    class DenseLayer(nn.Module):
        def __init__(self, layers: list[nn.Module]) -> None:
            super().__init__()
            self.layers = nn.Sequential(*layers)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return torch.cat([x, self.layers(x)], 1)

    layers: list[nn.Module] = [
        nn.Conv2d(3, 64, 7, stride=2, padding=3, bias=False),
        nn.BatchNorm2d(64),
        nn.ReLU(),
        nn.MaxPool2d(3, 2, 1),
    ]
    channels = 64
    for number, depth in enumerate(_BLOCKS):
        if number > 0:
            layers += [*convolution(channels, channels // 2, 1), nn.AvgPool2d(2)]
            channels //= 2
        for _ in range(depth):
            bottleneck = convolution(channels, 4 * _GROWTH, 1)
            layers.append(DenseLayer([*bottleneck, *convolution(4 * _GROWTH, _GROWTH, 3)]))
            channels += _GROWTH
    head = [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(channels, labels)]
    return nn.Sequential(*layers, nn.BatchNorm2d(channels), nn.ReLU(), *head)
