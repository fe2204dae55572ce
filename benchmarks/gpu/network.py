"""A residual network of nine layers for Fashion-MNIST, with the augmentation inside it: all of it runs on the device.

The network is the one that David Page trained on CIFAR-10 in seconds ("How to train your ResNet", Myrtle.ai, 2018),
for one channel; the width is free.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class Augment(nn.Module):
    """Flip, shift and cut a patch out of each image, drawn anew in train mode; nothing in eval mode.

    Args:
        shift: most pixels to shift by in either direction; the margin is black.
        patch: side of the square that is set to the mean grey; 0: none.
    """

    def __init__(self, *, shift: int = 2, patch: int = 8) -> None:
        super().__init__()
        self.shift = shift
        self.patch = patch

    def forward(self, images: Tensor) -> Tensor:
        """Return the images of shape [N, 1, height, width], changed."""
        if not self.training:
            return images
        num, _, height, width = images.shape
        device = images.device
        shift = self.shift
        padded = F.pad(images, (shift,) * 4, value=-0.8102)  # black, standardised
        rows = torch.arange(height, device=device) + torch.randint(2 * shift + 1, (num, 1), device=device)
        columns = torch.arange(width, device=device).expand(num, width)
        columns = torch.where(torch.rand(num, 1, device=device) < 0.5, columns, width - 1 - columns)
        columns = columns + torch.randint(2 * shift + 1, (num, 1), device=device)
        index = torch.arange(num, device=device)[:, None, None]
        moved = padded[index, 0, rows[:, :, None], columns[:, None, :]]
        if not self.patch:
            return moved[:, None]
        top, left = (torch.randint(size - self.patch + 1, (num, 1), device=device) for size in (height, width))
        in_rows = (torch.arange(height, device=device) - top) // self.patch == 0
        in_columns = (torch.arange(width, device=device) - left) // self.patch == 0
        return torch.where(in_rows[:, :, None] & in_columns[:, None, :], 0.0, moved)[:, None]


class Residual(nn.Module):
    """Return the input plus what two convolutions make of it.

    Args:
        width: channels.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.body = nn.Sequential(*convolution(width, width), *convolution(width, width))

    def forward(self, inputs: Tensor) -> Tensor:
        """Return the sum."""
        return inputs + self.body(inputs)


class Scale(nn.Module):
    """Multiply by a fixed number.

    Args:
        factor: the number.
    """

    def __init__(self, factor: float) -> None:
        super().__init__()
        self.factor = factor

    def forward(self, inputs: Tensor) -> Tensor:
        """Return the product."""
        return inputs * self.factor


def convolution(num_inputs: int, num_outputs: int) -> list[nn.Module]:
    """Return a convolution with batch norm and its rectifier."""
    return [nn.Conv2d(num_inputs, num_outputs, 3, padding=1, bias=False), nn.BatchNorm2d(num_outputs), nn.ReLU()]


def nine_layers(width: int, *, augments: bool = True, patch: int = 8) -> nn.Sequential:
    """Return the network, its convolutions in channels last.

    Args:
        width: channels of the first convolution; the last have eight times as many.
        augments: put the augmentation before it.
        patch: of the augmentation.
    """
    network = nn.Sequential(
        *([Augment(patch=patch)] if augments else []),
        *convolution(1, width),
        *convolution(width, 2 * width), nn.MaxPool2d(2), Residual(2 * width),
        *convolution(2 * width, 4 * width), nn.MaxPool2d(2),
        *convolution(4 * width, 8 * width), nn.MaxPool2d(2), Residual(8 * width),
        nn.AdaptiveMaxPool2d(1), nn.Flatten(), nn.Linear(8 * width, 10, bias=False), Scale(0.125),
    )  # fmt: skip
    return network.to(memory_format=torch.channels_last)  # type: ignore[call-overload,no-any-return]
