"""The points of a run at which all of it belongs to the same step, and the way back to the last one.

Between two of them everything is in motion: batches are drawn, buffers and generators move, then optimizer, policy,
records and callbacks follow one after the other. What is saved there could not be gone on from.
"""

import operator
import random
from typing import Any

import numpy as np
import torch
from torch import Tensor

from cyclewise.stepping import Step
from cyclewise.training.generators import generator_state, plain, set_generator_state, unplain
from cyclewise.training.place import Place


class Boundary:
    """The last boundary of a run: :meth:`reach` it, :meth:`leave` it, :meth:`go_back` to it.

    The way back is open while only random numbers are drawn, batches are read, and forward and backward passes run.
    torch's generators are noted at every boundary, Python's and NumPy's only at the first of each pass: their states
    cost a tenth of a small step. Where something has drawn from them since, there is no way back.

    Args:
        step: makes the updates, and says when it has begun one.
        place: where the run is in its data.
        is_marked: note what it takes to go back; without that, a boundary that was left is lost.
    """

    def __init__(self, step: Step, place: Place, *, is_marked: bool) -> None:
        self._step = step
        self._place = place
        self._buffers = list(step.model.buffers())
        is_dense = all(buffer.layout is torch.strided for buffer in self._buffers)
        self._is_marked = is_marked and place.can_go_back and is_dense
        self._copies = [buffer.clone() for buffer in self._buffers] if self._is_marked else []
        self._is_here, self._is_lost = False, True
        self._position: tuple[Any, ...] = ()
        self._torchs = [generator for generator in place.generators if isinstance(generator, torch.Generator)]
        self._others = [generator for generator in place.generators if not isinstance(generator, torch.Generator)]
        self._torch_states: list[Tensor] = []
        self._other_states: list[Any] = []
        self._pass_of_others = -1
        self._are_others_marked = False

    def reach(self) -> None:
        """Note that model, optimizer, policy, records and callbacks belong to the same step."""
        if self._is_marked:
            self._mark()
        self._step.is_updating = False
        self._is_here, self._is_lost = True, False

    def leave(self, *, for_good: bool = False) -> None:
        """Note that something begins to move; `for_good` where more does than go_back() puts back."""
        self._is_lost = for_good or not self._is_marked
        self._is_here = False

    def go_back(self) -> bool:
        """Go back to the last boundary; return whether the run is at one, and may be saved."""
        if self._is_here:
            return True
        if self._is_lost or self._step.is_updating:
            return False
        buffers = list(self._step.model.buffers())
        if len(buffers) != len(self._buffers) or any(map(operator.is_not, buffers, self._buffers)):
            return False  # those that the model has now were not copied
        if not self._are_others_marked and self._states_of_others() != self._other_states:
            return False
        with torch.no_grad():
            for buffer, its_copy in zip(buffers, self._copies, strict=True):
                buffer.copy_(its_copy)
        self._set_states()
        self._place.go_to(self._position)
        self._is_here = True
        return True

    def _mark(self) -> None:
        if self._copies:
            torch._foreach_copy_(self._copies, self._buffers)
        self._position = self._place.position()
        self._torch_states = [generator.get_state() for generator in self._torchs]
        self._torch_states.append(torch.get_rng_state())
        if self._step.device.type == "cuda":
            self._torch_states.append(torch.cuda.get_rng_state(self._step.device))
        self._are_others_marked = self._pass_of_others != self._place.num_passes or not self._place.is_within
        if self._are_others_marked:
            self._other_states, self._pass_of_others = self._states_of_others(), self._place.num_passes

    def _states_of_others(self) -> list[Any]:
        own = [generator_state(generator) for generator in self._others]
        return [random.getstate(), plain(np.random.get_state(legacy=False)), *own]

    def _set_states(self) -> None:
        python_state, numpy_state, *own = self._other_states
        random.setstate(python_state)
        np.random.set_state(unplain(numpy_state))
        for generator, state in zip(self._others, own, strict=True):
            set_generator_state(generator, state)
        *own, torch_state = self._torch_states[: len(self._torchs) + 1]
        torch.set_rng_state(torch_state)
        for generator, state in zip(self._torchs, own, strict=True):
            set_generator_state(generator, state)
        for state in self._torch_states[len(self._torchs) + 1 :]:
            torch.cuda.set_rng_state(state, self._step.device)
