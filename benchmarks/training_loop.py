"""What a training step costs in the Learner and in other trainers, as a ratio to a hand-written PyTorch loop.

    OMP_NUM_THREADS=1 python benchmarks/training_loop.py [--rounds 9] [--only hand cyclewise]

A perceptron 64-128-128-10, batches of 64, SGD with momentum 0.9, cross-entropy, one thread, the same `DataLoader` for
all; 600 steps (four epochs) a measurement. The hand-written loop makes zero_grad, forward, loss, backward and step, and
keeps ``loss.item()`` of every step; it has no scheduler. All run in one process, in turns, with fresh models each time;
the figure is the median over the rounds of (time / time of the hand-written loop in the same round). Trainers run
without progress, logging, checkpoints and validation as far as their options allow, else with their own defaults.

Goals: at most 1.05 with the DataLoader, at most 0.70 with `Data.from_arrays`. Peers that are not installed are skipped:

    pip install fastai lightning transformers accelerate skorch pytorch-ignite
"""

import argparse
import contextlib
import gc
import importlib.metadata
import io
import logging
import os
import statistics
import sys
import tempfile
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, TensorDataset

# torchvision without its compiled part declares no operators, and then cannot be imported.
with contextlib.suppress(Exception):
    _library = torch.library.Library("torchvision", "DEF")
    _library.define("nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
    _library.define("qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")

import cyclewise as cw

sys.path.insert(0, str(Path(__file__).parent))
from recording import record

STEPS_PER_EPOCH, EPOCHS, BATCH = 150, 4, 64
STEPS = STEPS_PER_EPOCH * EPOCHS
INPUTS = torch.randn(BATCH * STEPS_PER_EPOCH, 64, generator=torch.Generator().manual_seed(0))
TARGETS = (INPUTS @ torch.randn(64, 10, generator=torch.Generator().manual_seed(1))).argmax(1)
DATASET = TensorDataset(INPUTS, TARGETS)
PACKAGES = {"fastai": "fastai", "lightning": "lightning", "transformers": "transformers", "skorch": "skorch",
            "ignite": "pytorch-ignite", "accelerate": "accelerate"}  # fmt: skip


def network() -> nn.Module:
    """Return the perceptron, the same one every time."""
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(64, 128), nn.ReLU(), nn.Linear(128, 128), nn.ReLU(), nn.Linear(128, 10))


def sgd(model: nn.Module) -> torch.optim.Optimizer:
    """Return the optimizer."""
    return torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9)


def loader() -> "DataLoader[tuple[torch.Tensor, ...]]":
    """Return the loader."""
    return DataLoader(DATASET, batch_size=BATCH, shuffle=True)


def timed(run: Callable[[], object]) -> float:
    """Return the seconds of one call."""
    gc.collect()
    start = time.perf_counter()
    run()
    return time.perf_counter() - start


def hand(*, reads_loss: bool = True, schedules: bool = False) -> float:
    """Time the hand-written loop."""
    model = network()
    optimizer, batches = sgd(model), loader()
    scheduler = torch.optim.lr_scheduler.OneCycleLR(optimizer, 0.05, STEPS + 1) if schedules else None

    def run() -> list[float]:
        losses = []
        for _ in range(EPOCHS):
            for inputs, targets in batches:
                optimizer.zero_grad()
                loss = F.cross_entropy(model(inputs), targets)
                loss.backward()
                optimizer.step()
                if scheduler is not None:
                    scheduler.step()
                if reads_loss:
                    losses.append(loss.item())
        return losses

    return timed(run)


def cyclewise(data: Callable[[], cw.Data]) -> float:
    """Time the Learner with a one-cycle policy."""
    model = network()
    learn = cw.Learner(model, data(), loss_fn=F.cross_entropy, optimizer=sgd(model), progress=False)
    return timed(lambda: learn.fit(cw.OneCycle(max_lr=0.05, total_steps=STEPS)))


def accelerate() -> float:
    """Time the plainest loop of Accelerate."""
    from accelerate import Accelerator

    accelerator = Accelerator(cpu=True)
    plain = network()
    model, optimizer, batches = accelerator.prepare(plain, sgd(plain), loader())

    def run() -> None:
        for _ in range(EPOCHS):
            for inputs, targets in batches:
                optimizer.zero_grad()
                loss = F.cross_entropy(model(inputs), targets)
                accelerator.backward(loss)
                optimizer.step()
                loss.item()

    return timed(run)


def fastai() -> float:
    """Time fastai's Learner with a constant rate."""
    from fastai.callback.progress import ProgressCallback
    from fastai.data.core import DataLoaders
    from fastai.learner import Learner
    from fastai.optimizer import OptimWrapper

    def make_optimizer(parameters: Any, **options: Any) -> Any:
        return OptimWrapper(parameters, torch.optim.SGD, lr=0.01, momentum=0.9)

    learn = Learner(DataLoaders(loader(), loader()), network(), loss_func=F.cross_entropy, opt_func=make_optimizer)
    learn.remove_cb(ProgressCallback)
    learn.validate = lambda *arguments, **options: None
    learn._do_epoch_validate = lambda *arguments, **options: None
    return timed(lambda: learn.fit(EPOCHS, lr=0.01))


def lightning() -> float:
    """Time Lightning's Trainer."""
    import lightning as L

    class Module(L.LightningModule):
        def __init__(self) -> None:
            super().__init__()
            self.model = network()

        def training_step(self, batch: Any, index: int) -> Any:
            return F.cross_entropy(self.model(batch[0]), batch[1])

        def configure_optimizers(self) -> Any:
            return sgd(self)

    trainer = L.Trainer(max_epochs=EPOCHS, accelerator="cpu", devices=1, logger=False, enable_checkpointing=False,
                        enable_progress_bar=False, enable_model_summary=False, barebones=False)  # fmt: skip
    module, batches = Module(), loader()
    return timed(lambda: trainer.fit(module, batches))


def transformers() -> float:
    """Time the Trainer of transformers."""
    from transformers import Trainer, TrainingArguments

    class Model(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.model = network()

        def forward(self, x: torch.Tensor, labels: torch.Tensor) -> dict[str, torch.Tensor]:
            outputs = self.model(x)
            return {"loss": F.cross_entropy(outputs, labels), "logits": outputs}

    class Plain(Trainer):
        def get_train_dataloader(self) -> Any:
            def collate(samples: Any) -> Any:
                inputs, targets = zip(*samples, strict=True)
                return {"x": torch.stack(inputs), "labels": torch.stack(targets)}

            return DataLoader(DATASET, batch_size=BATCH, shuffle=True, collate_fn=collate)

    model = Model()
    with tempfile.TemporaryDirectory() as folder:
        settings = TrainingArguments(
            folder, num_train_epochs=EPOCHS, per_device_train_batch_size=BATCH, logging_strategy="no",
            save_strategy="no", report_to=[], use_cpu=True, disable_tqdm=True, max_grad_norm=0.0,
        )  # fmt: skip
        trainer = Plain(model, settings, train_dataset=DATASET, optimizers=(sgd(model), None))
        return timed(trainer.train)


def skorch() -> float:
    """Time skorch's NeuralNet."""
    from skorch import NeuralNet

    net = NeuralNet(network(), criterion=nn.CrossEntropyLoss, optimizer=torch.optim.SGD, optimizer__momentum=0.9,
                    lr=0.01, max_epochs=EPOCHS, batch_size=BATCH, iterator_train__shuffle=True, train_split=None,
                    callbacks__print_log=None, verbose=0)  # fmt: skip
    net.initialize()
    return timed(lambda: net.partial_fit(DATASET))


def ignite() -> float:
    """Time ignite's supervised trainer."""
    from ignite.engine import create_supervised_trainer

    model = network()
    trainer = create_supervised_trainer(model, sgd(model), F.cross_entropy)
    batches = loader()
    return timed(lambda: trainer.run(batches, max_epochs=EPOCHS))


CONTENDERS: dict[str, Callable[[], float]] = {
    "hand": hand,
    "hand, loss never read": lambda: hand(reads_loss=False),
    "hand, with OneCycleLR": lambda: hand(schedules=True),
    "cyclewise, DataLoader": lambda: cyclewise(lambda: cw.Data(loader())),
    "cyclewise, from_arrays": lambda: cyclewise(
        lambda: cw.Data.from_arrays(INPUTS, TARGETS, valid_fraction=0.0, batch_size=BATCH)
    ),
    "ignite": ignite,
    "skorch": skorch,
    "accelerate": accelerate,
    "lightning": lightning,
    "fastai": fastai,
    "transformers": transformers,
}


def installed(name: str) -> str | None:
    """Return the version of a contender's package; "" for our own, None where it is not installed."""
    if name not in PACKAGES:
        return ""
    try:
        return importlib.metadata.version(PACKAGES[name])
    except importlib.metadata.PackageNotFoundError:
        return None


def main() -> None:
    """Measure in turns, print the table and keep it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--only", nargs="*", help="contenders whose names begin so")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    logging.disable(logging.WARNING)
    warnings.simplefilter("ignore")
    contenders = {
        name: run
        for name, run in CONTENDERS.items()
        if installed(name) is not None
        and (not arguments.only or name == "hand" or name.startswith(tuple(arguments.only)))
    }
    seconds: dict[str, list[float]] = {name: [] for name in contenders}
    for index in range(arguments.rounds + 1):
        for name, run in contenders.items():
            with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
                taken = run()
            if index:  # the first round warms caches up
                seconds[name].append(taken)
    rows = []
    for name, taken in seconds.items():
        ratios = [own / reference for own, reference in zip(taken, seconds["hand"], strict=True)]
        rows.append({"contender": name, "version": installed(name), "ratio": statistics.median(ratios),
                     "ratio_of_minima": min(taken) / min(seconds["hand"]), "ratios": ratios,
                     "ms_per_step": 1000 * min(taken) / STEPS})  # fmt: skip
        print(f"{name:24} {statistics.median(ratios):5.2f}  ({min(ratios):.2f} - {max(ratios):.2f})  "
              f"minima {rows[-1]['ratio_of_minima']:5.2f}  {rows[-1]['ms_per_step']:.3f} ms a step")  # fmt: skip
    missing = sorted(set(CONTENDERS) - set(contenders))
    if missing and not arguments.only:
        print("not installed:", ", ".join(missing))
    record("training_loop", {"rounds": arguments.rounds, "steps": STEPS, "rows": rows})


if __name__ == "__main__":
    main()
