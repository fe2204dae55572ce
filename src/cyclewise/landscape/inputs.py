"""What the first layers are fed with: a layer's curvature grows with the mean square of its inputs.

For a linear layer with inputs a and outputs z, the Hessian by its weights is the mean of ``H_z (x) a a'``, so features
of very different mean squares stretch the loss by their ratio, and a common factor on all inputs by its square (LeCun
et al., *Efficient BackProp*, 1998, section 4.3).
"""

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.conv import _ConvNd

from cyclewise.copies import copied
from cyclewise.landscape.costs import LOSS_COST
from cyclewise.landscape.measurements import Inputs
from cyclewise.landscape.objective import Objective
from cyclewise.landscape.parts import tensors_in
from cyclewise.landscape.transforms import is_stand_in
from cyclewise.ranks import gathered


def measure_inputs(objective: Objective) -> tuple[Inputs, ...]:
    """Return the mean squares of the features of each layer that a batch enters directly; costs a forward pass.

    A layer is a Linear, convolution or recurrence. The batch enters it directly where it is called with a tensor of the
    batch or a view of one, floating point; the first layer of all counts too, unless an embedding comes before it.

    Example:
        >>> inputs = torch.tensor([[1.0, 100.0], [-1.0, 100.0]])
        >>> objective = Objective(nn.Linear(2, 1), nn.functional.mse_loss, [(inputs, torch.zeros(2, 1))])
        >>> measure_inputs(objective)
        (Inputs(name='model', largest=10000.0, median=1.0, offset=1.0),)
    """
    sums = _Sums({id(module): name or "model" for name, module in objective.model.named_modules()})
    modules = [m for m in objective.model.modules() if isinstance(m, (nn.Linear, _ConvNd, nn.RNNBase, nn.RNNCellBase))]
    blinds = [m for m in objective.model.modules() if isinstance(m, (nn.Embedding, nn.EmbeddingBag))]
    handles = [m.register_forward_pre_hook(sums) for m in modules]
    handles += [m.register_forward_pre_hook(sums.close) for m in blinds]
    try:
        for index in range(objective.num_batches):
            batch = copied(objective.batches[index])
            sums.start({tensor.untyped_storage().data_ptr() for tensor in tensors_in(batch)})
            with objective.still(index), torch.no_grad():
                objective.batch_loss(index, batch=batch)
    finally:
        for handle in handles:
            handle.remove()
    objective.cost += LOSS_COST
    return sums.records()


class _Sums:
    """Sums over the batches, by layer; called as a forward pre-hook."""

    def __init__(self, names: dict[int, str]) -> None:
        self._names = names
        self._storages: set[int] = set()
        self._is_first = False
        self._sums: dict[str, tuple[Tensor, Tensor, int]] = {}

    def start(self, storages: set[int]) -> None:
        self._storages = storages
        self._is_first = True

    def close(self, module: nn.Module, arguments: Any) -> None:
        del module, arguments
        self._is_first = False

    def __call__(self, module: nn.Module, arguments: Any) -> None:
        inputs = arguments[0] if arguments and isinstance(arguments[0], Tensor) else None
        if inputs is None or not inputs.is_floating_point() or inputs.ndim < 2 or is_stand_in(inputs):
            return
        is_direct = inputs.untyped_storage().data_ptr() in self._storages
        if not (is_direct or self._is_first):
            return
        self._is_first = False
        axis = 1 if isinstance(module, _ConvNd) else inputs.ndim - 1
        features = inputs.detach().double().movedim(axis, 0).flatten(1)
        total, squares, count = self._sums.get(self._names[id(module)], (0.0, 0.0, 0))
        self._sums[self._names[id(module)]] = (
            total + features.sum(1),
            squares + features.square().sum(1),
            count + features.shape[1],
        )

    def records(self) -> tuple[Inputs, ...]:
        sums: dict[str, tuple[Tensor, Tensor, int]] = {}
        for of_rank in gathered({name: (a.cpu(), b.cpu(), n) for name, (a, b, n) in self._sums.items()}):
            for name, own in of_rank.items():
                before = sums.get(name)
                sums[name] = own if before is None else (before[0] + own[0], before[1] + own[1], before[2] + own[2])
        records = []
        for name, (total, squares, count) in sums.items():
            squares = squares / count
            top = int(squares.argmax())
            largest = float(squares[top])
            # Features that are always zero have no say; among the rest the median is a normal one.
            used = squares[squares > 0]
            offset = float(total[top] / count) ** 2 / largest if largest > 0 else 0.0
            records.append(Inputs(name, largest, float(used.median()) if len(used) else 0.0, min(offset, 1.0)))
        return tuple(records)
