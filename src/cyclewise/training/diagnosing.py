"""``learn.diagnose()``: what stands in the way of this Learner's training."""

from collections.abc import Mapping, Sequence
from itertools import islice
from typing import Any

from torch import Tensor

from cyclewise._validation import whole
from cyclewise.copies import copied
from cyclewise.landscape import Diagnosis, diagnose
from cyclewise.landscape.positions import thinned
from cyclewise.state import preserve
from cyclewise.training.parts import Parts

# Numbers in a model whose start is remembered: more would cost memory that nobody asked to spend.
_MOST_REMEMBERED = 50_000_000
_MOST_POSITIONS = 16


class DiagnoseMethods(Parts):
    """What a Learner can be asked about the landscape it is in.

    Attributes:
        path: positions of the fits that were watched, in order, each the parameters by name, on the CPU.
    """

    path: Sequence[Mapping[str, Tensor]] = ()

    def diagnose(self, *, num_batches: int = 8, **options: Any) -> Diagnosis:
        """Measure what stands in the way of training from the present weights, and leave no trace.

        It looks at the first training batches, in train mode, with the Learner's optimizer, and at the way from where
        the first fit began (for models of up to 50 million numbers, and not after a resume), through the positions that
        a :class:`~cyclewise.Watch` has kept.

        Args:
            num_batches: training batches to measure on.
            options: keyword arguments of :func:`cyclewise.diagnose`, such as ``budget=400`` or ``start=``.

        Raises:
            ArgumentError: `num_batches` is not a whole number of at least 1.
        """
        num_batches = whole("num_batches", num_batches, minimum=1, way_out="8 is a good number")
        options.setdefault("optimizer", self.optimizer)
        options.setdefault("start", self.start)
        options.setdefault("path", self.path)
        step = self._step()
        with preserve(self.model, data=(self.own_data.train_loader,)):
            step.train_mode()
            batches = [copied(step.placed(batch)) for batch in islice(iter(self.own_data.train_loader), num_batches)]
            return diagnose(self.model, self.loss_fn, batches, **options)

    def remember_start(self) -> None:
        """Keep a copy of the weights that the first fit begins with."""
        is_small = sum(p.numel() for p in self.model.parameters()) <= _MOST_REMEMBERED
        if self.start is None and self.history.num_steps == 0 and is_small:
            state = self.model.state_dict()
            self.start = {k: v.detach().to("cpu", copy=True) for k, v in state.items() if isinstance(v, Tensor)}

    def remember_path(self, path: Sequence[Mapping[str, Tensor]]) -> None:
        """Keep the positions of a fit behind those of the fits before it, 16 in all."""
        self.path = thinned([*self.path, *path], _MOST_POSITIONS)
