"""Fashion-MNIST from its four IDX files, and a small residual network for it.

70,000 grey images of clothes, 28 x 28 pixels, ten classes, 10,000 of them for testing (Xiao, Rasul and Vollgraf,
arXiv:1708.07747). Nothing is downloaded.
"""

import gzip
import os
from functools import cache
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from cyclewise.errors import ArgumentError

VARIABLE = "CYCLEWISE_DATA"
_FOLDER = "/usr/share/datasets/fashion-mnist"
_FILES = (
    "train-images-idx3-ubyte", "train-labels-idx1-ubyte", "t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte",
)  # fmt: skip
# Mean and standard deviation of the training pixels, as fractions of white.
_MEAN, _SPREAD = 0.2860, 0.3530


class Images(NamedTuple):
    """Images of shape [N, 1, height, width], standardised, and their classes, shape [N]."""

    train_inputs: Tensor
    train_targets: Tensor
    test_inputs: Tensor
    test_targets: Tensor


def fashion_folder(folder: str | os.PathLike[str] | None = None) -> Path:
    """Return the folder of the IDX files: the one given, else ``$CYCLEWISE_DATA``, else where Debian puts them.

    Raises:
        ArgumentError: a file is not there; the message says where to get it.
    """
    path = Path(folder or os.environ.get(VARIABLE) or _FOLDER)
    missing = [name for name in _FILES if _find(path, name) is None]
    if missing:
        raise ArgumentError(
            f"data must be a folder with the IDX files of Fashion-MNIST, got {str(path)!r} without {missing[0]}; "
            "run `apt-get install dataset-fashion-mnist`, or take the four files from "
            f"github.com/zalandoresearch/fashion-mnist and name their folder with --data or ${VARIABLE}"
        )
    return path


@cache
def fashion_mnist(folder: str | os.PathLike[str] | None = None) -> Images:
    """Return all images, read once per process.

    Raises:
        ArgumentError: a file is not there, or is none in the IDX format.
    """
    path = fashion_folder(folder)
    train_inputs, train_targets, test_inputs, test_targets = (_read_idx(_find(path, name) or path) for name in _FILES)
    return Images(_standardised(train_inputs), train_targets.long(), _standardised(test_inputs), test_targets.long())


class Block(nn.Module):
    """Two convolutions and a way around them: ``relu(shortcut(x) + bn(conv(relu(bn(conv(x))))))``.

    Args:
        num_inputs: channels in.
        num_outputs: channels out.
        stride: of the first convolution and the shortcut.

    Source: He, Zhang, Ren and Sun, arXiv:1512.03385, section 3.
    """

    def __init__(self, num_inputs: int, num_outputs: int, stride: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(num_inputs, num_outputs, 3, stride, 1, bias=False),
            nn.BatchNorm2d(num_outputs),
            nn.ReLU(),
            nn.Conv2d(num_outputs, num_outputs, 3, 1, 1, bias=False),
            nn.BatchNorm2d(num_outputs),
        )
        self.shortcut: nn.Module = nn.Identity()
        if stride > 1 or num_inputs != num_outputs:
            self.shortcut = nn.Sequential(
                nn.Conv2d(num_inputs, num_outputs, 1, stride, bias=False), nn.BatchNorm2d(num_outputs)
            )

    def forward(self, inputs: Tensor) -> Tensor:
        """Return the sum of both ways, rectified."""
        return F.relu(self.shortcut(inputs) + self.body(inputs))


def residual_network(widths: tuple[int, ...], *, stem_stride: int = 1, num_classes: int = 10) -> nn.Sequential:
    """Return a residual network for grey images, one block per width; each but the first halves the image.

    Args:
        widths: channels of each block.
        stem_stride: stride of the convolution before the blocks.
        num_classes: outputs.

    >>> residual_network((8, 16))(torch.zeros(2, 1, 8, 8)).shape
    torch.Size([2, 10])
    """
    blocks = [
        Block(before, width, 1 if i == 0 else 2)
        for i, (before, width) in enumerate(zip((widths[0], *widths), widths, strict=False))
    ]
    network = nn.Sequential(
        nn.Conv2d(1, widths[0], 3, stem_stride, 1, bias=False),
        nn.BatchNorm2d(widths[0]),
        nn.ReLU(),
        *blocks,
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(widths[-1], num_classes),
    )
    # Channels last: a third less time on a CPU, and what tensor cores want.
    return network.to(memory_format=torch.channels_last)  # type: ignore[call-overload,no-any-return]


def _find(folder: Path, name: str) -> Path | None:
    return next((path for path in (folder / name, folder / f"{name}.gz") if path.is_file()), None)


def _read_idx(path: Path) -> Tensor:
    data = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
    # Two zeros, the type (8: unsigned bytes), the number of dimensions, and each of them as four bytes, big-endian.
    num_dimensions = data[3] if len(data) >= 4 and data[:3] == b"\0\0\x08" else 0
    shape = np.frombuffer(data, ">u4", num_dimensions, 4).tolist() if len(data) >= 4 + 4 * num_dimensions else []
    content = data[4 + 4 * num_dimensions :]
    if not shape or len(content) != np.prod(shape):
        raise ArgumentError(
            f"data must hold whole IDX files of unsigned bytes, got {str(path)!r} of {len(data)} bytes; fetch it again"
        )
    return torch.from_numpy(np.frombuffer(content, np.uint8).reshape(shape).copy())


def _standardised(pixels: Tensor) -> Tensor:
    return pixels.unsqueeze(1).float().div_(255.0).sub_(_MEAN).div_(_SPREAD)
