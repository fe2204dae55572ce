"""The cyclical rates of Smith, drawn from the policies: triangular, triangular2 and exp_range."""

import cyclewise as cw
from cyclewise.drawing import Chart, Line

POLICIES = {
    mode: cw.Cyclical(base_lr=0.01, max_lr=0.09, step_size_up=100, mode=mode, gamma=gamma, total_steps=801)
    for mode, gamma in (("triangular", 1.0), ("triangular2", 1.0), ("exp_range", 0.997))
}


def peaks(mode: str) -> list[float]:
    """Return the highest rate of each of the four cycles."""
    return [POLICIES[mode].lr(step) for step in (100, 300, 500, 700)]


def charts() -> list[Chart]:
    """Describe the picture."""
    steps = list(range(801))
    return [
        Chart(mode, "step (optimizer updates)", "learning rate", [Line("rate", steps, policy.lr(steps).tolist())],
              y_limits=(0.0, 0.095))
        for mode, policy in POLICIES.items()
    ]  # fmt: skip


def caption() -> str:
    """Say what the picture shows."""
    texts = {mode: ", ".join(f"{peak:.3f}" for peak in peaks(mode)) for mode in POLICIES}
    return (
        f"Four cycles of 200 steps between 0.01 and 0.09. Peaks: {texts['triangular']} (triangular); "
        f"{texts['triangular2']} (triangular2); {texts['exp_range']} (exp_range, gamma 0.997)."
    )
