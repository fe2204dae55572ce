"""Snapshots: the weights at the end of each cycle, in memory and on disk, also after a resume."""

import errno
import io
import os
import re

import pytest
import torch

import cyclewise as cw
from cyclewise.training.callbacks import Callback
from cyclewise.training.ensemble import Ensemble
from cyclewise.training.snapshots import Snapshots
from tests.training.three_cycles import POLICY, data, fitted, normalised


def test_snapshots_are_the_weights_at_the_end_of_each_cycle():
    seen = []

    class Remembers(Callback):
        def on_step_end(self, learner, step, loss):
            if step + 1 in POLICY.cycle_ends:
                seen.append({name: value.clone() for name, value in learner.model.state_dict().items()})

    learn = cw.Learner(normalised(), data(), progress=False)
    snapshots = Snapshots(POLICY.cycle_ends)
    learn.fit(POLICY, callbacks=[snapshots, Remembers()])
    assert len(snapshots.states) == len(seen) == 3
    for kept, expected in zip(snapshots.states, seen, strict=True):
        torch.testing.assert_close(dict(kept), expected, rtol=0, atol=0)
    assert repr(snapshots.states[1:]) == "SnapshotStates(2 state dicts, 0 of them on disk)"


def test_disk_and_memory_keep_the_same_and_files_are_read_when_taken(tmp_path):
    learn, in_memory = fitted()
    _, on_disk = fitted(tmp_path / "deep" / "er")
    assert sorted(os.listdir(tmp_path / "deep" / "er")) == [f"snapshot-00{k}.pt" for k in (1, 2, 3)]
    assert repr(on_disk.states) == "SnapshotStates(3 state dicts, 3 of them on disk)"
    for a, b in zip(in_memory.states, on_disk.states, strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=0)
    first, second = (Ensemble(learn.model, snapshots.states, learn.data) for snapshots in (in_memory, on_disk))
    assert first.evaluate() == second.evaluate()
    assert torch.equal(first.predict(), second.predict())

    path = tmp_path / "deep" / "er" / "snapshot-002.pt"
    path.write_bytes(path.read_bytes()[:100])
    assert len(on_disk.states) == 3
    with pytest.raises(cw.CheckpointError, match=re.escape(f"the snapshot {str(path)!r} cannot be read (")):
        on_disk.states[1]


def test_a_full_disk_is_a_warning_and_the_snapshot_stays_in_memory(tmp_path, monkeypatch):
    def full(descriptor):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.warns(UserWarning, match="the snapshot of step") as caught:
        _, snapshots = fitted(tmp_path)
    assert [str(warning.message) for warning in caught] == [
        f"the snapshot of step {end} could not be written ([Errno 28] No space left on device) and is kept in memory; "
        "make room in the directory, or pass another one"
        for end in POLICY.cycle_ends
    ]
    assert os.listdir(tmp_path) == []
    assert repr(snapshots.states) == "SnapshotStates(3 state dicts, 0 of them on disk)"


@pytest.mark.parametrize("is_on_disk", [True, False])
def test_snapshots_go_on_from_a_saved_state(tmp_path, is_on_disk):
    directory = tmp_path if is_on_disk else None
    learn, snapshots = fitted(directory)
    file = io.BytesIO()
    torch.save(snapshots.state_dict(), file)
    assert (len(file.getvalue()) < 2000) == is_on_disk
    file.seek(0)
    again = Snapshots(POLICY.cycle_ends, directory=directory)
    again.load_state_dict(torch.load(file, weights_only=True))
    for a, b in zip(again.states, snapshots.states, strict=True):
        torch.testing.assert_close(dict(a), dict(b), rtol=0, atol=0)
    # A cycle that runs again replaces its snapshot.
    again.on_step_end(learn, 11, torch.tensor(0.0))
    assert len(again.states) == 3
    assert torch.equal(again.states[1]["0.weight"], learn.model[0].weight)


@pytest.mark.parametrize(
    ("state", "message"),
    [
        ({"step": 1},
         "state must be that of Snapshots, got dict {'step': 1}; pass the callbacks of the run that was saved"),
        ({"snapshots": {5: {}}},
         "state must hold snapshots of the cycles that end at [4, 12, 28], got some of steps [5]; "
         "resume with the policy that was saved"),
        ({"snapshots": {4: "snapshot-001.pt"}},
         "directory must be the one with the snapshots of the saved run, got None for snapshot-001.pt; "
         "pass Snapshots(cycle_ends, directory=...)"),
    ],
)  # fmt: skip
def test_a_foreign_state_is_refused(state, message):
    with pytest.raises(cw.CheckpointError) as caught:
        Snapshots(POLICY.cycle_ends).load_state_dict(state)
    assert str(caught.value) == message


def test_a_missing_file_is_named_and_names_do_not_lead_out_of_the_directory(tmp_path):
    directory = tmp_path / "inside"
    directory.mkdir()
    torch.save({}, tmp_path / "snapshot-001.pt")
    with pytest.raises(cw.CheckpointError) as caught:
        Snapshots([4], directory=directory).load_state_dict({"snapshots": {4: "../snapshot-001.pt"}})
    assert str(caught.value) == (
        f"directory must hold the snapshots of the saved run, got none named snapshot-001.pt in {str(directory)!r}; "
        "put the file back, or start the run again"
    )
