import importlib.util
import pickle
import sys
from functools import partial

import cloudpickle
import pytest

from cyclewise.engines import portable
from cyclewise.engines.packing import pack

CODE = """
FACTOR = 3
def triple(x, y=0):
    return FACTOR * x + y
class Tripling:
    def __call__(self, x):
        return triple(x)
"""


@pytest.fixture
def loaded(tmp_path):
    """A module that was loaded by its path, and is forgotten by whoever unpickles."""
    path = tmp_path / "loaded_by_path.py"
    path.write_text(CODE)
    spec = importlib.util.spec_from_file_location("loaded_by_path", path)
    module = importlib.util.module_from_spec(spec)
    sys.modules["loaded_by_path"] = module
    spec.loader.exec_module(module)
    yield module
    sys.modules.pop("loaded_by_path", None)


def test_what_was_loaded_by_its_path_travels_by_value(loaded):
    values = [loaded.triple, partial(loaded.triple, y=1), loaded.Tripling()]
    packed = []
    for value in values:
        with portable(value):
            packed.append(pack(value, "it"))
    by_name = pack(loaded.triple, "it")
    del sys.modules["loaded_by_path"]
    assert [pickle.loads(data)(2) for data in packed] == [6, 7, 6]
    with pytest.raises(ModuleNotFoundError):
        pickle.loads(by_name)
    assert not cloudpickle.list_registry_pickle_by_value()


def test_what_can_be_imported_travels_by_name(loaded, tmp_path, monkeypatch):
    with portable(loaded.triple, pack, 3):
        assert cloudpickle.list_registry_pickle_by_value() == {"loaded_by_path"}
    monkeypatch.syspath_prepend(tmp_path)
    with portable(loaded.triple):
        assert not cloudpickle.list_registry_pickle_by_value()


def test_another_file_of_the_same_name_does_not_count(loaded, tmp_path, monkeypatch):
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "loaded_by_path.py").write_text("")
    monkeypatch.syspath_prepend(tmp_path / "other")
    with pytest.raises(KeyError), portable(loaded.triple):
        assert cloudpickle.list_registry_pickle_by_value() == {"loaded_by_path"}
        raise KeyError
    assert not cloudpickle.list_registry_pickle_by_value()
