"""Kill a training process at any moment, a hundred times: a run that is resumed must end as one that was never killed.

    OMP_NUM_THREADS=1 python benchmarks/kill_resume.py

Each variant is a script of two fits with checkpoints. First it runs uninterrupted, and leaves the SHA-256 of its
weights, of its losses and of its epochs' scores. Then chains of processes run it: each is killed with SIGKILL, the next
one resumes in the same directory, and the last of a chain runs to its end, where it must leave the same three hashes.
The moments of a chain's kills are spread uniformly over the run, from just before `resume` to just after its end; those
that fell into a write, or into the removal of an old checkpoint, are told by what they left in the directory.

The exit status is 1 if a chain ends with other hashes, or a process that nobody killed fails. One process of a chain:

    python benchmarks/kill_resume.py worker VARIANT DIRECTORY RESULT
"""

import argparse
import hashlib
import json
import os
import random
import signal
import socket
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, field
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset, TensorDataset

import cyclewise as cw
from cyclewise.files import TEMPORARY
from cyclewise.state import seed_everything
from cyclewise.training import bundle

sys.path.insert(0, str(Path(__file__).parent))
from recording import record

NUM_KILLS = 100
KILLS_PER_CHAIN = (3, 6)
NUM_FEATURES = 16
NUM_VALID = 64
BATCH_SIZE = 16
# The last batch of an epoch is smaller than the others.
STEPS_PER_EPOCH = 20
# Long enough beside the writing of a checkpoint that both are hit.
SECONDS_PER_STEP = 0.008
SECONDS_BETWEEN_STEPS_AND_SCORES = 0.04
# Some kills are meant to come after the last checkpoint, and a few to come too late.
REACH = 1.05
# What a process that hangs is given before it counts as failed.
MOST_SECONDS = 120.0


# -- the run that is killed -------------------------------------------------------------------------------------------


class Augmented(Dataset[tuple[Tensor, Tensor]]):
    """Draws from all the global generators for each sample."""

    def __init__(self, inputs: Tensor, targets: Tensor) -> None:
        self._inputs, self._targets = inputs, targets

    def __len__(self) -> int:
        return len(self._inputs)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        noise = random.gauss(0.0, 0.1) + np.random.normal(0.0, 0.1) + torch.randn(NUM_FEATURES) * 0.1
        return self._inputs[index] + noise, self._targets[index]


def samples(num_samples: int, seed: int) -> tuple[Tensor, Tensor]:
    """Return inputs and classes that a network can learn."""
    generator = torch.Generator().manual_seed(seed)
    inputs = torch.randn(num_samples, NUM_FEATURES, generator=generator)
    return inputs, (inputs[:, 0] * inputs[:, 1] > 0).long()


def num_train(batches: int) -> int:
    """Return the samples of so many batches, the last of which is smaller."""
    return batches * BATCH_SIZE - BATCH_SIZE // 2


def loaders(kind: Callable[..., Dataset[Any]] = TensorDataset, *, batches: int = STEPS_PER_EPOCH) -> cw.Data:
    """Return torch's loaders over data sets of one kind."""
    train, valid = kind(*samples(num_train(batches), 0)), kind(*samples(NUM_VALID, 1))
    return cw.Data(DataLoader(train, batch_size=BATCH_SIZE, shuffle=True), DataLoader(valid, batch_size=BATCH_SIZE))


def arrays() -> cw.Data:
    """Return this library's own loaders."""
    num_samples = num_train(STEPS_PER_EPOCH)
    fraction = NUM_VALID / (num_samples + NUM_VALID)
    return cw.Data.from_arrays(*samples(num_samples + NUM_VALID, 0), valid_fraction=fraction, batch_size=BATCH_SIZE)


@dataclass(frozen=True)
class Variant:
    """One way to train.

    Attributes:
        data: makes the loaders.
        every_steps: steps between checkpoints; where it divides the steps of a fit, the last step has one of its own
            before the epoch is scored.
        optimizer: makes the optimizer.
        options: keyword arguments of the Learner.
        averages: whether the fits end with the average of the weights.
        num_ranks: processes that train together.
    """

    data: Callable[[], cw.Data]
    every_steps: int
    optimizer: Callable[[Any], torch.optim.Optimizer] = lambda groups: torch.optim.SGD(groups, lr=0.1, momentum=0.9)
    options: Mapping[str, Any] = field(default_factory=dict)
    averages: bool = False
    num_ranks: int = 1


VARIANTS = {
    "shuffled loader": Variant(loaders, every_steps=3),
    "from_arrays": Variant(arrays, every_steps=4),
    "accumulation_steps=3": Variant(
        lambda: loaders(batches=3 * STEPS_PER_EPOCH - 1), every_steps=2, options={"accumulation_steps": 3}
    ),
    "data set draws from global generators": Variant(lambda: loaders(Augmented), every_steps=5),
    "AdamW, clip=auto, WeightAverage": Variant(
        loaders,
        every_steps=1,
        optimizer=lambda groups: torch.optim.AdamW(groups, lr=1e-3),
        options={"clip": "auto"},
        averages=True,
    ),
    "two processes": Variant(lambda: loaders(batches=2 * STEPS_PER_EPOCH), every_steps=4, num_ranks=2),
}


class Pace(cw.Callback):
    """Gives the killer time to hit every part of the run."""

    def on_step_end(self, learner: cw.Learner, step: int, loss: Tensor) -> None:
        """Wait before the checkpoint of this step."""
        time.sleep(SECONDS_PER_STEP)

    def on_validation_start(self, learner: cw.Learner) -> None:
        """Wait between the last step's checkpoint and the scores of the epoch."""
        time.sleep(SECONDS_BETWEEN_STEPS_AND_SCORES)

    def on_epoch_end(self, learner: cw.Learner, epoch: Any) -> None:
        """Wait between the scores of the epoch and its checkpoint."""
        time.sleep(SECONDS_PER_STEP)

    def on_fit_end(self, learner: cw.Learner) -> None:
        """Wait before the checkpoint of the whole fit."""
        time.sleep(SECONDS_PER_STEP)


def model(has_batch_norm: bool) -> nn.Module:
    """Return a small network with state besides its weights."""
    norm = nn.BatchNorm1d(64) if has_batch_norm else nn.Identity()
    return nn.Sequential(nn.Linear(NUM_FEATURES, 64), norm, nn.ReLU(), nn.Dropout(0.2), nn.Linear(64, 2))


def work(name: str, directory: str, result: str) -> None:
    """Run a variant's script from where the directory's checkpoints leave it, and write the hashes of its end."""
    warnings.filterwarnings("ignore", message="there is no complete checkpoint")
    # A kill must leave no checkpoint that looks whole and is not.
    warnings.filterwarnings("error", message="(the checkpoint|the manifest) ")
    torch.set_num_threads(1)
    variant = VARIANTS[name]
    rank = int(os.environ.get("RANK", "0"))
    seed_everything(0)
    network = model(has_batch_norm=variant.num_ranks == 1)
    seed_everything(rank)
    learn = cw.Learner(network, variant.data(), optimizer=variant.optimizer, progress=False, **variant.options)

    started(result, rank).write_text(str(os.getpid()))
    start = time.perf_counter()
    learn.resume(directory)
    learn.fit_one_cycle(2, max_lr=0.05, wd=1e-3, callbacks=callbacks(variant, directory))
    learn.fit_sgdr(T_0=1, num_cycles=2, max_lr=0.02, callbacks=callbacks(variant, directory))
    seconds = time.perf_counter() - start

    text = json.dumps({"hashes": hashes(learn), "num_steps": learn.num_steps, "seconds": seconds})
    temporary = ended(result, rank).with_suffix(".tmp")
    temporary.write_text(text)
    temporary.rename(ended(result, rank))
    if variant.num_ranks > 1:
        torch.distributed.barrier()
        os._exit(0)  # gloo's own threads may abort the interpreter's exit


def callbacks(variant: Variant, directory: str) -> list[cw.Callback]:
    """Return new callbacks for a fit."""
    averages = [cw.WeightAverage(0.9)] if variant.averages else []
    return [*averages, Pace(), cw.Checkpoint(directory, every_steps=variant.every_steps, keep=2)]


def hashes(learn: cw.Learner) -> dict[str, str]:
    """Return SHA-256 sums of what a run leaves, but for the times it took."""
    weights = hashlib.sha256()
    for name, value in learn.model.state_dict().items():
        weights.update(f"{name} {value.dtype} {tuple(value.shape)} ".encode() + value.numpy().tobytes())
    epochs = [{**epoch.to_dict(), "seconds": None} for epoch in learn.history.epochs]
    return {
        "weights": weights.hexdigest(),
        "losses": hashlib.sha256(learn.history.loss.tobytes()).hexdigest(),
        "epochs": hashlib.sha256(json.dumps(epochs).encode()).hexdigest(),
    }


def started(result: str | Path, rank: int) -> Path:
    """Return the file in which a rank leaves its process id when it begins."""
    return Path(f"{result}.{rank}.started")


def ended(result: str | Path, rank: int) -> Path:
    """Return the file in which a rank leaves its hashes when it is through."""
    return Path(f"{result}.{rank}.json")


# -- the killer -------------------------------------------------------------------------------------------------------


class Failure(Exception):
    """A process that nobody killed did not reach its end."""


class Process:
    """One process of a chain, or its ranks with their launcher.

    Args:
        name: of the variant.
        folder: of the chain: its checkpoints, and what its processes write besides.
    """

    def __init__(self, name: str, folder: Path) -> None:
        self._ranks = range(VARIANTS[name].num_ranks)
        self._result = folder / "result"
        self._log = folder / "log.txt"
        for rank in self._ranks:
            started(self._result, rank).unlink(missing_ok=True)
            ended(self._result, rank).unlink(missing_ok=True)
        launcher = ["-m", "torch.distributed.run", "--nproc_per_node", str(len(self._ranks)),
                    "--master_port", str(free_port())] if len(self._ranks) > 1 else []  # fmt: skip
        arguments = ["worker", name, str(folder / "checkpoints"), str(self._result)]
        with self._log.open("w") as log:
            self._popen = subprocess.Popen(
                [sys.executable, *launcher, str(Path(__file__).resolve()), *arguments],
                stdout=log, stderr=log, start_new_session=True, env={**os.environ, "OMP_NUM_THREADS": "1"},
            )  # fmt: skip
        self._deadline = time.perf_counter() + MOST_SECONDS
        try:
            while not all(is_whole(started(self._result, rank)) for rank in self._ranks):
                self._wait_a_little()
        except Failure:
            self._kill_all()
            raise

    @property
    def results(self) -> list[dict[str, Any]] | None:
        """What the ranks left at their end; None if one has not come to it."""
        paths = [ended(self._result, rank) for rank in self._ranks]
        return [json.loads(path.read_text()) for path in paths] if all(path.exists() for path in paths) else None

    def finish(self) -> list[dict[str, Any]]:
        """Let it run to its end and return what it left.

        Raises:
            Failure: it ended otherwise.
        """
        try:
            while self._popen.poll() is None or self.results is None:
                self._wait_a_little()
        finally:
            self._kill_all()
        results = self.results
        assert results is not None
        return results

    def kill_after(self, seconds: float) -> bool:
        """Kill it at that time from now; return whether it was killed before its end.

        Raises:
            Failure: it ended by itself before, and not well.
        """
        moment = time.perf_counter() + seconds
        while (rest := moment - time.perf_counter()) > 0 and self.results is None and self._popen.poll() is None:
            time.sleep(min(rest, 0.05))
        if self.results is not None:
            return False
        has_failed = self._popen.poll() is not None
        self._kill_all()
        if has_failed and self.results is None:
            raise Failure(self._last_words())
        return self.results is None

    def _kill_all(self) -> None:
        # A launcher gives each rank a session of its own, so that its group is not theirs.
        ranks = [int(path.read_text()) for rank in self._ranks if is_whole(path := started(self._result, rank))]
        for pid in ranks:
            if is_alive(pid):
                os.kill(pid, signal.SIGKILL)
        if self._popen.poll() is None:
            os.killpg(self._popen.pid, signal.SIGKILL)
        self._popen.wait()
        while any(map(is_alive, ranks)):
            time.sleep(0.001)

    def _wait_a_little(self) -> None:
        if self._popen.poll() not in (None, 0):
            raise Failure(self._last_words())
        if time.perf_counter() > self._deadline:
            raise Failure(f"hangs; {self._last_words()}")
        time.sleep(0.002)

    def _last_words(self) -> str:
        lines = [line for line in self._log.read_text().splitlines() if "Error" in line or "Warning" in line]
        return lines[0] if lines else self._log.read_text()[-2000:]


def is_whole(path: Path) -> bool:
    """Return whether a marker has been written; its few bytes come at once."""
    return path.exists() and path.stat().st_size > 0


def is_alive(pid: int) -> bool:
    """Return whether a process can still do anything: one that is dead may wait for long to be collected."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except OSError:
        return False


def free_port() -> int:
    """Return a port that nobody listens on."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


@dataclass
class Tally:
    """What happened to the chains of a variant.

    Attributes:
        num_steps: steps of the whole run.
        run_seconds: its time uninterrupted, without the start of the process.
        kills: kills of a process before its end.
        within_write: those that left a half-written checkpoint.
        within_removal: those that left one that was being removed.
        chains: chains of processes.
        equal: those that ended with the hashes of the uninterrupted run.
        different: those that ended with others.
        failed: those of which a process failed that nobody killed.
        seconds: time of all chains.
        steps: the step of the newest checkpoint at each kill.
        complaints: what was wrong.
    """

    num_steps: int
    run_seconds: float
    kills: int = 0
    within_write: int = 0
    within_removal: int = 0
    chains: int = 0
    equal: int = 0
    different: int = 0
    failed: int = 0
    seconds: float = 0.0
    steps: list[int] = field(default_factory=list)
    complaints: list[str] = field(default_factory=list)


def measure(name: str, num_kills: int, seed: int, folder: Path) -> Tally:
    """Run a variant uninterrupted, then kill it that many times."""
    begin = time.perf_counter()
    draws = random.Random(f"{seed} {name}")
    chains = (folder / f"chain-{number}" for number in count())
    whole = finished(Process(name, made(next(chains))).finish())
    tally = Tally(whole["num_steps"][0], max(whole["seconds"]))
    while tally.kills < num_kills:
        num_planned = min(draws.randint(*KILLS_PER_CHAIN), num_kills - tally.kills)
        chain = made(next(chains))
        tally.chains += 1
        before = len(tally.steps)
        try:
            end = finished(run_chain(name, chain, num_planned, draws, tally))
        except Failure as failure:
            tally.failed += 1
            tally.complaints.append(f"failed after kills at {tally.steps[before:]}: {failure}")
            continue
        differing = sorted({kind for a, b in zip(end["hashes"], whole["hashes"], strict=True) for kind in a
                            if a[kind] != b[kind]})  # fmt: skip
        tally.equal += not differing
        tally.different += bool(differing)
        if differing:
            tally.complaints.append(f"other {', '.join(differing)} after kills at {tally.steps[before:]}")
    tally.seconds = time.perf_counter() - begin
    return tally


def run_chain(name: str, folder: Path, num_kills: int, draws: random.Random, tally: Tally) -> list[dict[str, Any]]:
    """Kill up to that many processes, one after the other, and return what the one after them left.

    Raises:
        Failure: one that nobody killed failed.
    """
    directory = folder / "checkpoints"
    seen: set[str] = set()
    for planned in range(num_kills, 0, -1):
        found = bundle.find(directory)
        rest = tally.run_seconds * (REACH - (found[-1].step if found else 0) / tally.num_steps)
        process = Process(name, folder)
        # The first of so many moments that are uniform over the rest of the run.
        if not process.kill_after(rest * (1.0 - draws.random() ** (1.0 / planned))):
            return process.finish()
        # A fit that had ended clears nothing away, so that what an earlier kill left may still be there.
        leftovers = {path.name for path in leftovers_in(directory)}
        tally.kills += 1
        tally.within_removal += any("-step-" in leftover for leftover in leftovers - seen)
        tally.within_write += any("-step-" not in leftover for leftover in leftovers - seen)
        seen = leftovers
        found = bundle.find(directory)
        tally.steps.append(found[-1].step if found else 0)
    return Process(name, folder).finish()


def leftovers_in(directory: Path) -> Iterator[Path]:
    """Return what the killed left half-done."""
    return directory.glob(f"{TEMPORARY}*")


def finished(results: list[dict[str, Any]]) -> dict[str, list[Any]]:
    """Return the results of the ranks, by kind."""
    return {kind: [result[kind] for result in results] for kind in results[0]}


def made(folder: Path) -> Path:
    """Return the folder after making it."""
    folder.mkdir(parents=True)
    return folder


def row(name: str, tally: Tally) -> str:
    """Return a variant's line of the table."""
    return (f"{name:38} {tally.kills:5} {tally.within_write:8} {tally.within_removal:10} {tally.chains:6} "
            f"{tally.equal:5} {tally.different:9} {tally.failed:6} {tally.seconds:7.0f}")  # fmt: skip


def main() -> int:
    """Kill, compare, print and keep."""
    if sys.argv[1:2] == ["worker"]:
        work(*sys.argv[2:])
        return 0
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kills", type=int, default=NUM_KILLS, help="kills in all, spread over the variants")
    parser.add_argument("--seed", type=int, default=0, help="draws the moments of the kills")
    parser.add_argument("--variants", nargs="*", default=list(VARIANTS), choices=list(VARIANTS), metavar="VARIANT",
                        help="only these; nothing is kept then")  # fmt: skip
    arguments = parser.parse_args()

    shares = [len(part) for part in np.array_split(np.arange(arguments.kills), len(arguments.variants))]
    header = ("variant", "kills", "in write", "in removal", "chains", "equal", "different", "failed", "seconds")
    print("{:38} {:>5} {:>8} {:>10} {:>6} {:>5} {:>9} {:>6} {:>7}".format(*header), flush=True)
    tallies = {}
    for name, num_kills in zip(arguments.variants, shares, strict=True):
        with tempfile.TemporaryDirectory() as folder:
            tallies[name] = measure(name, num_kills, arguments.seed, Path(folder))
        print(row(name, tallies[name]), *tallies[name].complaints, sep="\n  ", flush=True)
    if arguments.variants == list(VARIANTS):
        settings = {"seed": arguments.seed, "every_steps": {name: VARIANTS[name].every_steps for name in VARIANTS}}
        record("kill_resume", {**settings, "variants": {name: asdict(tally) for name, tally in tallies.items()}})
    return int(any(tally.different or tally.failed for tally in tallies.values()))


if __name__ == "__main__":
    sys.exit(main())
