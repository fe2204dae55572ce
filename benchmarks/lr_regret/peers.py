"""What other libraries' range tests suggest on the same tasks, with their own code and defaults, same table.

Run in an environment of its own (fastai and Lightning import torchvision, which has no build for every torch):

    pip install fastai torch-lr-finder lightning pytorch-ignite scikit-learn
    PYTHONPATH=src:. python -m benchmarks.lr_regret.peers development|test

Each gets 100 steps from its own default range; where a library starts at the optimizer's rate, that is 1e-7.
"""

import argparse
import contextlib
import importlib.metadata
import io
import logging
import math
import warnings
from collections.abc import Callable
from typing import Any

import torch
from torch.utils.data import DataLoader, TensorDataset

# torchvision without its compiled part declares no operators, and then cannot be imported.
with contextlib.suppress(Exception):
    _library = torch.library.Library("torchvision", "DEF")
    _library.define("nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
    _library.define("qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")

from benchmarks.lr_regret.oracle import load
from benchmarks.lr_regret.regret import summary
from benchmarks.lr_regret.task import Task, draw
from benchmarks.lr_regret.tasks import DEVELOPMENT, TEST
from benchmarks.recording import record

_SEEDS = (10, 11, 12)
Rates = dict[str, float | None]


def loader_of(task: Task, seed: int) -> "DataLoader[tuple[torch.Tensor, ...]]":
    """Return the task's training data as these libraries want them."""
    inputs, targets, _, _ = task.split()
    generator = torch.Generator().manual_seed(seed)
    return DataLoader(TensorDataset(inputs, targets), task.batch_size, shuffle=True, drop_last=True,
                      generator=generator)  # fmt: skip


def torch_lr_finder(task: Task, seed: int) -> Rates:
    """Steepest descent of torch-lr-finder."""
    from torch_lr_finder import LRFinder

    trial = draw(task, seed)
    criterion: Any = trial.loss_fn
    finder = LRFinder(trial.model, trial.optimizer, criterion, device="cpu")
    finder.range_test(loader_of(task, seed), start_lr=1e-7, end_lr=10, num_iter=100)
    import matplotlib.pyplot as plt

    with contextlib.redirect_stdout(io.StringIO()):
        answer = finder.plot(suggest_lr=True)
    plt.close("all")
    return {"torch-lr-finder": answer[1] if isinstance(answer, tuple) else None}


def ignite(task: Task, seed: int) -> Rates:
    """The suggestion of ignite's FastaiLRFinder."""
    from ignite.engine import create_supervised_trainer
    from ignite.handlers import FastaiLRFinder

    trial = draw(task, seed)
    for group in trial.optimizer.param_groups:
        group["lr"] = 1e-7
    trainer = create_supervised_trainer(trial.model, trial.optimizer, trial.loss_fn)
    finder = FastaiLRFinder()
    saved = {"model": trial.model, "optimizer": trial.optimizer}
    with finder.attach(trainer, to_save=saved, num_iter=100, end_lr=10.0) as attached:
        attached.run(loader_of(task, seed))
    return {"ignite": float(finder.lr_suggestion())}


def lightning(task: Task, seed: int) -> Rates:
    """The suggestion of Lightning's Tuner.lr_find."""
    import lightning as pl
    from lightning.pytorch.tuner import Tuner

    trial = draw(task, seed)

    class Module(pl.LightningModule):
        def __init__(self) -> None:
            super().__init__()
            self.model = trial.model
            self.lr = 1e-3

        def training_step(self, batch: Any, index: int) -> Any:
            return trial.loss_fn(self.model(batch[0]), batch[1])

        def configure_optimizers(self) -> Any:
            return task.optimizer(self.model.parameters(), lr=self.lr)

    trainer = pl.Trainer(max_steps=1000, max_epochs=1000, accelerator="cpu", logger=False, enable_checkpointing=False,
                         enable_progress_bar=False, enable_model_summary=False)  # fmt: skip
    finder = Tuner(trainer).lr_find(Module(), train_dataloaders=loader_of(task, seed), num_training=100)
    return {"Lightning": None if finder is None else finder.suggestion()}


def fastai(task: Task, seed: int) -> Rates:
    """Valley (the default), minimum / 10 and steep of fastai."""
    from fastai.basics import DataLoaders, Learner
    from fastai.callback.schedule import minimum, steep, valley
    from fastai.optimizer import OptimWrapper

    trial = draw(task, seed)
    train = loader_of(task, seed)
    learner = Learner(
        DataLoaders(train, train),
        trial.model,
        loss_func=trial.loss_fn,
        opt_func=lambda params, **options: OptimWrapper(params, opt=task.optimizer, **options),
    )
    with learner.no_bar(), learner.no_logging():
        rates = learner.lr_find(suggest_funcs=(valley, minimum, steep), show_plot=False)
    return {"fastai valley": rates.valley, "fastai minimum/10": rates.minimum, "fastai steep": rates.steep}


PEERS: dict[str, Callable[[Task, int], Rates]] = {
    "torch-lr-finder": torch_lr_finder, "ignite": ignite, "lightning": lightning, "fastai": fastai,
}  # fmt: skip
LABELS = {"torch-lr-finder": ["torch-lr-finder"], "ignite": ["ignite"], "lightning": ["Lightning"],
          "fastai": ["fastai valley", "fastai minimum/10", "fastai steep"]}  # fmt: skip


def main() -> None:
    """Ask every peer about every task, print the table and keep it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("tasks", choices=("development", "test"))
    parser.add_argument("--peers", nargs="+", choices=tuple(PEERS), default=list(PEERS))
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    logging.disable(logging.WARNING)
    regrets: dict[str, list[float]] = {}
    failures: dict[str, dict[str, int]] = {}
    for task in DEVELOPMENT if arguments.tasks == "development" else TEST:
        for seed in _SEEDS:
            for name in arguments.peers:
                torch.manual_seed(seed)
                try:
                    with contextlib.redirect_stderr(io.StringIO()):
                        rates = PEERS[name](task, seed)
                except Exception as error:  # a library that fails on a task gives no rate: that is the result
                    kind = f"{type(error).__name__}: {error}"[:100]
                    kinds = failures.setdefault(name, {})
                    kinds[kind] = kinds.get(kind, 0) + 1
                    rates = dict.fromkeys(LABELS[name])
                for label, rate in rates.items():
                    usable = rate if rate is not None and math.isfinite(rate) and rate > 0 else None
                    regrets.setdefault(label, []).append(load(task.name).regret(usable))
    versions = {name: importlib.metadata.version(name) for name in
                ("torch-lr-finder", "pytorch-ignite", "lightning", "fastai")}  # fmt: skip
    result = {label: {"n": len(values), **summary(values)} for label, values in regrets.items()}
    for label, figures in result.items():
        print(f"{label:20s} " + " ".join(f"{key} {value:.1f}" for key, value in figures.items()))
    for name, kinds in failures.items():
        print(name, "failed:", kinds)
    record(f"lr_regret_peers_{arguments.tasks}", {"versions": versions, "regret": result, "failures": failures})


if __name__ == "__main__":
    main()
