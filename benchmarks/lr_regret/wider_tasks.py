"""Development tasks of kinds of which there were too few: tables of embeddings, raw targets, kin of Adam.

Names that are learned by heart at each visit, models that reach large targets or die on the way, optimizers that begin
slowly by themselves, and a few more plateaus.
"""

from functools import partial

from torch import nn
from torch.nn import functional
from torch.optim import Adam, Adamax, AdamW, NAdam, RAdam

from benchmarks.lr_regret import data, made, models
from benchmarks.lr_regret.splits import moved, times
from benchmarks.lr_regret.task import Task, cross_entropy, gaussian_likelihood, heavy, mse, nesterov, plain

clicked = functional.binary_cross_entropy_with_logits

WIDER: tuple[Task, ...] = (
    Task("bag-lines-wide-adamw", partial(models.Bag, 1200, 32, 32, 4), AdamW, cross_entropy,
         partial(made.lines, 2000, num_words=1200, seed=131), 25, 300, "embeddings"),
    Task("bag-lines-sgdm", partial(models.Bag, 600, 16, 24, 4), heavy, cross_entropy,
         partial(made.lines, 2400, seed=132), 32, 500, "embeddings"),
    Task("gru-lines-adam", partial(models.Reader, 800, 16, 24, 4), Adam, cross_entropy,
         partial(made.lines, 2000, num_words=800, seed=133), 32, 300, "embeddings"),
    Task("tables-clicks-adam", partial(models.Tables, (100, 80), 8, 32, 1), Adam, clicked,
         partial(made.clicks, 100, 80, 5000, seed=134), 100, 400, "embeddings"),
    Task("tables-clicks-sgdm", partial(models.Tables, (80, 60), 8, 32, 1), heavy, clicked,
         partial(made.clicks, 80, 60, 3000, seed=135), 50, 600, "embeddings"),
    Task("factors-clicks-adam", partial(models.Factors, 100, 80, 6), Adam, clicked,
         partial(made.clicks, 100, 80, 3000, seed=136), 64, 400, "embeddings"),
    Task("factors-clicks-nesterov", partial(models.Factors, 60, 60, 4), nesterov, clicked,
         partial(made.clicks, 60, 60, 2400, seed=137), 40, 500, "embeddings"),
    Task("tables-effects-adamw", partial(models.Tables, (40, 12, 150), 8, 32, 1), AdamW, mse,
         partial(made.effects, (40, 12, 150), 2000, seed=138), 32, 400, "embeddings"),
    Task("tables-effects-sgd", partial(models.Tables, (30, 30), 8, 32, 1), plain, mse,
         partial(made.effects, (30, 30), 1600, seed=139), 32, 500, "embeddings"),
    Task("tables-words-adam", partial(models.Tables, (300, 300, 300), 12, 48, 300), Adam, cross_entropy,
         partial(made.next_words, 4000, num_words=300, seed=140), 64, 400, "embeddings"),
    Task("mlp-impedance-raw-sgd", partial(models.mlp, 4, 48, 48, 1), plain, mse,
         partial(made.impedance, 1600, seed=141), 32, 500, "raw targets"),
    Task("mlp-impedance-raw-sgdm", partial(models.mlp, 4, 64, 32, 32, 1), heavy, mse,
         partial(made.impedance, 1200, seed=142), 24, 400, "raw targets"),
    Task("mlp-digits-amount-sgdm", partial(models.mlp, 64, 48, 24, 1), heavy, mse,
         lambda: made.amounts(data.digits(), 60.0, 200.0), 32, 400, "raw targets"),
    Task("mlp-made-far-sgd", partial(models.mlp, 12, 48, 48, 1), plain, mse,
         lambda: moved(times(data.regression(12, noise=0.2, seed=144), 100.0), 800.0), 20, 400, "raw targets"),
    Task("mlp-made-far-adamw", partial(models.mlp, 12, 64, 1), AdamW, mse,
         lambda: moved(times(data.regression(12, noise=0.2, seed=145), 30.0), 100.0), 32, 500, "raw targets"),
    Task("mlp-fashion-radam", partial(models.mlp, 196, 64, 10), RAdam, cross_entropy, data.fashion, 50, 300, "RAdam"),
    Task("cnn-digits-radam", partial(models.cnn, 8, (12, 24), norm=False), RAdam, cross_entropy, data.digits, 32, 400,
         "RAdam"),
    Task("mlp-fashion-nadam", partial(models.mlp, 196, 48, 48, 10), NAdam, cross_entropy, data.fashion, 64, 250,
         "NAdam"),
    Task("gru-digits-adamax", partial(models.Recurrent, "GRU", 8, 32, 10), Adamax, cross_entropy, data.digits, 32, 300,
         "Adamax"),
    Task("waves-series-adam", partial(models.waves, 12, 4), Adam, cross_entropy, partial(made.series, 800, seed=146),
         16, 300, "plateau"),
    Task("patches-digits-adamw", partial(models.Patches, 8, 2), AdamW, cross_entropy, data.digits, 32, 300,
         "transformer, post-norm"),
    Task("patches-digits-sgdm", partial(models.Patches, 8, 2), heavy, cross_entropy, data.digits, 64, 250,
         "transformer, post-norm"),
    Task("likelihood-far-adam", partial(models.mlp, 10, 48, 2, activation=nn.Tanh), Adam, gaussian_likelihood,
         lambda: moved(times(data.regression(10, noise=0.2, seed=147), 5.0), 10.0), 32, 500, "likelihood"),
)  # fmt: skip
