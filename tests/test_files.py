"""What replaces a file: a link stays a link, the mode stays what it was, and a write that fails leaves nothing."""

import errno
import os

import pytest
import torch
from torch import nn

import cyclewise as cw
from cyclewise.files import write_file


def found():
    torch.manual_seed(0)
    return cw.search_start(cw.LayerGains(nn.Linear(2, 1)), size, budget=3, progress=False)


def size(model):
    return float(model.weight.detach().norm())


WRITERS = {
    "bytes": lambda path: write_file(path, b"new"),
    "a report": lambda path: cw.write_html(cw.History(lr=[0.1], momentum=[None], loss=[1.0]), path),
    "a history": lambda path: cw.History(lr=[0.1], momentum=[None], loss=[1.0]).save(path),
    "a start": lambda path: found().save(path),
    "a search": lambda path: cw.Search(cw.LayerGains(nn.Linear(2, 1)), budget=3).save(path),
}


@pytest.mark.parametrize("write", WRITERS.values(), ids=WRITERS)
def test_a_file_that_is_replaced_keeps_its_place_and_its_mode(tmp_path, monkeypatch, write):
    target, link = tmp_path / "target.json", tmp_path / "link.json"
    target.write_bytes(b"old")
    target.chmod(0o604)
    link.symlink_to(target)
    write(link)
    new = target.read_bytes()
    assert new != b"old"
    assert link.is_symlink()
    assert target.stat().st_mode & 0o777 == 0o604

    def full(descriptor):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises((OSError, cw.CheckpointError)):
        write(link)
    assert target.read_bytes() == new
    assert sorted(os.listdir(tmp_path)) == ["link.json", "target.json"]
