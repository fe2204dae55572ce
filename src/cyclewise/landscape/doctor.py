"""The doctor's door: measure the landscape around the present point, say what stands in the way, leave no trace."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import nn
from torch.optim import Optimizer

from cyclewise._validation import describe, instance, random_seed, whole
from cyclewise.errors import ArgumentTypeError
from cyclewise.landscape.diagnosis import Diagnosis
from cyclewise.loaders import check_loader
from cyclewise.state import preserve
from cyclewise.stepping import LossFunction

_FEWEST_EVALUATIONS = 10


def diagnose(
    model: nn.Module,
    loss_fn: LossFunction | None,
    batches: Any,
    *,
    optimizer: Optimizer | None = None,
    start: Any = None,
    path: Sequence[Any] | None = None,
    seed: int = 0,
    budget: int = 200,
) -> Diagnosis:
    """Measure what stands in the way of training at the present point, with evidence and remedies.

    Everything passed in is given back bit for bit, however the call ends: weights, buffers, gradients, optimizer state,
    modes, and the random number generators. Exceptions of your own code pass through unchanged. The model is measured
    in the mode it is in, with batch norm's statistics frozen and dropout's masks fixed.

    Args:
        model: the model, where it is now; parameters that require a gradient are what is measured.
        loss_fn: ``loss_fn(outputs, targets) -> scalar tensor``; None takes ``output.loss`` for dict batches.
        batches: a list of batches or a loader. One batch is enough; several say more about the noise. Gradient and
            Hessian are those of the mean loss over them.
        optimizer: the optimizer in use; without it there is no stability limit, and its own step is not tried.
        start: where training began: a model, or a state dict; then the way from there is looked at too.
        path: where training was in between, in order: models, state dicts, or lists of parameters. The slice of the
            landscape then lies in the plane that shows most of the way, and the way is drawn in it.
            :class:`cyclewise.Watch` keeps some positions.
        seed: of dropout's masks and of the random directions; same seed, machine and thread count: same bits.
        budget: gradient evaluations to spend at most, at least 10; one is forward and backward over all batches.

    Returns:
        the record; ``findings`` holds what stands in the way, the most severe first.

    Raises:
        ArgumentTypeError: an argument is of a kind that cannot work, or `batches` can be read only once.
        ArgumentError: an argument has a value that cannot work.

    Example:
        >>> import torch
        >>> _ = torch.manual_seed(0)
        >>> model = nn.Linear(4, 1)
        >>> inputs = torch.randn(64, 4)
        >>> batch = inputs, inputs.sum(1, keepdim=True)
        >>> optimizer = torch.optim.SGD(model.parameters(), lr=30.0)
        >>> diagnosis = diagnose(model, nn.functional.mse_loss, [batch], optimizer=optimizer)
        >>> diagnosis.findings[0].kind, diagnosis.stability_limit < 30.0
        ('unstable_step', True)
    """
    # Imported here, so that importing cyclewise does not bring in all that measures.
    from cyclewise.landscape.examination import Examination
    from cyclewise.landscape.objective import Objective
    from cyclewise.landscape.rules import judge

    instance("model", model, nn.Module, "a torch.nn.Module", way_out="pass the model that is to be measured")
    check_loader(batches, name="batches")
    if optimizer is not None:
        instance("optimizer", optimizer, Optimizer, "a torch.optim.Optimizer", way_out="leave it out, or pass yours")
    random_seed("seed", seed)
    whole("budget", budget, minimum=_FEWEST_EVALUATIONS, way_out="200 is a good number")
    if path is not None and not isinstance(path, Sequence):
        raise ArgumentTypeError(
            f"path must be a list of positions, got {describe(path)}; "
            "gather them during training: path.append(copy.deepcopy(model.state_dict()))"
        )
    # Derivatives are taken whatever the mode of the caller, which may be one for evaluating.
    with (
        torch.inference_mode(False),
        torch.enable_grad(),
        preserve(model, optimizer, loss_fn, start, path, data=(batches,)),
    ):
        objective = Objective(model, loss_fn, batches, seed=int(seed))
        examination = Examination(objective, optimizer, seed=int(seed), budget=float(budget))
        examination.run(start, path or ())
    diagnosis = Diagnosis(
        **examination.values,
        unavailable=examination.unavailable,
        details=examination.details,
        spent=objective.cost,
        settings={
            "optimizer": None if optimizer is None else type(optimizer).__name__,
            "num_batches": objective.num_all_batches,
            "seed": int(seed),
            "budget": int(budget),
            "spent_on": dict(examination.spent_on),
        },
    )
    return diagnosis.with_findings(judge(diagnosis))
