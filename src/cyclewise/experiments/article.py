"""Running the article's experiments: on Fashion-MNIST, or small on scikit-learn's digits."""

import math
import os
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from pathlib import Path

import torch
from torch import Tensor

from cyclewise._validation import one_of, random_seed, whole
from cyclewise.comparison.comparing import num_workers
from cyclewise.comparison.crew import Crew
from cyclewise.comparison.runs import Job, Run, Runner
from cyclewise.comparison.store import Store
from cyclewise.engines import make_workers
from cyclewise.errors import ArgumentError, MissingExtraError
from cyclewise.experiments.experiment import Experiment
from cyclewise.experiments.fashion import fashion_folder, fashion_mnist, residual_network
from cyclewise.experiments.settings import EXPERIMENTS, FORMS, Setting, settings_of
from cyclewise.state import preserve, seed_everything
from cyclewise.training import Data, Learner, accuracy
from cyclewise.velocity import VelocitySGD

# The article's batches are not printed; 512 is usual for one-cycle at such rates.
BATCH_SIZE, SMALL_BATCH_SIZE = 512, 128
WIDTHS, SMALL_WIDTHS = (16, 32, 64), (16, 32)
WEIGHT_DECAY = 1e-4


def fashion_learner(
    seed: int, *, form: str = "torch", folder: str | None = None, num_images: int | None = None
) -> Learner:
    """Return an untrained Learner on Fashion-MNIST, validated on its test images; on the GPU where there is one.

    Args:
        seed: draws the weights and the order of the batches.
        form: of the momentum update, "torch" or "velocity".
        folder: of the IDX files; None: ``$CYCLEWISE_DATA``, or where Debian puts them.
        num_images: how many of the training images to use, and of the 10,000 test images at most; None: all.

    Raises:
        ArgumentError: the files are not there.
    """
    images = fashion_mnist(folder)
    return _learner(
        seed, form, WIDTHS, BATCH_SIZE,
        (images.train_inputs[:num_images], images.train_targets[:num_images]),
        (images.test_inputs[:num_images], images.test_targets[:num_images]),
    )  # fmt: skip


def small_learner(seed: int, *, form: str = "torch") -> Learner:
    """Return an untrained Learner on scikit-learn's 1,797 digits, a fifth of them held out.

    Args:
        seed: draws the weights and the order of the batches; the split is always the same.
        form: of the momentum update, "torch" or "velocity".

    Raises:
        MissingExtraError: scikit-learn is not installed.
    """
    try:
        from sklearn.datasets import load_digits
    except ImportError as error:
        raise MissingExtraError.for_extra("demo", "scikit-learn") from error
    images, labels = load_digits(return_X_y=True)
    inputs = torch.tensor(images / 8.0 - 1.0, dtype=torch.float32).reshape(-1, 1, 8, 8)
    targets = torch.tensor(labels)
    order = torch.randperm(len(targets), generator=torch.Generator().manual_seed(0))
    valid, train = order[:360], order[360:]
    held_out = (inputs[valid], targets[valid])
    return _learner(seed, form, SMALL_WIDTHS, SMALL_BATCH_SIZE, (inputs[train], targets[train]), held_out)


def run_experiments(
    numbers: Sequence[int] = EXPERIMENTS,
    *,
    small: bool = False,
    folder: str | os.PathLike[str] | None = None,
    num_images: int | None = None,
    seeds: Iterable[int] = (0,),
    engine: str = "processes",
    workers: int | None = None,
    store: str | os.PathLike[str] | None = None,
    on_run: Callable[[str], None] = lambda name: None,
) -> list[Experiment]:
    """Run some of the article's experiments; a run that two of them need is made once.

    Args:
        numbers: which, of 1, 2 and 3.
        small: on the digits instead of Fashion-MNIST.
        folder: as in :func:`fashion_learner`.
        num_images: as in :func:`fashion_learner`.
        seeds: one run of each setting per seed.
        engine: as in :func:`cyclewise.compare`.
        workers: as in :func:`cyclewise.compare`.
        store: a folder for finished runs; what is there is not run again.
        on_run: called with a line about each run that has ended.

    Raises:
        ArgumentError: an argument has an impossible value, or the data are not there.
    """
    for number in numbers:
        one_of("experiment", str(number), [str(known) for known in EXPERIMENTS])
    own_seeds = tuple(random_seed("seeds", seed) for seed in seeds)
    if num_images is not None:
        whole("images", num_images, minimum=BATCH_SIZE, way_out="leave it out for all")
    if small and folder is not None:
        raise ArgumentError(f"data must be left out with small, got {os.fspath(folder)!r}; small runs on the digits")
    count = num_workers(workers, engine)
    where = None if small else fashion_folder(folder)
    runs: dict[Setting, tuple[Run, ...]] = {}
    wanted = list(dict.fromkeys(setting for number in numbers for setting in settings_of(number)))
    for form in FORMS:
        make_learner = make_learner_of(form, small=small, folder=where, num_images=num_images)
        with preserve(), make_workers(Runner(make_learner, "accuracy"), engine=engine, workers=count) as hands:
            crew = Crew(hands, None if store is None else Store(store, make_learner), on_run)
            steps = num_steps_per_epoch(small=small, num_images=num_images, folder=where)
            jobs = {
                setting: [Job(seed, setting.policy(steps)) for seed in own_seeds]
                for setting in wanted
                if setting.form == form
            }
            made = crew.run({setting.name: of_setting for setting, of_setting in jobs.items()})
        runs |= {setting: tuple(made[setting.name]) for setting in jobs}
    described = _described(small=small, folder=where, num_images=num_images)
    return [
        Experiment(number, {setting: runs[setting] for setting in settings_of(number)}, own_seeds, described)
        for number in numbers
    ]


def num_runs(numbers: Sequence[int], num_seeds: int) -> int:
    """Return how many runs some experiments take together.

    >>> num_runs([1, 2, 3], 1), num_runs([1], 2)
    (16, 8)
    """
    return num_seeds * len({setting for number in numbers for setting in settings_of(number)})


def make_learner_of(
    form: str, *, small: bool, folder: Path | None = None, num_images: int | None = None
) -> Callable[[int], Learner]:
    """Return the function seed -> Learner of a form of the momentum update, as one that travels to workers."""
    if small:
        return partial(small_learner, form=form)
    return partial(fashion_learner, form=form, folder=None if folder is None else str(folder), num_images=num_images)


def num_steps_per_epoch(*, small: bool, num_images: int | None = None, folder: Path | None = None) -> int:
    """Return the updates per pass over the training images.

    >>> num_steps_per_epoch(small=True)
    12
    """
    if small:
        return math.ceil((1797 - 360) / SMALL_BATCH_SIZE)
    return math.ceil(_num_used(folder, num_images)[0] / BATCH_SIZE)


def _learner(
    seed: int,
    form: str,
    widths: tuple[int, ...],
    batch_size: int,
    train: tuple[Tensor, Tensor],
    valid: tuple[Tensor, Tensor],
) -> Learner:
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    loaders = [
        Data.from_arrays(inputs.to(device), targets.to(device), valid_fraction=0.0, batch_size=size, seed=seed)
        for (inputs, targets), size in ((train, batch_size), (valid, 1000))
    ]
    with preserve():
        seed_everything(seed)
        num_classes = int(train[1].max()) + 1
        # At half the resolution 28 x 28 pixels cost a quarter; a GPU would not need it, two cores do.
        stem_stride = 1 if train[0].shape[-1] < 16 else 2
        model = residual_network(widths, stem_stride=stem_stride, num_classes=num_classes).to(device)
    kind = VelocitySGD if form == "velocity" else torch.optim.SGD
    optimizer = kind(model.parameters(), lr=0.1, momentum=0.9, weight_decay=WEIGHT_DECAY)
    data = Data(loaders[0].train_loader, loaders[1].train_loader)
    return Learner(model, data, optimizer=optimizer, metrics={"accuracy": accuracy}, progress=False)


def _num_used(folder: Path | None, num_images: int | None) -> tuple[int, int]:
    """Return how many training and test images are used."""
    images = fashion_mnist(folder)
    return len(images.train_targets[:num_images]), len(images.test_targets[:num_images])


def _described(*, small: bool, folder: Path | None, num_images: int | None) -> dict[str, str]:
    widths = SMALL_WIDTHS if small else WIDTHS
    num_parameters = sum(parameter.numel() for parameter in residual_network(widths).parameters())
    if small:
        data = "scikit-learn's digits (8 x 8 pixels), 1,437 to train on, 360 held out"
    else:
        num_train, num_test = _num_used(folder, num_images)
        data = f"Fashion-MNIST in {folder}, {num_train:,} training images, validated on {num_test:,} test images"
    return {
        "data": data,
        "network": f"residual, blocks of {', '.join(map(str, widths))} channels, {num_parameters:,} parameters",
        "optimizer": f"SGD in both forms of the momentum update, weight decay {WEIGHT_DECAY:g}, "
        f"batches of {SMALL_BATCH_SIZE if small else BATCH_SIZE}",
        "device": "GPU" if torch.cuda.is_available() else "CPU",
    }
