"""``learn.search_start()``: a better starting point for this Learner's model, by short runs on its own data."""

import inspect
from dataclasses import dataclass
from itertools import islice
from typing import Any

from torch import nn
from torch.optim import Optimizer

from cyclewise._validation import whole
from cyclewise.copies import copied
from cyclewise.errors import SuggestionError
from cyclewise.range_test import lr_find_by_step
from cyclewise.start import LayerGains, Space, StartSearch, search_start, short_run
from cyclewise.state import preserve
from cyclewise.training.parts import Parts

_MOST_VALID_BATCHES = 32


class StartMethods(Parts):
    """Where a Learner's training may begin."""

    def search_start(
        self,
        space: Space | None = None,
        *,
        budget: int = 60,
        num_steps: int = 50,
        max_lr: float | None = None,
        **options: Any,
    ) -> StartSearch:
        """Search a better start by short one-cycle runs with the Learner's optimizer, and leave no trace.

        Held-out batches decide: every other one during the search, the rest at the end, for the starts that are
        compared (``validate``), where there are two or more. Without validation data training batches decide.

        Args:
            space: what may vary; None: one factor for each weight matrix, :class:`~cyclewise.LayerGains`.
            budget: short runs to make.
            num_steps: steps of each.
            max_lr: their peak; None takes the last ``lr_find``, or makes one for runs of this length,
                which is not kept.
            options: keyword arguments of :func:`cyclewise.search_start`, such as ``algorithm="CMA"``.

        Returns:
            The record; ``found.apply_to(learn.model)`` sets the start.

        Raises:
            SuggestionError: no rate was given, and a range test finds none at the untouched start.
            ArgumentError: an argument has a value that cannot work.

        >>> import torch, cyclewise as cw
        >>> _ = torch.manual_seed(0)
        >>> inputs = torch.randn(200, 4)
        >>> data = cw.Data.from_arrays(inputs, inputs[:, 0] + 3, batch_size=20)
        >>> model = torch.nn.Sequential(torch.nn.Linear(4, 1), torch.nn.Flatten(0))
        >>> learn = cw.Learner(model, data, loss_fn=torch.nn.functional.mse_loss)
        >>> found = learn.search_start(budget=10, num_steps=5, max_lr=0.01)
        >>> found.best_loss <= found.baseline_loss, found.num_evaluations
        (True, 10)
        """
        steps = whole("num_steps", num_steps, minimum=1, way_out="pass the steps of a short run, for example 50")
        rate = self._peak(steps) if max_lr is None else max_lr
        train, valid = self._batches_for_search(steps)
        optimizer = SameOptimizer.of(self.optimizer, self.model)

        def objective(batches: list[Any]) -> Any:
            return short_run(self.loss_fn, train, batches, max_lr=rate, num_steps=steps, optimizer=optimizer,
                             num_valid_batches=len(batches))  # fmt: skip

        if len(valid) > 1:
            options.setdefault("validate", objective(valid[1::2]))
        return search_start(
            LayerGains(self.model) if space is None else space, objective(valid[::2]), budget=budget, **options
        )

    def _peak(self, num_steps: int) -> float:
        test = self.range_test
        if test is None or test.max_lr is None:
            test = lr_find_by_step(
                self._step(), self.own_data.train_loader, total_steps=num_steps, progress=self.progress
            )
        if test.max_lr is None:
            reason = "" if test.refusal is None else f": {test.refusal.value}"
            raise SuggestionError(
                f"max_lr must be given, for a range test finds no rate at the untouched start{reason}; "
                "pass max_lr=, for example the rate that a healthy start would have"
            )
        return test.max_lr

    def _batches_for_search(self, num_steps: int) -> tuple[list[Any], list[Any]]:
        data = self.own_data
        with preserve(data=(data.train_loader, data.valid_loader)):
            # Copies: a loader may fill one buffer again and again.
            train = [copied(batch) for batch in islice(iter(data.train_loader), num_steps)]
            if data.valid_loader is None:
                return train, train
            valid = [copied(batch) for batch in islice(iter(data.valid_loader), _MOST_VALID_BATCHES)]
        return train, valid


@dataclass(frozen=True)
class SameOptimizer:
    """Makes an optimizer with the settings of another one, for the parameters of another model.

    Attributes:
        kind: its class.
        defaults: its settings.
        groups: for each group the places of its parameters among those that are trained, and its own settings.
    """

    kind: type[Optimizer]
    defaults: dict[str, Any]
    groups: tuple[tuple[tuple[int, ...], dict[str, Any]], ...]

    @classmethod
    def of(cls, optimizer: Optimizer, model: nn.Module) -> "SameOptimizer":
        """Return the factory for `optimizer` over the parameters of `model`."""
        places = {id(p): place for place, p in enumerate(p for p in model.parameters() if p.requires_grad)}
        # Some classes keep more among their settings than their constructor takes.
        settings = {name: value for name, value in optimizer.defaults.items() if name in _arguments(type(optimizer))}
        groups = tuple(
            (
                tuple(places[id(p)] for p in group["params"] if p.requires_grad),
                {name: value for name, value in group.items() if name in settings},
            )
            for group in optimizer.param_groups
        )
        return cls(type(optimizer), settings, groups)

    def __call__(self, parameters: Any) -> Optimizer:
        """Return the optimizer over `parameters`, the trained ones of a model in its order."""
        listed = list(parameters)
        groups = [{"params": [listed[place] for place in places], **own} for places, own in self.groups if places]
        return self.kind(groups, **self.defaults)


def _arguments(kind: type[Optimizer]) -> set[str]:
    return set(inspect.signature(kind.__init__).parameters)
