"""What a step costs on a GPU: the model's own time, a hand-written loop, the Learner, and Lightning where it is there.

    python -m benchmarks.gpu.steps [--rounds 3]

The model's own time is that of forward, loss, backward and update on one batch that is already on the device, 200
times over. All else has to bring the batches, too: Fashion-MNIST on the device, batches of 500 (of 64 for the
perceptron), shuffled. Each is measured eager in full precision, eager in bf16, and compiled with CUDA
graphs; in one process, in turns; the figures are medians over the rounds.
"""

import argparse
import contextlib
import io
import logging
import statistics
import time
import warnings
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

import cyclewise as cw
from benchmarks.gpu.network import nine_layers
from benchmarks.recording import record
from cyclewise.experiments.fashion import fashion_mnist

STEPS = 200


def perceptron() -> nn.Module:
    """Return a network so small that the launches cost more than the sums."""
    return nn.Sequential(nn.Flatten(), nn.Linear(784, 128), nn.ReLU(), nn.Linear(128, 128), nn.ReLU(),
                         nn.Linear(128, 10))  # fmt: skip


SUBJECTS: dict[str, tuple[Callable[[], nn.Module], int]] = {
    "perceptron": (perceptron, 64),
    "nine layers, width 64": (lambda: nine_layers(64, augments=False), 500),
}
FORMS: dict[str, dict[str, Any]] = {
    "eager": {"mixed_precision": "no", "compile": False},
    "eager, bf16": {"mixed_precision": "bf16", "compile": False},
    "compiled, bf16": {"mixed_precision": "bf16", "compile": {"mode": "reduce-overhead", "dynamic": False}},
}


class Case:
    """A model with its optimizer and batches, and the ways to train it.

    Args:
        subject: name of the model.
        form: name of the precision and compilation.
    """

    def __init__(self, subject: str, form: str) -> None:
        make, self.batch_size = SUBJECTS[subject]
        torch.manual_seed(0)
        self.model = make().cuda()
        self.optimizer = torch.optim.SGD(self.model.parameters(), lr=0.01, momentum=0.9, fused=True)
        self.form = FORMS[form]
        images = fashion_mnist()
        self.inputs, self.targets = images.train_inputs.cuda(), images.train_targets.cuda()
        options = self.form["compile"]
        self.forward: Any = self.model
        if options:
            self.forward = torch.compile(self.model, **(options if isinstance(options, dict) else {}))
        self.learn = cw.Learner(
            self.model, cw.Data.from_arrays(self.inputs, self.targets, valid_fraction=0.0, batch_size=self.batch_size),
            loss_fn=F.cross_entropy, optimizer=self.optimizer, progress=False, **self.form,
        )  # fmt: skip

    def _update(self, inputs: Tensor, targets: Tensor) -> Tensor:
        self.optimizer.zero_grad()
        with torch.autocast("cuda", torch.bfloat16, enabled=self.form["mixed_precision"] == "bf16"):
            loss = F.cross_entropy(self.forward(inputs), targets)
        loss.backward()
        self.optimizer.step()
        return loss.detach()

    def own(self) -> None:
        """Make the steps on one batch."""
        inputs, targets = self.inputs[: self.batch_size], self.targets[: self.batch_size]
        for _ in range(STEPS):
            self._update(inputs, targets)

    def hand(self) -> None:
        """Make the steps on shuffled batches, and read the losses every 32 steps."""
        losses: list[Tensor] = []
        order = torch.randperm(len(self.inputs)).cuda()
        for step in range(STEPS):
            first = step * self.batch_size % (len(order) - self.batch_size)
            chosen = order[first : first + self.batch_size]
            losses.append(self._update(self.inputs[chosen], self.targets[chosen]))
            if len(losses) == 32:
                torch.stack(losses).tolist()
                losses.clear()

    def learner(self) -> None:
        """Let the Learner make them."""
        self.learn.fit(cw.Constant(lr=0.01, total_steps=STEPS))

    def lightning(self) -> None:
        """Let Lightning make them, without logger, checkpoints and bar."""
        import lightning as L

        case = self

        class Module(L.LightningModule):
            def __init__(self) -> None:
                super().__init__()
                self.model = case.model

            def training_step(self, batch: Any, index: int) -> Tensor:
                return F.cross_entropy(case.forward(batch[0]), batch[1])

            def configure_optimizers(self) -> torch.optim.Optimizer:
                return case.optimizer

        precision = "bf16-mixed" if self.form["mixed_precision"] == "bf16" else "32-true"
        trainer = L.Trainer(max_steps=STEPS, accelerator="gpu", devices=1, logger=False, precision=precision,
                            enable_checkpointing=False, enable_progress_bar=False, enable_model_summary=False,
                            use_distributed_sampler=False)  # fmt: skip
        trainer.fit(Module(), self.learn.data.train_loader)
        self.model.cuda()  # Lightning leaves it on the CPU
        self.optimizer.state.clear()


def timed(run: Callable[[], None]) -> float:
    """Return the milliseconds of a step."""
    torch.cuda.synchronize()
    start = time.perf_counter()
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        run()
    torch.cuda.synchronize()
    return 1000 * (time.perf_counter() - start) / STEPS


def main() -> None:
    """Measure in turns, print the table and keep it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    arguments = parser.parse_args()
    logging.disable(logging.WARNING)
    warnings.simplefilter("ignore")
    torch.set_float32_matmul_precision("high")
    torch.backends.cudnn.benchmark = True
    rows = []
    for subject in SUBJECTS:
        for form in FORMS:
            case = Case(subject, form)
            ways: dict[str, Callable[[], None]] = {"own": case.own, "hand": case.hand, "learner": case.learner}
            with contextlib.suppress(ImportError):
                import lightning  # noqa: F401

                ways["lightning"] = Case(subject, form).lightning
            taken: dict[str, list[float]] = {name: [] for name in ways}
            for index in range(arguments.rounds + 1):
                for name, run in ways.items():
                    try:
                        milliseconds = timed(run)
                    except Exception as error:  # a peer that cannot run here is told, and does not end the rest
                        milliseconds = float("nan")
                        print(f"{subject}, {form}, {name}: {type(error).__name__}: {str(error)[:300]}", flush=True)
                    if index:  # the first round compiles
                        taken[name].append(milliseconds)
            medians = {name: statistics.median(values) for name, values in taken.items()}
            ratios = {
                name: statistics.median(a / b for a, b in zip(values, taken["own"], strict=True))
                for name, values in taken.items()
            }
            rows.append({"subject": subject, "form": form, "ms": medians, "of_own": ratios, "all_ms": taken})
            print(f"{subject:22} {form:15} " + "  ".join(
                f"{name} {medians[name]:.3f} ms ({ratios[name]:.2f})" for name in ways), flush=True)  # fmt: skip
            torch._dynamo.reset()
            record("gpu_steps", {"steps": STEPS, "rounds": arguments.rounds, "rows": rows})


if __name__ == "__main__":
    main()
