"""Development tasks of the kinds on which a measurement from outside found the rule weak.

Many samples that are learned by heart all the same, a rate that the optimizer lowers by itself, models that a rate
destroys into a quiet plateau, small batches with heavy tails, plateaus at the start, few samples, sweeps that fall to
their very end, outputs whose size does not count.
"""

from functools import partial

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.optim import SGD, Adagrad, Adam, AdamW, RAdam

from benchmarks.lr_regret import data, made, models
from benchmarks.lr_regret.splits import classes, few, flat, shifted, times
from benchmarks.lr_regret.task import Task, cross_entropy, heavy, mse, nesterov, per_symbol, plain, pretrained

clicked = functional.binary_cross_entropy_with_logits


def summed(outputs: Tensor, targets: Tensor) -> Tensor:
    """Squared error summed over the pixels of each image, as variational autoencoders have it."""
    return (outputs - targets).square().flatten(1).sum(1).mean()


def mixture(outputs: Tensor, targets: Tensor) -> Tensor:
    """Negative log likelihood of a mixture of Gaussians."""
    shares, means, log_scales = outputs.chunk(3, 1)
    log_scales = log_scales.clamp(-6.0, 4.0)
    each = functional.log_softmax(shares, 1) - log_scales - 0.5 * ((targets - means) * torch.exp(-log_scales)) ** 2
    return -torch.logsumexp(each, 1).mean()


def contrastive(outputs: Tensor, targets: Tensor) -> Tensor:
    """Supervised contrastive loss (arXiv:2004.11362, eq. 2) of the directions of the outputs, at temperature 0.2."""
    directions = functional.normalize(outputs, dim=1)
    own = torch.eye(len(targets), dtype=torch.bool)
    likeness = (directions @ directions.T / 0.2).masked_fill(own, -1e9)
    same = (targets[:, None] == targets) & ~own
    return -((likeness.log_softmax(1) * same).sum(1) / same.sum(1).clamp(min=1)).mean()


_inspect = partial(data.text, "inspect")


def _language() -> nn.Module:
    return models.Transformer(_inspect()[1], 32, causal=True, norm_first=True)


HARD: tuple[Task, ...] = (
    Task("bag-lines-adam", partial(models.Bag, 600, 16, 24, 4), Adam, cross_entropy,
         partial(made.lines, 2400, seed=101), 32, 400, "learned by heart"),
    Task("bag-lines-radam", partial(models.Bag, 900, 24, 4), RAdam, cross_entropy,
         partial(made.lines, 1600, num_words=900, seed=102), 50, 300, "learned by heart"),
    Task("tables-clicks-nesterov", partial(models.Tables, (120, 100), 8, 32, 1), nesterov, clicked,
         partial(made.clicks, 120, 100, 3000, seed=103), 64, 500, "learned by heart"),
    Task("tables-clicks-adamw", partial(models.Tables, (200, 60), 6, 24, 12, 1), AdamW, clicked,
         partial(made.clicks, 200, 60, 2000, seed=104), 32, 250, "learned by heart"),
    Task("mlp-outliers-wide-adam", partial(models.mlp, 16, 128, 64, 1), Adam, functional.huber_loss,
         partial(made.outliers, 16, 1000, seed=105), 32, 500, "learned by heart"),
    Task("factors-ratings-adagrad", partial(models.Factors, 150, 100, 5), Adagrad, mse,
         partial(data.ratings, 150, 100, seed=106), 128, 400, "Adagrad"),
    Task("mlp-fashion-adagrad", partial(models.mlp, 196, 96, 10), Adagrad, cross_entropy, data.fashion, 64, 300,
         "Adagrad"),
    Task("cnn-digits-adagrad", partial(models.cnn, 8, (12, 24), norm=False), Adagrad, cross_entropy, data.digits, 32,
         250, "Adagrad"),
    Task("mlp-made-adagrad", partial(models.mlp, 12, 48, 1), Adagrad, mse,
         partial(data.regression, 12, noise=0.1, seed=107), 32, 500, "Adagrad"),
    Task("denoise-digits-summed-sgdm", partial(models.Convolutional, 8, 6), heavy, summed,
         lambda: made.noisy_images(data.digits(), noise=0.2, factor=8.0, seed=108), 16, 250, "summed loss"),
    Task("denoise-digits-summed-sgd", partial(models.Convolutional, 12), plain, summed,
         lambda: made.noisy_images(data.digits(), noise=0.3, factor=4.0, seed=109), 32, 300, "summed loss"),
    Task("mlp-made-rawer-sgd", partial(models.mlp, 10, 48, 48, 1), plain, mse,
         lambda: times(data.regression(10, noise=0.2, seed=110), 200.0), 25, 500, "raw targets"),
    Task("mlp-made-rawer-nesterov", partial(models.mlp, 10, 32, 32, 1), nesterov, mse,
         lambda: times(data.regression(10, noise=0.2, seed=111), 80.0), 32, 300, "raw targets"),
    Task("mlp-outliers-adam", partial(models.mlp, 12, 48, 24, 1), Adam, functional.huber_loss,
         partial(made.outliers, 12, 1200, seed=112), 8, 500, "heavy tails, small batches"),
    Task("mlp-outliers-sgdm", partial(models.mlp, 8, 32, 1), heavy, functional.l1_loss,
         partial(made.outliers, 8, 1600, seed=113), 8, 400, "heavy tails, small batches"),
    Task("tanh8-digits-sgdm-default", partial(models.mlp, 64, *[48] * 8, 10, activation=nn.Tanh), heavy, cross_entropy,
         data.digits, 32, 400, "plateau"),
    Task("tanh5-fashion-adam-default", partial(models.mlp, 196, *[40] * 5, 10, activation=nn.Tanh), Adam, cross_entropy,
         data.fashion, 32, 300, "plateau"),
    Task("waves-series-sgdm", partial(models.waves, 12, 4), heavy, cross_entropy, partial(made.series, 520, seed=114),
         10, 300, "plateau, few samples"),
    Task("waves-series-sgd", partial(models.waves, 16, 4), plain, cross_entropy, partial(made.series, 1600, seed=115),
         16, 500, "plateau"),
    Task("mlp-spirals-sgdm", partial(models.mlp, 2, 32, 32, 3), heavy, cross_entropy,
         partial(made.spirals, 320, 3, noise=0.18, seed=116), 24, 500, "few samples"),
    Task("mlp-spirals-adam", partial(models.mlp, 2, 48, 2, activation=nn.Tanh), Adam, cross_entropy,
         partial(made.spirals, 200, 2, noise=0.25, seed=117), 20, 400, "few samples"),
    Task("mixture-two-valued-adam", partial(models.mlp, 1, 32, 32, 15, activation=nn.Tanh), Adam, mixture,
         partial(made.two_valued, 400, seed=118), 30, 500, "few samples"),
    Task("mlp-tags-nesterov", partial(models.mlp, 30, 64, 10), nesterov, clicked,
         partial(made.tags, 30, 10, 640, seed=119), 16, 300, "few samples"),
    Task("mlp-tags-sgd", partial(models.mlp, 20, 48, 6), plain, clicked,
         partial(made.tags, 20, 6, 360, seed=120), 16, 200, "few samples"),
    Task("gru-fashion-few-nesterov", partial(models.Recurrent, "GRU", 14, 32, 10), nesterov, cross_entropy,
         lambda: few(data.fashion(), 300), 30, 200, "few samples"),
    Task("finetune-fashion-few-sgdm",
         pretrained(partial(models.cnn, 14, (8, 16), norm=False), lambda: classes(data.fashion(), range(5)),
                    num_steps=250, fresh_head=True),
         heavy, cross_entropy, lambda: few(classes(data.fashion(), range(5, 10)), 250), 16, 150,
         "fine-tuning, few samples"),
    Task("finetune-digits-few-adam",
         pretrained(partial(models.mlp, 64, 64, 10), data.digits, num_steps=200),
         Adam, cross_entropy, lambda: few(shifted(data.digits(), 1), 350), 16, 200, "fine-tuning, few samples"),
    Task("transformer-inspect-few-adamw", _language, AdamW, per_symbol, lambda: few(_inspect()[0], 400), 16, 200,
         "few samples"),
    Task("patches-fashion-adamw", partial(models.Patches, 14, 2), AdamW, cross_entropy,
         lambda: data.noisy_labels(data.fashion(), 0.2, num_classes=10, seed=121), 32, 150, "transformer, post-norm"),
    Task("patches-digits-adam", partial(models.Patches, 8, 2, num_layers=3), Adam, cross_entropy, data.digits, 64, 200,
         "transformer, post-norm"),
    Task("contrastive-fashion-sgdm", partial(models.mlp, 196, 64, 16), heavy, contrastive, data.fashion, 96, 250,
         "size of outputs does not count"),
    Task("contrastive-digits-sgd", partial(models.mlp, 64, 48, 8), SGD, contrastive, lambda: flat(data.digits()), 64,
         300, "size of outputs does not count"),
)  # fmt: skip
