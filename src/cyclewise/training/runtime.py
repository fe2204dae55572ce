"""Where a run takes place: one process in full precision as it is, everything else by way of Accelerate.

Accelerate brings the processes together, says what runs where and in which precision, shards loaders and keeps the
trackers. The update itself stays this library's own step, so one process with an Accelerator in full precision gives
the bits of one without.
"""

import os
from typing import Any

import torch
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from cyclewise._validation import describe, one_of
from cyclewise.errors import ArgumentError, ArgumentTypeError
from cyclewise.stepping import device_of
from cyclewise.training.data import ArrayLoader
from cyclewise.training.sharding import EveryNth

_DTYPES = {"no": None, "bf16": torch.bfloat16, "fp16": torch.float16}
_KINDS = ("NO", "MULTI_CPU", "MULTI_GPU")


class Runtime:
    """The processes, the device and the precision of a run.

    Args:
        accelerator: an ``accelerate.Accelerator``, or None: one is made where several processes were started together
            (``torchrun``, ``accelerate launch``) or a mixed precision is asked for, else there is none.
        mixed_precision: "no", "bf16" or "fp16"; None takes what the accelerator or ``accelerate launch`` says.

    Attributes:
        accelerator: the accelerator, or None.
        rank: number of this process, from 0.
        num_ranks: number of processes.
        autocast_dtype: what forward and loss run in, None in full precision.
        scaler: the gradient scaler of float16, or None.
        accumulation_steps: batches per update that the accelerator asks for.
    """

    def __init__(self, accelerator: Any = None, mixed_precision: str | None = None) -> None:
        if mixed_precision is not None:
            one_of("mixed_precision", mixed_precision, tuple(_DTYPES))
        precision = mixed_precision or os.environ.get("ACCELERATE_MIXED_PRECISION", "no").lower()
        if accelerator is not None:
            _check(accelerator, mixed_precision)
            precision = str(accelerator.mixed_precision)
        elif _num_started() > 1 or precision != "no":
            accelerator = _make_accelerator(mixed_precision)
        self.accelerator = accelerator
        self.rank = 0 if accelerator is None else int(accelerator.process_index)
        self.num_ranks = 1 if accelerator is None else int(accelerator.num_processes)
        if precision not in _DTYPES:
            raise ArgumentError(
                f'accelerator must have a mixed_precision of "no", "bf16" or "fp16", got {precision!r}; '
                'make it with mixed_precision="bf16"'
            )
        self.autocast_dtype = _DTYPES[precision]
        self.scaler = _scaler(accelerator, precision)
        self.accumulation_steps = 1 if accelerator is None else int(accelerator.gradient_accumulation_steps)

    @property
    def is_main(self) -> bool:
        """Whether this process is the one that writes and prints."""
        return self.rank == 0

    def place(self, model: nn.Module) -> None:
        """Move the model to the accelerator's device; without one it stays where it is.

        Raises:
            ArgumentError: its parameters lie on several devices, or on the "meta" device.
        """
        devices = {str(parameter.device) for parameter in model.parameters()}
        if self.accelerator is not None and "meta" not in devices:
            model.to(self.accelerator.device)
            return
        if len(devices) > 1:
            raise ArgumentError(
                f"model must have all its parameters on one device, got {sorted(devices)}; "
                "move it with model.to(device)"
            )
        if "meta" in devices:
            raise ArgumentError(
                "model must have parameters with values, got them on the device 'meta', which has none; "
                "call model.to_empty(device=...) and load weights, then make the Learner"
            )

    def wrap(self, model: nn.Module) -> nn.Module:
        """Return what the training forward goes through: the model, in DistributedDataParallel where ranks train."""
        trains = any(parameter.requires_grad for parameter in model.parameters())
        if self.num_ranks == 1 or not trains or isinstance(model, DistributedDataParallel):
            return model
        handler = getattr(self.accelerator, "ddp_handler", None)
        options = {} if handler is None else handler.to_kwargs()
        device = device_of(model)
        return DistributedDataParallel(model, device_ids=None if device.type == "cpu" else [device], **options)

    def shard(self, loader: Any, *, is_even: bool) -> Any:
        """Return this rank's share of the batches: batch i of a round of `num_ranks` goes to rank i.

        An :class:`ArrayLoader` is not touched: what goes through its arrays here counts its own passes, so that two
        Learners of one Data see the same batches in the same order.

        Args:
            loader: the loader of all ranks; one that Accelerate has prepared is left as it is.
            is_even: fill the last round up with samples from the beginning, so that all ranks have as many batches.
        """
        if self.num_ranks == 1 or loader is None:
            return loader.view() if isinstance(loader, ArrayLoader) else loader
        from accelerate.data_loader import DataLoaderDispatcher, DataLoaderShard, prepare_data_loader
        from torch.utils.data import DataLoader, DistributedSampler

        if isinstance(loader, (DataLoaderShard, DataLoaderDispatcher)):
            return loader
        if isinstance(loader, ArrayLoader):
            return loader.shard(self.rank, self.num_ranks, is_even=is_even)
        if isinstance(loader, DataLoader):
            if isinstance(loader.sampler, DistributedSampler):
                return loader
            return prepare_data_loader(
                loader, num_processes=self.num_ranks, process_index=self.rank, put_on_device=False,
                rng_types=["generator"], even_batches=is_even,
            )  # fmt: skip
        return EveryNth(loader, self.rank, self.num_ranks, is_even=is_even)

    def gather(self, value: Any) -> list[Any]:
        """Return the values of all ranks, on every rank."""
        if self.num_ranks == 1:
            return [value]
        values: list[Any] = [None] * self.num_ranks
        torch.distributed.all_gather_object(values, value)
        return values

    def sum(self, values: list[float]) -> list[float]:
        """Return the sums over all ranks."""
        if self.num_ranks == 1:
            return values
        return [sum(parts) for parts in zip(*self.gather(values), strict=True)]


def _make_accelerator(mixed_precision: str | None) -> Any:
    from accelerate import Accelerator
    from accelerate.state import is_initialized

    # Its precision is one for the whole process, and another one an error. Where an earlier Learner, or the script, has
    # set it, this Accelerator has the same; what is trained in is this library's own autocast and scaler.
    wanted = None if is_initialized() else mixed_precision
    # Without an accelerator in the machine, Accelerate brings the processes together only if told so.
    return Accelerator(mixed_precision=wanted, cpu=not torch.accelerator.is_available())


def _scaler(accelerator: Any, precision: str) -> Any:
    if accelerator is None or precision == str(accelerator.mixed_precision):
        return None if accelerator is None else accelerator.scaler
    # As Accelerate makes it: float16 on a processor is not scaled.
    is_scaled = precision == "fp16" and accelerator.device.type != "cpu"
    return torch.amp.GradScaler(accelerator.device.type) if is_scaled else None


def _num_started() -> int:
    return int(os.environ.get("WORLD_SIZE", "1"))


def _check(accelerator: Any, mixed_precision: str | None) -> None:
    if not hasattr(accelerator, "gradient_accumulation_steps") or not hasattr(accelerator, "distributed_type"):
        raise ArgumentTypeError(
            f"accelerator must be an accelerate.Accelerator, got {describe(accelerator)}; leave it out for a plain run"
        )
    kind = getattr(accelerator.distributed_type, "name", str(accelerator.distributed_type))
    if kind not in _KINDS:
        raise ArgumentError(
            f"accelerator must run on one device or on DistributedDataParallel, got {kind}; "
            "drive a loop of your own with PolicyLR there"
        )
    if accelerator.num_processes == 1 and _num_started() > 1:
        raise ArgumentError(
            f"accelerator must bring the {_num_started()} processes together, got one that sees 1; make it with "
            "Accelerator(cpu=True), or leave it out"
        )
    if mixed_precision is not None and mixed_precision != str(accelerator.mixed_precision):
        raise ArgumentError(
            f"mixed_precision must be left out, or be that of the accelerator ({accelerator.mixed_precision}), "
            f"got {mixed_precision!r}; set it in the Accelerator"
        )
