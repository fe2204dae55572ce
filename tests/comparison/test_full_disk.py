"""A store that cannot be written: said before anything is trained where it can be, and what was trained stays."""

import errno
import os
import stat

import pytest

import cyclewise as cw
from cyclewise.comparison.crew import Crew
from cyclewise.comparison.runs import Job, Run
from cyclewise.comparison.store import Store
from cyclewise.engines import Outcome
from tests.comparison.tasks import TWO, Counting, local, make_learner, raises

FULL = "([Errno 28] No space left on device)"
WAY_OUT = "what is in it is whole: make room, and call it again to go on, or pass another folder"


@pytest.fixture
def counting(tmp_path):
    (tmp_path / "made").mkdir()
    return Counting(tmp_path / "made")


@pytest.fixture
def full_at(monkeypatch):
    """Return a function that makes the writes of these numbers fail, those of the store's tries counted too."""

    def fill(numbers):
        flush, calls = os.fsync, []

        def fsync(handle):
            if not stat.S_ISDIR(os.fstat(handle).st_mode):
                calls.append(handle)
                if len(calls) in numbers:
                    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            flush(handle)

        monkeypatch.setattr(os, "fsync", fsync)

    yield fill
    monkeypatch.undo()


def num_files(folder):
    return len(list(folder.iterdir()))


def test_a_full_disk_is_noticed_before_the_first_run(tmp_path, counting, full_at):
    full_at(range(100))
    with raises(cw.CheckpointError, f"store {str(tmp_path / 'store')!r} cannot be written {FULL}; {WAY_OUT}"):
        local(make=counting, store=tmp_path / "store")
    assert num_files(tmp_path / "made") == 0
    assert num_files(tmp_path / "store") == 0


def test_one_that_fills_up_keeps_what_was_done_and_the_same_call_goes_on(tmp_path, counting, full_at, monkeypatch):
    full_at(range(4, 100))  # the try and two runs get through
    with pytest.raises(cw.CheckpointError) as caught:
        local(make=counting, store=tmp_path / "store")
    assert str(caught.value) == (
        f"store {str(tmp_path / 'store')!r} cannot be written {FULL}, 1 finished run is lost; {WAY_OUT}"
    )
    assert isinstance(caught.value.__cause__, OSError)
    assert num_files(tmp_path / "made") == 3
    assert num_files(tmp_path / "store") == 2
    monkeypatch.undo()
    assert local(make=counting, store=tmp_path / "store") == local()
    assert num_files(tmp_path / "made") == 3 + 4


def test_a_store_with_all_runs_needs_no_room(tmp_path, counting, full_at):
    whole = local(make=counting, store=tmp_path / "store")
    full_at(range(100))
    assert local(make=counting, store=tmp_path / "store") == whole


class Three:
    """Three workers that end their jobs in order."""

    num_workers = 3

    def __init__(self):
        self.jobs = []

    def submit(self, key, job):
        self.jobs.append((key, job))

    def next_outcome(self):
        key, job = self.jobs.pop(0)
        return Outcome(key, Run(job.seed))


@pytest.mark.parametrize(("numbers", "num_lost"), [({2}, 0), ({2, 3, 4, 5}, 3), ({2, 6}, 0)])
def test_runs_under_way_end_and_are_kept_if_there_is_room_again(tmp_path, full_at, numbers, num_lost):
    jobs = {"low": [Job(seed, TWO["low"]) for seed in range(6)]}
    store, lines = Store(tmp_path, make_learner), []
    full_at(numbers)
    with pytest.raises(cw.CheckpointError) as caught:
        Crew(Three(), store, lines.append).run(jobs)
    lost = f", {num_lost} finished runs are lost" if num_lost else ""
    assert str(caught.value) == f"store {str(tmp_path)!r} cannot be written {FULL}{lost}; {WAY_OUT}"
    assert lines == ["low, seed 0", "low, seed 1", "low, seed 2"]
    assert [store.get(job) is not None for job in jobs["low"]] == [not num_lost] * 3 + [False] * 3


def test_a_file_cannot_be_a_store(tmp_path):
    (tmp_path / "store").touch()
    with pytest.raises(cw.CheckpointError) as caught:
        local(store=tmp_path / "store")
    assert str(caught.value) == (
        f"store {str(tmp_path / 'store')!r} cannot be used ([Errno 17] File exists: {str(tmp_path / 'store')!r}); "
        "pass another folder, or leave store out"
    )


def test_a_disk_that_was_full_for_the_last_run_only_costs_nothing(tmp_path, counting, full_at):
    num_runs = len(TWO) * 3
    full_at([1 + num_runs])  # the try, and all runs but the last
    comparison = local(make=counting, store=tmp_path / "store")
    assert {row.name for row in comparison.rows} == set(TWO)
    assert num_files(tmp_path / "made") == num_runs
