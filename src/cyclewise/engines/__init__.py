"""Where independent jobs run: in this process, in spawned local processes, or on Ray. One interface for all."""

from cyclewise.engines.outcome import Outcome
from cyclewise.engines.packing import portable
from cyclewise.engines.workers import ENGINES, Workers, check_engine, make_workers, run_all

__all__ = ["ENGINES", "Outcome", "Workers", "check_engine", "make_workers", "portable", "run_all"]
