"""Does `diagnose` name what was planted, and does it leave healthy runs alone? Prints the confusion table.

    python -m benchmarks.diagnosis.run development|test [--workers 2] [--keep FILE] [--judge-again FILE]

The rules were made on the development half alone; a look at the test half is written down in looks.jsonl. With
``--keep`` the whole records are stored, and a run that was cut off goes on behind those in the file; ``--judge-again``
puts the rules of today to the stored numbers.
"""

import argparse
import json
import time
import traceback
import warnings
from collections import Counter
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import torch

import cyclewise as cw
from benchmarks.diagnosis.cases import INFORMATION, RIGHT, cases
from benchmarks.diagnosis.healthy import runs
from benchmarks.lr_regret.refusals import bounds
from benchmarks.recording import environment, record
from cyclewise.landscape.rules import judge

LOOKS = Path(__file__).with_name("looks.jsonl")


@dataclass(frozen=True)
class Answer:
    """What was said of one case.

    Attributes:
        group: the trouble, or "healthy".
        name: variant and seed, or task, policy, stage and seed.
        record: the diagnosis as JSON values; None where it raised.
        error: the last lines of its traceback.
        seconds: wall-clock time of the diagnosis.
    """

    group: str
    name: str
    record: dict[str, Any] | None
    error: str | None
    seconds: float

    @property
    def findings(self) -> list[tuple[str, str]]:
        """Kinds and severities, the first finding first."""
        return [] if self.record is None else [(f["kind"], f["severity"]) for f in self.record["findings"]]

    @property
    def first(self) -> str:
        """The kind of the first finding; of the first that is more than information where the trouble is."""
        counts = ("warning", "severe", "info")[: 3 if self.group in INFORMATION else 2]
        return next((kind for kind, severity in self.findings if severity in counts), "none")

    @property
    def severe(self) -> list[str]:
        """Kinds of the severe findings."""
        return [kind for kind, severity in self.findings if severity == "severe"]


def answer(job: tuple[str, str, int, Path | None]) -> Answer:
    """Build one case and diagnose it."""
    half, kind, index, cache = job
    torch.set_num_threads(1)
    if kind == "trouble":
        case = cases(half)[index]
        group, name = case.trouble, f"{case.variant} / {case.seed}"
        subject = case.build(case.seed)
        seed = case.seed
    else:
        run = runs(half)[index]
        group, name = "healthy", f"{run.task} / {run.policy} / {run.stage} / {run.seed}"
        subject = run.build(cache)
        seed = run.seed
    start = time.perf_counter()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            found = cw.diagnose(
                subject.model, subject.loss_fn, subject.batches, optimizer=subject.optimizer, start=subject.start,
                seed=seed,
            )  # fmt: skip
        values, error = found.to_dict(), None
    except Exception:
        values, error = None, "".join(traceback.format_exc().splitlines(keepends=True)[-4:])
    return Answer(group, name, values, error, time.perf_counter() - start)


def table(answers: list[Answer]) -> list[str]:
    """Return the confusion table: troubles down, the kind of the first finding across."""
    seen = Counter((a.group, a.first) for a in answers)
    columns = sorted({a.first for a in answers})
    width = max(len(group) for group in (*RIGHT, "healthy"))
    lines = [" " * width + "  " + "  ".join(columns)]
    for group in (*RIGHT, "healthy"):
        cells = [f"{seen[group, column] or '.':>{len(column)}}" for column in columns]
        lines.append(f"{group:{width}s}  " + "  ".join(cells))
    return lines


def summary(answers: list[Answer]) -> dict[str, Any]:
    """Return the figures: right first findings of troubles, severe findings on healthy runs, and the costs."""
    troubles = [a for a in answers if a.group != "healthy"]
    healthy = [a for a in answers if a.group == "healthy"]
    right = [a for a in troubles if a.first in RIGHT[a.group]]
    severe = [a for a in healthy if a.severe]
    spent = [a.record["spent"] for a in answers if a.record is not None]
    return {
        "troubles": len(troubles),
        "right_first": len(right),
        "right_first_percent": 100.0 * len(right) / max(1, len(troubles)),
        "right_by_trouble": {
            trouble: [sum(a.group == trouble for a in right), sum(a.group == trouble for a in troubles)]
            for trouble in RIGHT
        },
        "healthy": len(healthy),
        "healthy_severe": len(severe),
        "healthy_severe_upper_bound_percent": bounds(len(severe), len(healthy))[1] if healthy else None,
        "healthy_severe_kinds": dict(Counter(kind for a in severe for kind in a.severe)),
        "healthy_warnings": sum(a.first != "none" for a in healthy),
        "healthy_warning_kinds": dict(Counter(kind for a in healthy for kind, s in a.findings if s == "warning")),
        "errors": sum(a.error is not None for a in answers),
        "most_spent": max(spent, default=None),
        "mean_spent": sum(spent) / max(1, len(spent)),
        "median_seconds": sorted(a.seconds for a in answers)[len(answers) // 2],
    }


def judged_again(path: Path) -> list[Answer]:
    """Return stored answers with the findings that the rules of today make of their numbers."""
    answers = []
    for values in map(json.loads, path.read_text().splitlines()):
        if values["record"] is not None:
            diagnosis = cw.Diagnosis.from_dict(values["record"])
            values["record"]["findings"] = [finding.to_dict() for finding in judge(diagnosis)]
        answers.append(Answer(**values))
    return answers


def main() -> None:
    """Ask, print the table and keep the figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("half", choices=("development", "test"))
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--only", default="", help="part of a trouble's name, or healthy")
    parser.add_argument("--cache", type=Path, help="folder that keeps the trained healthy models")
    parser.add_argument("--keep", type=Path)
    parser.add_argument("--judge-again", type=Path)
    arguments = parser.parse_args()
    half = arguments.half
    if arguments.judge_again is not None:
        answers = judged_again(arguments.judge_again)
    else:
        jobs = [(half, "trouble", i, None) for i, case in enumerate(cases(half)) if arguments.only in case.trouble]
        jobs += [(half, "healthy", i, arguments.cache) for i in range(len(runs(half))) if arguments.only in "healthy"]
        answers = []
        if arguments.keep is not None and arguments.keep.exists():
            answers = [Answer(**json.loads(line)) for line in arguments.keep.read_text().splitlines()]
            jobs = jobs[len(answers) :]
        with get_context("spawn").Pool(arguments.workers) as pool:
            for one in pool.imap(answer, jobs, chunksize=1):
                answers.append(one)
                if arguments.keep is not None:
                    with arguments.keep.open("a") as file:
                        file.write(json.dumps(vars(one)) + "\n")
    print("\n".join(table(answers)))
    for a in answers:
        wrong = a.severe if a.group == "healthy" else a.first not in RIGHT[a.group]
        if wrong or a.error is not None:
            print(f"{a.group}: {a.name}: {a.findings} {a.error or ''}")
    figures = summary(answers)
    print(json.dumps(figures, indent=1))
    if arguments.only:
        return
    said = [{"group": a.group, "name": a.name, "findings": a.findings} for a in answers]
    record(f"diagnosis_{half}", {**figures, "confusion": table(answers), "answers": said})
    if half == "test":
        with LOOKS.open("a") as file:
            file.write(json.dumps({"environment": environment(), "result": figures}) + "\n")


if __name__ == "__main__":
    main()
