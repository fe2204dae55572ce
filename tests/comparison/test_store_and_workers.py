"""Runs kept by content, and workers that die, are killed, or run elsewhere."""

import copy
import importlib.util
import os
import signal
import subprocess
import sys
import threading
from functools import partial
from pathlib import Path

import pytest

import cyclewise as cw
from cyclewise.comparison.crew import Crew
from cyclewise.comparison.runs import Job, Run
from cyclewise.comparison.store import Store, content
from cyclewise.engines import Outcome
from tests.comparison.tasks import TWO, Broken, Counting, constant, local, make_learner, raises

HERE = Path(__file__).parent


# -- the store --------------------------------------------------------------------------------------------------------


@pytest.fixture
def counting(tmp_path):
    (tmp_path / "made").mkdir()
    return Counting(tmp_path / "made")


def num_made(counting):
    return len(list(Path(counting.folder).iterdir()))


def test_nothing_is_trained_twice(tmp_path, counting):
    first = local(make=counting, store=tmp_path / "store")
    assert num_made(counting) == 6
    again = local(make=counting, store=tmp_path / "store")
    assert num_made(counting) == 6
    assert again == first
    local({**TWO, "third": constant(0.01)}, make=counting, store=tmp_path / "store", seeds=range(4))
    assert num_made(counting) == 6 + 3 + 3
    local(make=counting, store=tmp_path / "store", metric="accuracy", baseline="high")
    assert num_made(counting) == 12


def test_torn_files_are_missing_and_ctrl_c_keeps_what_was_done(tmp_path, counting):
    whole = local(make=counting, store=tmp_path / "store")
    files = sorted((tmp_path / "store").iterdir())
    assert len(files) == 6
    files[0].write_text(files[0].read_text()[:200])
    files[1].write_text(files[1].read_text().replace('"num_steps": 12', '"num_steps": 13'))
    files[2].write_bytes(b"")
    (tmp_path / "store" / ".cyclewise-x.tmp").write_text("left over")

    def interrupted(seed, calls=[]):  # noqa: B006
        calls.append(seed)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return make_learner(seed)

    assert num_made(counting) == 6
    again = local(make=counting, store=tmp_path / "store")
    assert [row.values for row in again.rows] == [row.values for row in whole.rows]
    assert num_made(counting) == 9
    with pytest.raises(KeyboardInterrupt):
        local(make=interrupted, store=tmp_path / "other")
    assert len(list((tmp_path / "other").iterdir())) == 2


def test_another_function_another_run(tmp_path):
    def with_width(width):
        return lambda seed: (width, make_learner(seed))

    assert content(with_width(3)) == content(with_width(3))
    assert content(with_width(3)) != content(with_width(4))
    assert content(partial(make_learner, 1)) != content(partial(make_learner, 2))
    assert content(partial(make_learner, 1, 1)) != content(partial(make_learner, 1))
    assert content(Counting(tmp_path)) != content(Counting(tmp_path / "x"))
    module = tmp_path / "train.py"
    module.write_text("WIDTH = 3\ndef make_learner(seed):\n    return WIDTH\n")
    spec = importlib.util.spec_from_file_location("train", module)
    loaded = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(loaded)
    before = content(loaded.make_learner)
    assert content(loaded.make_learner) == before
    module.write_text("WIDTH = 4\ndef make_learner(seed):\n    return WIDTH\n")
    assert content(loaded.make_learner) != before  # a change beside the function counts too


def test_what_has_no_content_cannot_be_kept(tmp_path):
    lock = threading.Lock()
    with raises(
        cw.ArgumentError,
        "make_learner must be a function whose content can be told when a store is given, got one that holds a lock "
        "(TypeError: cannot pickle '_thread.lock' object); make it inside the function, or leave out store",
    ):
        local(make=lambda seed: lock and make_learner(seed), store=tmp_path)


def test_a_policy_of_ones_own_is_told_by_its_source(tmp_path):
    store = Store(tmp_path, make_learner)
    job = Job(0, cw.Join([constant(0.1), constant(0.2)]))
    assert store.path(job) == store.path(copy.deepcopy(job))
    assert store.path(job) != store.path(Job(1, job.policy))

    class Mine(cw.Policy):
        total_steps = 3

        def value(self, step):
            return 0.1

    one = store.path(Job(0, Mine()))

    class Mine(cw.Policy):
        total_steps = 3

        def value(self, step):
            return 0.2

    assert store.get(Job(0, Mine())) is None
    assert isinstance(one, Path)


# -- workers ----------------------------------------------------------------------------------------------------------


class Dying:
    """Workers whose jobs of certain seeds lose their worker so many times."""

    num_workers = 2

    def __init__(self, deaths):
        self.deaths, self.jobs = dict(deaths), []

    def submit(self, key, job):
        self.jobs.append((key, job))

    def next_outcome(self):
        key, job = self.jobs.pop()
        if self.deaths.get(job.seed, 0):
            self.deaths[job.seed] -= 1
            return Outcome(key, error=cw.WorkerError("the worker process died (killed by SIGKILL)"))
        return Outcome(key, Run(job.seed))


def test_a_worker_that_dies_is_tried_once_more(tmp_path):
    lines = []
    store = Store(tmp_path, make_learner)
    runs = Crew(Dying({1: 1}), store, lines.append).run({"low": [Job(seed, TWO["low"]) for seed in range(3)]})
    assert [run.seed for run in runs["low"]] == [0, 1, 2]
    assert sorted(lines) == ["low, seed 0", "low, seed 1", "low, seed 2"]
    message = (
        'high, seed 1: the worker process died (killed by SIGKILL), twice; run it with engine="local" to see why, or '
        "with fewer workers if memory ran out"
    )
    with raises(cw.WorkerError, message):
        Crew(Dying({1: 2}), store, lines.append).run({"high": [Job(seed, TWO["high"]) for seed in range(3)]})
    assert [store.get(Job(seed, TWO["high"])) is None for seed in range(3)] == [False, True, False]


def test_workers_give_the_same_numbers_print_nothing_and_show_their_traceback(tmp_path, counting, capfd):
    options = {"seeds": [0, 3], "metric": "loss", "baseline": "low", "workers": 1, "store": tmp_path / "store"}
    broken = Broken(counting.folder)
    with pytest.raises(LookupError, match="no such data") as caught:
        cw.compare({"low": TWO["low"]}, broken, **options)
    if hasattr(caught.value, "__notes__"):
        assert caught.value.__notes__[0].startswith("low, seed 3; in the worker:\nTraceback")
        assert 'raise LookupError("no such data")' in caught.value.__notes__[0]
    assert capfd.readouterr().out == ""
    assert Store(tmp_path / "store", broken).get(Job(0, TWO["low"])).final("loss") == local().row("low").values[0]


@pytest.mark.slow
def test_killed_and_started_again_it_goes_on(tmp_path, counting):
    program = (
        "import cyclewise as cw\n"
        "from tests.comparison.tasks import Killing, constant\n"
        "if __name__ == '__main__':\n"
        f"    c = cw.compare({{'a': constant(0.1)}}, Killing({counting.folder!r}), seeds=range(6), metric='loss',\n"
        f"                   baseline='a', engine='local', store={str(tmp_path / 'store')!r})\n"
        "    print(c.row('a').values)\n"
    )
    runs = [subprocess.run([sys.executable, "-c", program], capture_output=True, text=True) for _ in range(2)]
    assert [run.returncode for run in runs] == [-signal.SIGKILL, 0]
    assert num_made(counting) == 7  # the run that was under way is the only one made twice
    expected = local({"a": constant(0.1)}, baseline="a", seeds=range(6)).row("a").values
    assert runs[1].stdout == "noise from the user's own code\n" * 3 + f"{expected}\n"


@pytest.mark.slow
@pytest.mark.timeout(400)
def test_ray_gives_the_same_numbers():
    pytest.importorskip("ray")
    program = (
        "import cyclewise as cw, torch\n"
        "from tests.comparison.tasks import constant, make_learner\n"
        "torch.set_num_threads(1)\n"
        "for engine in ('local', 'ray'):\n"
        "    c = cw.compare({'a': constant(0.1)}, make_learner, seeds=range(3), metric='loss', baseline='a',\n"
        "                   engine=engine, workers=1)\n"
        "    print(c.row('a').values)\n"
    )
    environment = {**os.environ, "PYTHONPATH": str(HERE.parents[1])}
    run = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, env=environment)
    assert run.returncode == 0, run.stderr
    first, second = run.stdout.splitlines()
    assert first == second
