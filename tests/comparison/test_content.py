"""A run is kept under what decides it: the user's modules, globals and constants count, notes that are taken do not."""

import importlib
import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest
import torch

import cyclewise as cw
from cyclewise.comparison.store import content
from tests.comparison.tasks import local, make_learner, raises

MODULES = {
    "mine_train": "import mine_config\nfrom mine_models import build\n\n"
    "WIDTHS = {'hidden': 3}\nCALLS, COUNTS, COUNT = [], {'made': 0}, 0\n\n\n"
    "def make_learner(seed):\n    global COUNT\n    COUNT += 1\n    CALLS.append(seed)\n    COUNTS['made'] += 1\n"
    "    return build(WIDTHS['hidden'], mine_config.DEPTH)\n",
    "mine_models": "from mine_layers import layer\nSCALE = 2\n\n\n"
    "def build(width, depth):\n    return [layer(width * SCALE)] * depth\n",
    "mine_layers": "def layer(width):\n    return width\n",
    "mine_config": "DEPTH = 1\nUNUSED = 5\n",
}


@pytest.fixture
def modules(tmp_path, monkeypatch):
    for name, code in MODULES.items():
        (tmp_path / f"{name}.py").write_text(code)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    loaded = {name: importlib.import_module(name) for name in MODULES}
    yield loaded
    for name in MODULES:
        sys.modules.pop(name, None)


def test_the_files_that_a_function_imports_count(modules, tmp_path):
    found = {content(modules["mine_train"].make_learner)}
    for name, code in MODULES.items():
        (tmp_path / f"{name}.py").write_text(code + "\nMORE = 1\n")
        found.add(content(modules["mine_train"].make_learner))
    assert len(found) == 1 + len(MODULES)


def test_the_globals_that_are_read_count(modules):
    train, models, config = (modules[name] for name in ("mine_train", "mine_models", "mine_config"))
    found = [content(train.make_learner)]
    train.WIDTHS["hidden"] = 4
    found.append(content(train.make_learner))
    models.SCALE = 3
    found.append(content(train.make_learner))
    config.DEPTH = 2
    found.append(content(train.make_learner))
    assert len(set(found)) == 4
    config.UNUSED = 6
    assert content(train.make_learner) == found[-1]


def test_what_a_function_only_notes_down_does_not_count(modules):
    train = modules["mine_train"]
    before = content(train.make_learner)
    assert train.make_learner(0) == [6]
    assert (train.CALLS, train.COUNTS, train.COUNT) == ([0], {"made": 1}, 1)
    assert content(train.make_learner) == before


def test_two_functions_of_one_line_are_two(tmp_path):
    one, other = (lambda seed: seed + 1), (lambda seed: seed + 2)
    assert content(one) != content(other)
    assert content(one) == content(one)


def script(code, **environment):
    return subprocess.run(
        [sys.executable, "-"], input=code, capture_output=True, text=True, check=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), **environment},
    ).stdout  # fmt: skip


def test_constants_of_a_script_from_standard_input_count():
    code = (
        "from cyclewise.comparison.store import content\n"
        "def rate():\n    return 0.1\n"
        "def make_learner(seed):\n    return rate(), 'sgd', {'a', 'b', 'c'}\n"
        "print(content(make_learner))"
    )
    kept = script(code, PYTHONHASHSEED="1")
    assert script(code, PYTHONHASHSEED="2") == kept
    assert script(code.replace("'sgd'", "'sdg'")) != kept
    assert script(code.replace("0.1", "0.2")) != kept


def test_tensors_and_sets_are_told_by_what_is_in_them_in_every_process():
    code = (
        "import torch\nfrom cyclewise.comparison.store import content\n"
        "def make(weights, names):\n    return lambda seed: (weights, names)\n"
        "print(content(make(torch.{}(3), {{'a', 'b', {!r}}})))"
    )
    kept = script(code.format("ones", "c"), PYTHONHASHSEED="1")
    assert script(code.format("ones", "c"), PYTHONHASHSEED="2") == kept
    assert script(code.format("zeros", "c")) != kept
    assert script(code.format("ones", "d")) != kept


LOCK = threading.Lock()


def locked(seed):
    with LOCK:
        return make_learner(seed)


def test_a_global_without_content_is_refused_by_its_name(tmp_path):
    message = (
        "make_learner must be a function whose content can be told when a store is given, got one that reads LOCK, a "
        "lock (TypeError: cannot pickle '_thread.lock' object); make it inside the function, or leave out store"
    )
    with raises(cw.ArgumentError, message):
        local(make=locked, store=tmp_path)


def test_what_is_nested_too_deeply_is_refused_and_what_is_not_set_yet_is_nothing():
    deep = []
    for _ in range(10_000):
        deep = [deep]
    with pytest.raises(cw.ArgumentError, match="nested too deeply"):
        content(lambda seed: deep)
    early = content(lambda seed: later)
    later = 3
    assert content(lambda seed: later) != early


RATE = 0.0


def with_a_global_rate(seed):
    learn = make_learner(seed)
    return cw.Learner(learn.model, learn.data, metrics=learn.metrics,
                      optimizer=torch.optim.SGD(learn.model.parameters(), lr=0.1, weight_decay=RATE))  # fmt: skip


def test_a_run_of_another_global_is_trained_anew(tmp_path, monkeypatch):
    first = local(make=with_a_global_rate, store=tmp_path)
    assert local(make=with_a_global_rate, store=tmp_path) == first
    num_kept = len(list(Path(tmp_path).iterdir()))
    monkeypatch.setitem(with_a_global_rate.__globals__, "RATE", 0.5)
    again = local(make=with_a_global_rate, store=tmp_path)
    assert again.row("high").values != first.row("high").values
    assert len(list(Path(tmp_path).iterdir())) == 2 * num_kept
