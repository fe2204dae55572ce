"""A table of a model: its layers, their parameters, and what is trained at which rate."""

from torch import nn
from torch.optim import Optimizer


def summarise(model: nn.Module, optimizer: Optimizer) -> str:
    """Return a table with a line for each layer that has parameters of its own.

    Example:
        >>> import torch
        >>> model = nn.Sequential(nn.Linear(3, 2), nn.ReLU(), nn.Linear(2, 1))
        >>> print(summarise(model, torch.optim.SGD(model.parameters(), lr=0.1)))
        layer  kind     shape of parameters  parameters  trained  group  rate
        0      Linear   2x3, 2                        8  yes          0  0.1
        2      Linear   1x2, 1                        3  yes          0  0.1
        11 parameters, 11 trained, 1 layer group; SGD
    """
    group_of = {
        id(parameter): number
        for number, group in enumerate(optimizer.param_groups)
        for parameter in group["params"]
    }  # fmt: skip
    rows = [["layer", "kind", "shape of parameters", "parameters", "trained", "group", "rate"]]
    seen: set[int] = set()
    total = trained = 0
    for name, module in model.named_modules():
        own = [parameter for parameter in module.parameters(recurse=False) if id(parameter) not in seen]
        if not own:
            continue
        seen |= {id(parameter) for parameter in own}
        size = sum(parameter.numel() for parameter in own)
        size_trained = sum(p.numel() for p in own if p.requires_grad and id(p) in group_of)
        total, trained = total + size, trained + size_trained
        group = group_of.get(id(own[0]))
        rows.append(
            [
                name or "(model)",
                type(module).__name__,
                ", ".join("x".join(map(str, parameter.shape)) for parameter in own),
                f"{size:,}",
                "yes" if size_trained == size else "no" if not size_trained else "partly",
                "none" if group is None else str(group),
                "" if group is None else f"{float(optimizer.param_groups[group]['lr']):.4g}",
            ]
        )
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    numeric = {3, 5}
    lines = [
        "  ".join(cell.rjust(width) if i in numeric else cell.ljust(width)
                  for i, (cell, width) in enumerate(zip(row, widths, strict=True))).rstrip()
        for row in rows
    ]  # fmt: skip
    num_groups = len(optimizer.param_groups)
    lines.append(
        f"{total:,} parameters, {trained:,} trained, {num_groups} layer group{'' if num_groups == 1 else 's'}; "
        f"{type(optimizer).__name__}"
    )
    return "\n".join(lines)
