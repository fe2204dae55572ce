"""Where benchmark results go: JSON with the environment and the code version beside the figures.

In a copy without its history, ``$CYCLEWISE_COMMIT`` says which commit it is of.
"""

import json
import os
import platform
import subprocess
from datetime import datetime, timezone
from importlib.metadata import version
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).with_name("results")


def record(name: str, result: Any) -> Path:
    """Write ``results/<name>.json`` and return its path."""
    path = RESULTS / f"{name}.json"
    path.write_text(json.dumps({"environment": environment(), "result": result}, indent=1) + "\n")
    return path


def environment() -> dict[str, Any]:
    """Return versions, processor, GPU, threads, date, and the commit with whether the tree was changed after it."""
    import torch

    import cyclewise

    return {
        "date": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "commit": _git("rev-parse", "--short", "HEAD") or os.environ.get("CYCLEWISE_COMMIT", ""),
        "uncommitted_changes": bool(_git("status", "--porcelain", "--", "../src")),
        "python": platform.python_version(),
        "processor": _processor(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        **({"gpu": torch.cuda.get_device_name()} if torch.cuda.is_available() else {}),
        "cyclewise": cyclewise.__version__,
        **{package: version(package) for package in ("torch", "numpy")},
    }


def _git(*arguments: str) -> str:
    command = ["git", *arguments]
    return subprocess.run(command, cwd=RESULTS.parent, capture_output=True, text=True, check=False).stdout.strip()


def _processor() -> str:
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor()
