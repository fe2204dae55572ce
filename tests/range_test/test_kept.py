"""Batches kept in memory: how many, and whether they are all that there are."""

import pytest
import torch

from cyclewise.range_test import kept

BATCHES = [(torch.zeros(4, 8), torch.zeros(4)) for _ in range(30)]


@pytest.mark.parametrize(("wanted", "count", "ended"), [(29, 29, False), (30, 30, False), (31, 30, True)])
def test_a_pass_has_ended_where_fewer_came_than_were_wanted(wanted, count, ended):
    batches, is_all = kept.keep(BATCHES, wanted)
    assert (len(batches), is_all) == (count, ended)


def test_what_memory_cuts_off_is_not_all(monkeypatch):
    monkeypatch.setattr(kept, "_MOST_BYTES", 1000)
    batches, is_all = kept.keep(BATCHES, 100)
    assert 16 <= len(batches) < 30
    assert not is_all
