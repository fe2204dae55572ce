"""The tasks: DEVELOPMENT to build the suggestion rule on, TEST to judge it by.

Nobody looks at the TEST tasks while tuning: `make bench-lr-test` appends every look to ``looks.jsonl``. The two lists
share kinds of model but no pair of model and data set.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.optim import SGD, Adam, AdamW, Optimizer, RMSprop

from benchmarks.lr_regret import data, models
from benchmarks.lr_regret.splits import classes, few, images_only, raw, shifted, times
from cyclewise.state import preserve, seed_everything

Loss = Callable[..., Tensor]


@dataclass(frozen=True)
class Task:
    """One thing to train: everything but the learning rate.

    Attributes:
        name: model-data-optimizer.
        build: makes the model from the global random numbers.
        optimizer: makes the optimizer over parameters; its rate is replaced.
        loss_fn: (outputs, targets) -> scalar.
        split: training and validation tensors.
        batch_size: samples per step.
        total_steps: length of the run.
        kind: what makes the task differ from the others, for the table.
    """

    name: str
    build: Callable[[], nn.Module]
    optimizer: Callable[..., Optimizer]
    loss_fn: Loss
    split: Callable[[], data.Split]
    batch_size: int
    total_steps: int
    kind: str = field(default="")


class Shuffled:
    """Batches of tensors in a new order at each pass, by its own generator; the incomplete last batch is dropped."""

    def __init__(self, inputs: Tensor, targets: Tensor, batch_size: int, seed: int) -> None:
        self.arrays = inputs, targets
        self.batch_size = batch_size
        self.generator = torch.Generator().manual_seed(seed)

    def __len__(self) -> int:
        return len(self.arrays[1]) // self.batch_size

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        order = torch.randperm(len(self.arrays[1]), generator=self.generator)
        for indices in order.split(self.batch_size)[: len(self)]:
            yield self.arrays[0][indices], self.arrays[1][indices]


@dataclass
class Trial:
    """A task drawn with one seed, ready to be trained."""

    model: nn.Module
    optimizer: Optimizer
    loss_fn: Loss
    train_loader: Shuffled
    valid: tuple[Tensor, Tensor]


def draw(task: Task, seed: int) -> Trial:
    """Return the task with its weights and the order of its batches drawn from `seed`."""
    train_inputs, train_targets, valid_inputs, valid_targets = task.split()
    with preserve():
        seed_everything(1000 + seed)
        model = task.build()
    optimizer = task.optimizer(model.parameters(), lr=1e-3)
    loader = Shuffled(train_inputs, train_targets, task.batch_size, seed)
    return Trial(model, optimizer, task.loss_fn, loader, (valid_inputs, valid_targets))


def gaussian_likelihood(outputs: Tensor, targets: Tensor) -> Tensor:
    """Negative log likelihood of a Gaussian whose mean and log scale the model gives: goes below zero."""
    mean, log_scale = outputs[:, :1], outputs[:, 1:].clamp(-8.0, 8.0)
    return (log_scale + 0.5 * ((targets - mean) * torch.exp(-log_scale)) ** 2).mean()


def per_symbol(outputs: Tensor, targets: Tensor) -> Tensor:
    """Cross-entropy over all positions of all sequences."""
    return functional.cross_entropy(outputs.flatten(0, 1), targets.flatten())


def scaled(loss_fn: Loss, factor: float) -> Loss:
    """Return the loss times a constant, as a sum over samples or an odd unit would make it."""
    return lambda outputs, targets: factor * loss_fn(outputs, targets)


def reconstruction(outputs: Tensor, targets: Tensor) -> Tensor:
    """Squared error against the flattened target."""
    return functional.mse_loss(outputs, targets.flatten(1))


def column(outputs: Tensor, targets: Tensor) -> Tensor:
    """Squared error of a column of outputs against a vector of targets."""
    return functional.mse_loss(outputs.squeeze(1), targets)


def pretrained(
    build: Callable[[], nn.Module], split: Callable[[], data.Split], *, num_steps: int, lr: float = 2e-3,
    fresh_head: bool = False,
) -> Callable[[], nn.Module]:  # fmt: skip
    """Return a builder of models that were trained on other data, once, with fixed seed; a head may be drawn anew."""
    kept: dict[str, Any] = {}

    def train() -> dict[str, Any]:
        with preserve():
            seed_everything(77)
            model = build()
            inputs, targets, _, _ = split()
            loader = Shuffled(inputs, targets, 64, 77)
            optimizer = Adam(model.parameters(), lr=lr)
            done = 0
            while done < num_steps:
                for batch_inputs, batch_targets in loader:
                    optimizer.zero_grad()
                    functional.cross_entropy(model(batch_inputs), batch_targets).backward()
                    optimizer.step()
                    done += 1
            return model.state_dict()

    def make() -> nn.Module:
        if not kept:
            kept.update(train())
        model = build()
        fresh = [tensor.clone() for tensor in list(model.parameters())[-2:]]
        model.load_state_dict(kept)
        if fresh_head:
            with torch.no_grad():
                for tensor, value in zip(list(model.parameters())[-2:], fresh, strict=True):
                    tensor.copy_(value)
        return model

    return make


heavy = partial(SGD, momentum=0.9)
nesterov = partial(SGD, momentum=0.9, nesterov=True, weight_decay=5e-4)
plain = SGD
cross_entropy = functional.cross_entropy
mse = functional.mse_loss

_argparse, _decimal, _inspect = (partial(data.text, name) for name in ("argparse", "decimal", "inspect"))

DEVELOPMENT: tuple[Task, ...] = (
    Task("cnn-digits-sgdm", partial(models.cnn, 8, (16, 32), norm=False), partial(heavy, weight_decay=5e-4),
         cross_entropy, data.digits, 32, 300, "plain CNN"),
    Task("bncnn-fashion-adam", partial(models.cnn, 14, (12, 24), norm=True), Adam, cross_entropy, data.fashion, 64, 200,
         "normalised CNN"),
    Task("resnet-fashion-nesterov", partial(models.resnet, 10, 2), nesterov, cross_entropy, data.fashion, 64, 200,
         "residual net"),
    Task("mlp-cancer-sgd", partial(models.mlp, 30, 32, 2), plain, cross_entropy, partial(data.table, "breast_cancer"),
         16, 200, "small table"),
    Task("mlp-wine-raw-adam", partial(models.mlp, 13, 32, 3), Adam, cross_entropy,
         partial(data.table, "wine", standardise=False), 16, 300, "raw features"),
    Task("mlp-diabetes-raw-adam", partial(models.mlp, 10, 64, 1), Adam, column, partial(data.table, "diabetes"), 32,
         400, "raw targets"),
    Task("mlp-made-raw-sgdm", partial(models.mlp, 12, 64, 1), heavy, mse,
         lambda: times(data.regression(12, noise=0.2, seed=1), 300.0), 32, 400, "raw targets"),
    Task("mlp-made-small-sgd", partial(models.mlp, 12, 48, 1), plain, scaled(mse, 1e-3),
         partial(data.regression, 12, noise=0.1, seed=2), 32, 400, "loss of 1e-3"),
    Task("tanh10-digits-sgd", partial(models.deep, 64, *[48] * 10, 10, activation=nn.Tanh, nonlinearity="tanh"), plain,
         cross_entropy, data.digits, 64, 300, "deep tanh"),
    Task("relu8-fashion-rmsprop", partial(models.deep, 196, *[64] * 8, 10, activation=nn.ReLU, nonlinearity="relu"),
         RMSprop, cross_entropy, data.fashion, 64, 300, "deep ReLU"),
    Task("transformer-argparse-adamw",
         lambda: models.Transformer(_argparse()[1], 32, causal=True, norm_first=True), AdamW, per_symbol,
         lambda: _argparse()[0], 16, 400, "transformer"),
    Task("transformer-reversal-adam", partial(models.Transformer, 12, 10, causal=False, norm_first=False), Adam,
         per_symbol, partial(data.reversal, 10, 12, seed=3), 32, 300, "transformer, post-norm"),
    Task("lstm-adding-adam", partial(models.Recurrent, "LSTM", 2, 32, 1), Adam, mse,
         partial(data.adding, 12, seed=4), 32, 500, "plateau"),
    Task("lstm-argparse-sgdm", lambda: models.Recurrent("LSTM", 24, 48, _argparse()[1], alphabet=_argparse()[1]),
         heavy, per_symbol, lambda: _argparse()[0], 16, 300, "LSTM"),
    Task("gru-digits-adamw", partial(models.Recurrent, "GRU", 8, 32, 10), partial(AdamW, weight_decay=0.05),
         cross_entropy, data.digits, 64, 200, "GRU"),
    Task("autoencoder-digits-rmsprop", partial(models.Autoencoder, 64, 48, 12), RMSprop, reconstruction,
         lambda: images_only(flat(data.digits())), 32, 400, "autoencoder"),
    Task("factors-ratings-adam", partial(models.Factors, 120, 80, 6), Adam, mse,
         partial(data.ratings, 120, 80, seed=5), 64, 400, "recommender"),
    Task("factors-ratings-sgdm", partial(models.Factors, 60, 60, 6), heavy, mse,
         partial(data.ratings, 60, 60, seed=6), 32, 600, "recommender"),
    Task("noisy-fashion-sgdm", partial(models.mlp, 196, 64, 10), heavy, cross_entropy,
         lambda: data.noisy_labels(data.fashion(), 0.4, num_classes=10, seed=7), 32, 300, "noisy labels"),
    Task("finetune-digits-sgdm",
         pretrained(partial(models.cnn, 8, (16, 32), norm=False), lambda: classes(data.digits(), range(5)),
                    num_steps=200, fresh_head=True),
         heavy, cross_entropy, lambda: classes(data.digits(), range(5, 10)), 32, 120, "fine-tuning, new head"),
    Task("finetune-fashion-adamw",
         pretrained(partial(models.cnn, 14, (12, 24), norm=True), data.fashion, num_steps=200),
         AdamW, cross_entropy, lambda: shifted(data.fashion(), 1), 64, 150, "fine-tuning, near its optimum"),
    Task("likelihood-made-adam", partial(models.mlp, 8, 48, 2, activation=nn.SiLU), Adam, gaussian_likelihood,
         partial(data.regression, 8, noise=0.05, seed=8), 32, 400, "loss below zero"),
    Task("cnn-digits-adam", partial(models.cnn, 8, (16, 32), norm=False), Adam, cross_entropy, data.digits, 16, 250,
         "plain CNN"),
    Task("cnn-fashion-sgd", partial(models.cnn, 14, (12, 24), norm=False), plain, cross_entropy, data.fashion, 32, 300,
         "plain CNN"),
    Task("bncnn-fashion-sgdm", partial(models.cnn, 14, (12, 24), norm=True), heavy, cross_entropy, data.fashion, 128,
         150, "normalised CNN"),
    Task("resnet-fashion-rmsprop", partial(models.resnet, 10, 2), RMSprop, cross_entropy, data.fashion, 32, 150,
         "residual net"),
    Task("mlp-digits-sgdm", partial(models.mlp, 64, 64, 10), heavy, cross_entropy, data.digits, 64, 600, "plain MLP"),
    Task("mlp-fashion-adamw", partial(models.mlp, 196, 128, 64, 10), AdamW, cross_entropy, data.fashion, 64, 400,
         "plain MLP"),
    Task("linear-cancer-adam", partial(models.mlp, 30, 2), Adam, cross_entropy, partial(data.table, "breast_cancer"),
         16, 200, "linear"),
    Task("linear-made-sgdm", partial(models.mlp, 20, 1), heavy, mse,
         partial(data.regression, 20, noise=0.3, seed=41, condition=1000.0), 32, 400, "linear, ill-conditioned"),
    Task("mlp-diabetes-raw-sgdm", partial(models.mlp, 10, 32, 1), heavy, column, partial(data.table, "diabetes"), 32,
         300, "raw targets"),
    Task("mlp-made-raw-rmsprop", partial(models.mlp, 12, 64, 1), RMSprop, mse,
         lambda: times(data.regression(12, noise=0.2, seed=42), 30.0), 32, 400, "raw targets"),
    Task("mlp-made-large-adam", partial(models.mlp, 12, 64, 1, activation=nn.SiLU), Adam, scaled(mse, 1e5),
         partial(data.regression, 12, noise=0.2, seed=43, condition=30.0), 32, 500, "loss of 1e5"),
    Task("tanh10-digits-adam", partial(models.deep, 64, *[48] * 10, 10, activation=nn.Tanh, nonlinearity="tanh"), Adam,
         cross_entropy, data.digits, 64, 250, "deep tanh"),
    Task("tanh6-fashion-sgdm-small-gain", partial(models.deep, 196, *[48] * 6, 10, activation=nn.Tanh,
         nonlinearity="linear"), heavy, cross_entropy, data.fashion, 64, 400, "deep tanh, small gain"),
    Task("relu8-fashion-sgdm", partial(models.deep, 196, *[64] * 8, 10, activation=nn.ReLU, nonlinearity="relu"),
         heavy, cross_entropy, data.fashion, 64, 300, "deep ReLU"),
    Task("transformer-argparse-sgdm",
         lambda: models.Transformer(_argparse()[1], 32, causal=True, norm_first=True), heavy, per_symbol,
         lambda: _argparse()[0], 16, 250, "transformer"),
    Task("transformer-reversal-adamw", partial(models.Transformer, 8, 8, causal=False, norm_first=True, dropout=0.1),
         partial(AdamW, weight_decay=0.1), per_symbol, partial(data.reversal, 8, 8, seed=44), 64, 250,
         "transformer with dropout"),
    Task("lstm-argparse-adam", lambda: models.Recurrent("LSTM", 24, 48, _argparse()[1], alphabet=_argparse()[1]),
         Adam, per_symbol, lambda: _argparse()[0], 16, 300, "LSTM"),
    Task("gru-digits-sgdm", partial(models.Recurrent, "GRU", 8, 32, 10), heavy, cross_entropy, data.digits, 32, 300,
         "GRU"),
    Task("rnn-adding-sgdm", partial(models.Recurrent, "RNN", 2, 32, 1), heavy, mse, partial(data.adding, 8, seed=45),
         32, 400, "plateau"),
    Task("autoencoder-digits-adam", partial(models.Autoencoder, 64, 32, 8), Adam, reconstruction,
         lambda: images_only(flat(data.digits())), 64, 300, "autoencoder"),
    Task("autoencoder-digits-sgdm", partial(models.Autoencoder, 64, 48, 12), heavy, reconstruction,
         lambda: images_only(flat(data.digits())), 32, 500, "autoencoder"),
    Task("factors-ratings-rmsprop", partial(models.Factors, 80, 80, 4), RMSprop, mse,
         partial(data.ratings, 80, 80, seed=46), 32, 300, "recommender"),
    Task("noisy-fashion-adam", partial(models.cnn, 14, (8, 16), norm=True), Adam, cross_entropy,
         lambda: data.noisy_labels(data.fashion(), 0.5, num_classes=10, seed=47), 32, 200, "noisy labels"),
    Task("noisy-cancer-sgd", partial(models.mlp, 30, 32, 2), plain, cross_entropy,
         lambda: data.noisy_labels(data.table("breast_cancer"), 0.4, num_classes=2, seed=48), 16, 200, "noisy labels"),
    Task("finetune-digits-adam",
         pretrained(partial(models.cnn, 8, (16, 32), norm=True), lambda: classes(data.digits(), range(6)),
                    num_steps=200, fresh_head=True),
         Adam, cross_entropy, data.digits, 32, 150, "fine-tuning, new head"),
    Task("finetune-fashion-sgdm",
         pretrained(partial(models.mlp, 196, 64, 10), data.fashion, num_steps=250),
         heavy, cross_entropy, lambda: shifted(data.fashion(), 2), 64, 200, "fine-tuning, shifted"),
    Task("likelihood-made-sgd", partial(models.mlp, 8, 48, 2, activation=nn.Tanh), plain, gaussian_likelihood,
         partial(data.regression, 8, noise=0.3, seed=49), 32, 400, "loss below zero"),
    Task("mlp-iris-sgdm", partial(models.mlp, 4, 16, 3), heavy, cross_entropy, partial(data.table, "iris"), 16, 200,
         "small table"),
    Task("mlp-clusters-sgdm", partial(models.mlp, 13, 24, 3), heavy, cross_entropy,
         partial(data.clusters, 180, 13, 3, distance=4.0, seed=51), 16, 150, "small table"),
    Task("mlp-clusters-adam", partial(models.mlp, 20, 32, 4), Adam, cross_entropy,
         partial(data.clusters, 260, 20, 4, distance=4.0, seed=52), 32, 200, "small table"),
    Task("linear-clusters-sgd", partial(models.mlp, 8, 2), plain, cross_entropy,
         partial(data.clusters, 150, 8, 2, distance=3.0, seed=53), 16, 200, "small table"),
    Task("mlp-clusters-rmsprop", partial(models.mlp, 10, 32, 16, 3), RMSprop, cross_entropy,
         partial(data.clusters, 200, 10, 3, distance=3.0, seed=54), 16, 250, "small table"),
    Task("mlp-clusters-wide-sgdm", partial(models.mlp, 40, 32, 2), heavy, cross_entropy,
         partial(data.clusters, 200, 40, 2, distance=4.0, seed=55), 32, 200, "small table"),
    Task("mlp-made-few-adamw", partial(models.mlp, 8, 32, 1), AdamW, mse,
         partial(data.regression, 8, noise=0.3, seed=56, num_samples=200), 16, 300, "small table"),
    Task("mlp-made-few-sgdm", partial(models.mlp, 6, 24, 1, activation=nn.Tanh), heavy, mse,
         partial(data.regression, 6, noise=0.3, seed=57, condition=10.0, num_samples=240), 32, 200, "small table"),
    Task("mlp-digits-few-batches-sgdm", partial(models.mlp, 64, 64, 10), heavy, cross_entropy, data.digits, 256, 150,
         "few large batches"),
    Task("mlp-fashion-few-batches-adam", partial(models.mlp, 196, 128, 64, 10), Adam, cross_entropy, data.fashion, 512,
         200, "few large batches"),
    Task("tanh6-digits-few-batches-adamw",
         partial(models.deep, 64, *[48] * 6, 10, activation=nn.Tanh, nonlinearity="tanh"), AdamW, cross_entropy,
         data.digits, 200, 150, "few large batches"),
    Task("mlp-made-few-batches-sgd", partial(models.mlp, 12, 48, 1), plain, mse,
         partial(data.regression, 12, noise=0.1, seed=58), 300, 300, "few large batches"),
    Task("linear-wine-raw-adamw", partial(models.mlp, 13, 3), AdamW, cross_entropy,
         partial(data.table, "wine", standardise=False), 32, 300, "small table, raw features"),
    Task("linear-clusters-raw-adam", partial(models.mlp, 12, 3), Adam, cross_entropy,
         lambda: raw(data.clusters(400, 12, 3, distance=4.0, seed=61)), 32, 300, "small table, raw features"),
    Task("mlp-clusters-raw-adamw", partial(models.mlp, 10, 24, 4), AdamW, cross_entropy,
         lambda: raw(data.clusters(240, 10, 4, distance=4.0, seed=62)), 16, 250, "small table, raw features"),
    Task("mlp-clusters-raw-sgdm", partial(models.mlp, 8, 32, 2, activation=nn.Tanh), heavy, cross_entropy,
         lambda: raw(data.clusters(300, 8, 2, distance=3.0, seed=63)), 32, 200, "small table, raw features"),
    Task("transformer-sorting-sgdm", partial(models.Transformer, 8, 8, causal=False, norm_first=True), heavy,
         per_symbol, partial(data.sorting, 8, 8, seed=71), 32, 400, "transformer"),
    Task("transformer-sorting-post-sgdm", partial(models.Transformer, 10, 10, causal=False, norm_first=False), heavy,
         per_symbol, partial(data.sorting, 10, 10, seed=72), 64, 250, "transformer, post-norm"),
    Task("transformer-inspect-sgdm",
         lambda: models.Transformer(_inspect()[1], 32, causal=True, norm_first=True), heavy, per_symbol,
         lambda: _inspect()[0], 32, 300, "transformer"),
    Task("finetune-digits-few-sgdm",
         pretrained(partial(models.cnn, 8, (16, 32), norm=False), lambda: classes(data.digits(), range(5)),
                    num_steps=200, fresh_head=True),
         heavy, cross_entropy, lambda: few(classes(data.digits(), range(5, 10)), 200), 16, 150,
         "fine-tuning, few samples"),
    Task("finetune-fashion-few-adamw",
         pretrained(partial(models.cnn, 14, (12, 24), norm=True), data.fashion, num_steps=200),
         AdamW, cross_entropy, lambda: few(shifted(data.fashion(), 1), 400), 32, 200, "fine-tuning, few samples"),
    Task("cnn-digits-few-adam", partial(models.cnn, 8, (16, 32), norm=True), Adam, cross_entropy,
         lambda: few(data.digits(), 300), 32, 200, "few samples"),
    Task("mlp-overlap-adam", partial(models.mlp, 12, 32, 3), Adam, cross_entropy,
         partial(data.clusters, 320, 12, 3, distance=2.5, seed=73), 16, 400, "small table, classes overlap"),
    Task("mlp-overlap-sgd", partial(models.mlp, 16, 48, 2), plain, cross_entropy,
         partial(data.clusters, 240, 16, 2, distance=2.5, seed=74), 16, 300, "small table, classes overlap"),
    Task("linear-clusters-rawer-adamw", partial(models.mlp, 30, 2), AdamW, cross_entropy,
         lambda: raw(data.clusters(420, 30, 2, distance=4.0, seed=75), (-2, 3)), 32, 300, "small table, raw features"),
    Task("mlp-clusters-rawer-adam", partial(models.mlp, 20, 32, 3), Adam, cross_entropy,
         lambda: raw(data.clusters(380, 20, 3, distance=4.0, seed=76), (-2, 3)), 32, 250, "small table, raw features"),
    Task("linear-clusters-rawer-few-adam", partial(models.mlp, 12, 2), Adam, cross_entropy,
         lambda: raw(data.clusters(200, 12, 2, distance=4.0, seed=77), (-1, 3)), 16, 200, "small table, raw features"),
)  # fmt: skip

TEST: tuple[Task, ...] = (
    Task("cnn-fashion-rmsprop", partial(models.cnn, 14, (8, 16), norm=False), RMSprop, cross_entropy, data.fashion, 32,
         250, "plain CNN"),
    Task("bncnn-digits-sgd", partial(models.cnn, 8, (16, 32), norm=True), partial(plain, weight_decay=1e-3),
         cross_entropy, data.digits, 32, 200, "normalised CNN"),
    Task("resnet-digits-adamw", partial(models.resnet, 10, 2), AdamW, cross_entropy, data.digits, 64, 160,
         "residual net"),
    Task("mlp-wine-sgdm", partial(models.mlp, 13, 24, 3), heavy, cross_entropy, partial(data.table, "wine"), 16, 150,
         "small table"),
    Task("linear-cancer-raw-adamw", partial(models.mlp, 30, 2), AdamW, cross_entropy,
         partial(data.table, "breast_cancer", standardise=False), 32, 300, "raw features"),
    Task("mlp-diabetes-raw-sgd", partial(models.mlp, 10, 32, 1), plain, column, partial(data.table, "diabetes"), 16,
         300, "raw targets"),
    Task("mlp-made-raw-adam", partial(models.mlp, 10, 48, 1), Adam, mse,
         lambda: times(data.regression(10, noise=0.1, seed=21), 100.0), 32, 600, "raw targets"),
    Task("mlp-made-large-sgdm", partial(models.mlp, 16, 64, 1, activation=nn.Tanh), heavy, scaled(mse, 1e5),
         partial(data.regression, 16, noise=0.2, seed=22, condition=100.0), 64, 400, "loss of 1e5, ill-conditioned"),
    Task("tanh8-fashion-sgdm", partial(models.deep, 196, *[40] * 8, 10, activation=nn.Tanh, nonlinearity="tanh"), heavy,
         cross_entropy, data.fashion, 64, 250, "deep tanh"),
    Task("relu10-digits-adam", partial(models.deep, 64, *[48] * 10, 10, activation=nn.ReLU, nonlinearity="relu"), Adam,
         cross_entropy, data.digits, 32, 300, "deep ReLU"),
    Task("transformer-decimal-adam",
         lambda: models.Transformer(_decimal()[1], 32, causal=True, norm_first=False), Adam, per_symbol,
         lambda: _decimal()[0], 16, 300, "transformer, post-norm"),
    Task("transformer-reversal-sgdm", partial(models.Transformer, 8, 8, causal=False, norm_first=True), heavy,
         per_symbol, partial(data.reversal, 8, 8, seed=23), 32, 400, "transformer"),
    Task("gru-adding-rmsprop", partial(models.Recurrent, "GRU", 2, 32, 1), RMSprop, mse,
         partial(data.adding, 10, seed=24), 32, 400, "plateau"),
    Task("lstm-decimal-adam", lambda: models.Recurrent("LSTM", 24, 48, _decimal()[1], alphabet=_decimal()[1]),
         Adam, per_symbol, lambda: _decimal()[0], 16, 250, "LSTM"),
    Task("rnn-digits-sgdm", partial(models.Recurrent, "RNN", 8, 32, 10), heavy, cross_entropy, data.digits, 64, 300,
         "RNN"),
    Task("autoencoder-fashion-sgdm", partial(models.Autoencoder, 196, 64, 16), heavy, reconstruction,
         lambda: images_only(flat(data.fashion())), 32, 300, "autoencoder"),
    Task("factors-ratings-adamw", partial(models.Factors, 100, 100, 8), AdamW, mse,
         partial(data.ratings, 100, 100, seed=25), 32, 400, "recommender"),
    Task("noisy-digits-adamw", partial(models.mlp, 64, 64, 10), AdamW, cross_entropy,
         lambda: data.noisy_labels(data.digits(), 0.3, num_classes=10, seed=26), 32, 200, "noisy labels"),
    Task("finetune-fashion-adam",
         pretrained(partial(models.cnn, 14, (12, 24), norm=True), lambda: classes(data.fashion(), range(5)),
                    num_steps=200, fresh_head=True),
         Adam, cross_entropy, lambda: classes(data.fashion(), range(5, 10)), 32, 100, "fine-tuning, new head"),
    Task("finetune-digits-sgd",
         pretrained(partial(models.mlp, 64, 64, 10), data.digits, num_steps=150),
         plain, cross_entropy, lambda: shifted(data.digits(), 1), 32, 200, "fine-tuning, shifted"),
    Task("likelihood-made-sgdm", partial(models.mlp, 10, 32, 2, activation=nn.Tanh), heavy, gaussian_likelihood,
         partial(data.regression, 10, noise=0.1, seed=27), 32, 400, "loss below zero"),
)  # fmt: skip


def flat(split: data.Split) -> data.Split:
    """Return the split with each image as a vector."""
    return split[0].flatten(1), split[1], split[2].flatten(1), split[3]
