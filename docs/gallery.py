"""Make the gallery page and its pictures from the code that they show: `make docs`."""

import re
from pathlib import Path

import cyclewise as cw
from cyclewise.policies import Policy

HERE = Path(__file__).parent
PAGE = HERE / "gallery.md"
PICTURES = HERE / "pictures" / "gallery"

ENTRIES = [
    ("OneCycle", "up, then far down; the momentum against it",
     "cw.OneCycle(max_lr=0.4, total_steps=1000, base_momentum=0.85, max_momentum=0.95)"),
    ("OneCycle, linear", "the same in straight lines", 'cw.OneCycle(max_lr=0.4, total_steps=1000, anneal="linear")'),
    ("ThreePhaseOneCycle", "Smith's original: up, back down as far, then annihilate",
     "cw.ThreePhaseOneCycle(max_lr=0.4, total_steps=1000, base_momentum=0.85, max_momentum=0.95)"),
    ("Cyclical, triangular", "up and down between two bounds",
     "cw.Cyclical(base_lr=0.001, max_lr=0.006, step_size_up=100, total_steps=1000)"),
    ("Cyclical, triangular2", "the amplitude halves every cycle",
     'cw.Cyclical(base_lr=0.001, max_lr=0.006, step_size_up=100, mode="triangular2", total_steps=1000)'),
    ("Cyclical, exp_range", "the amplitude shrinks at every step",
     'cw.Cyclical(base_lr=0.001, max_lr=0.006, step_size_up=100, mode="exp_range", gamma=0.997, total_steps=1000)'),
    ("SGDR", "cosine annealing with warm restarts, the cycles growing",
     "cw.SGDR(max_lr=0.1, T_0=100, T_mult=2, num_cycles=3)"),
    ("SGDR, decaying peaks", "fractional growth, lower peaks",
     "cw.SGDR(max_lr=0.1, T_0=100, T_mult=1.5, num_cycles=4, peak_decay=0.6)"),
    ("Cosine", "half a cosine down, without restarts", "cw.Cosine(max_lr=0.1, total_steps=1000)"),
    ("FlatCosine", "hold, then half a cosine down", "cw.FlatCosine(max_lr=0.1, total_steps=1000)"),
    ("WarmupStableDecay", "up, hold, down; the length may be decided late",
     "cw.WarmupStableDecay(max_lr=0.1, warmup_steps=100, decay_steps=200, total_steps=1000)"),
    ("InverseSqrt", "a warm-up, then the square root of the step",
     "cw.InverseSqrt(max_lr=0.1, warmup_steps=100, total_steps=1000)"),
    ("Linear", "a straight line", "cw.Linear(start_lr=0.1, end_lr=0.0, total_steps=1000)"),
    ("Polynomial", "a power of what is left", "cw.Polynomial(max_lr=0.1, power=2, total_steps=1000)"),
    ("Exponential", "the same factor at every step",
     "cw.Exponential(start_lr=0.1, end_lr=0.0001, total_steps=1000)"),
    ("MultiStep", "step decay", "cw.MultiStep(max_lr=0.1, milestones=[500, 750], total_steps=1000)"),
    ("Constant", "one rate throughout", "cw.Constant(lr=0.1, total_steps=1000)"),
    ("Join", "one after another",
     "cw.Join([cw.Linear(start_lr=0.0, end_lr=0.1, total_steps=200), cw.Cosine(max_lr=0.1, total_steps=800)])"),
    ("extend", "more steps, decided at step 400, continuous at the joint",
     "cw.OneCycle(max_lr=0.4, total_steps=1000).extend(total_steps=1500, at_step=400)"),
    ("Together", "the weight decay by a policy of its own",
     "cw.Together(rate=cw.Cosine(max_lr=0.1, total_steps=1000), "
     "decays=cw.Linear(start_lr=0.0, end_lr=0.05, total_steps=1000))"),
    ("Rescaled", "half the rate from a step on, as after a rollback",
     "cw.Rescaled(original=cw.OneCycle(max_lr=0.4, total_steps=1000), factor=0.5, at_step=250)"),
]  # fmt: skip


def policy_of(code: str) -> Policy:
    """Return the policy that a line of the page makes."""
    policy = eval(code, {"cw": cw})
    assert isinstance(policy, Policy)
    return policy


def picture_of(title: str) -> str:
    """Return the file name of an entry's picture."""
    return re.sub(r"[^a-z0-9]+", "-", title.lower()).strip("-") + ".png"


def page() -> str:
    """Return the page's text."""
    parts = [
        "# Every policy, with the code that made it\n",
        "Made by `make docs`. A policy is a value; `policy.plot()` draws it, and on the command line\n"
        "`cyclewise policy one-cycle --max-lr 0.4 --total-steps 1000` does. Which one to take:\n"
        "[how to choose a policy](choosing-a-policy.md).\n",
    ]
    for title, summary, code in ENTRIES:
        parts.append(
            f"## {title}\n\n{summary[0].upper()}{summary[1:]}.\n\n```python\n{code}\n```\n\n"
            f"![{title}: {summary}](pictures/gallery/{picture_of(title)})\n"
        )
    return "\n".join(parts)


def main() -> None:
    """Write the page and the pictures."""
    PICTURES.mkdir(parents=True, exist_ok=True)
    for title, _, code in ENTRIES:
        policy_of(code).plot().savefig(PICTURES / picture_of(title), dpi=70, metadata={"Software": None})
    PAGE.write_text(page())


if __name__ == "__main__":
    main()
