import gzip
import json
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

import cyclewise as cw
from cyclewise.cli import app
from cyclewise.comparison.runs import Run
from cyclewise.experiments import article, fashion
from cyclewise.experiments.experiment import Experiment
from cyclewise.experiments.settings import EXPERIMENTS, FORMS, Setting, settings_of
from cyclewise.report import write_html


def idx(array):
    header = bytes([0, 0, 8, array.ndim]) + b"".join(size.to_bytes(4, "big") for size in array.shape)
    return header + array.astype(np.uint8).tobytes()


def write_images(folder, *, compressed, num_train=520, num_test=40):
    generator = np.random.default_rng(0)
    for part, count in (("train", num_train), ("t10k", num_test)):
        for name, array in (
            (f"{part}-images-idx3-ubyte", generator.integers(0, 256, (count, 28, 28))),
            (f"{part}-labels-idx1-ubyte", np.arange(count) % 10),
        ):
            data = idx(array)
            (folder / (name + ".gz" * compressed)).write_bytes(gzip.compress(data) if compressed else data)


# -- the data ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("compressed", [True, False])
def test_idx_files_are_read_whole_and_standardised(tmp_path, compressed):
    write_images(tmp_path, compressed=compressed)
    images = fashion.fashion_mnist(tmp_path)
    assert images.train_inputs.shape == (520, 1, 28, 28)
    assert images.test_targets.tolist() == [i % 10 for i in range(40)]
    pixels = np.random.default_rng(0).integers(0, 256, (520, 28, 28))
    expected = (torch.tensor(pixels[3], dtype=torch.float32) / 255 - 0.2860) / 0.3530
    torch.testing.assert_close(images.train_inputs[3, 0], expected)


def test_missing_files_are_named_with_the_way_out(tmp_path, monkeypatch):
    message = (
        f"data must be a folder with the IDX files of Fashion-MNIST, got {str(tmp_path)!r} without "
        "train-images-idx3-ubyte; run `apt-get install dataset-fashion-mnist`, or take the four files from "
        "github.com/zalandoresearch/fashion-mnist and name their folder with --data or $CYCLEWISE_DATA"
    )
    monkeypatch.setenv("CYCLEWISE_DATA", str(tmp_path))
    with pytest.raises(cw.ArgumentError, match=f"^{re.escape(message)}$"):
        fashion.fashion_folder()
    result = CliRunner().invoke(app, ["experiment", "1", "--out", str(tmp_path / "out.html")])
    assert (result.exit_code, result.stderr) == (2, f"error: --{message}\n")
    write_images(tmp_path, compressed=False)
    assert fashion.fashion_folder() == tmp_path


@pytest.mark.parametrize("content", [b"", b"\0\0\x08", b"\0\0\x0d\x01\0\0\0\0", idx(np.zeros((3, 4)))[:-1]])
def test_a_torn_file_is_refused(tmp_path, content):
    write_images(tmp_path, compressed=False)
    path = tmp_path / "t10k-images-idx3-ubyte"
    path.write_bytes(content)
    message = (
        f"data must hold whole IDX files of unsigned bytes, got {str(path)!r} of {len(content)} bytes; fetch it again"
    )
    with pytest.raises(cw.ArgumentError, match=f"^{re.escape(message)}$"):
        fashion.fashion_mnist(tmp_path)


def test_a_block_is_what_the_paper_says():
    block = fashion.Block(3, 5, 2).eval()
    inputs = torch.randn(2, 3, 6, 6)
    first, norm, _, second, norm2 = block.body
    by_hand = torch.relu(block.shortcut(inputs) + norm2(second(torch.relu(norm(first(inputs))))))
    torch.testing.assert_close(block(inputs), by_hand)
    assert by_hand.shape == (2, 5, 3, 3)
    assert isinstance(fashion.Block(3, 3, 1).shortcut, torch.nn.Identity)


# -- the settings as printed ------------------------------------------------------------------------------------------


def test_the_settings_are_the_articles():
    one, two, three = (settings_of(number) for number in EXPERIMENTS)
    printed = {"div_factor": 10.0, "pct_start": 0.1368, "moms": (0.95, 0.85), "wd": 1e-4, "cyc_len": 95}
    assert {s.max_lr for s in one} == {0.08, 0.8}
    assert all({**vars(s), **printed} == vars(s) for s in one)
    assert {(s.max_lr, s.cyc_len, s.pct_start) for s in two} == {(0.8, 50, 0.5), (0.8, 95, 0.5), (0.08, 95, 0.1368)}
    assert {s.moms for s in three} == {(0.95, 0.85), (0.9, 0.9), (0.85, 0.95), (0.85, 0.85), (0.95, 0.95)}
    for settings in (one, two, three):
        assert {s.form for s in settings} == set(FORMS)
    everything = [*one, *two, *three]
    assert len({s.name for s in everything}) == len(set(everything))


def test_a_setting_is_the_articles_call():
    setting = Setting(0.08, 3, 0.1368)
    learn = article.small_learner(0)
    steps = learn.data.steps_per_epoch
    assert steps == article.num_steps_per_epoch(small=True)
    calls = []
    learn.fit = lambda policy, **_: calls.append(policy)
    learn.fit_one_cycle(cyc_len=3, max_lr=0.08, div_factor=10, pct_start=0.1368, moms=(0.95, 0.85), wd=1e-4)
    assert calls == [setting.policy(steps)]
    assert setting.policy(steps).lr(0) == pytest.approx(0.008)
    assert learn.optimizer.param_groups[0]["weight_decay"] == setting.wd


def test_a_part_of_the_images_is_a_part_of_the_test_images_too(tmp_path):
    write_images(tmp_path, compressed=False, num_test=700)
    folder = str(tmp_path)
    for num_images, held_out in ((512, 512), (None, 700)):
        learn = article.fashion_learner(0, folder=folder, num_images=num_images)
        assert sum(len(targets) for _, targets in learn.data.valid_loader) == held_out
        described = article._described(small=False, folder=tmp_path, num_images=num_images)
        assert described["data"].endswith(f"{num_images or 520} training images, validated on {held_out} test images")


def test_both_forms_have_the_same_weights_and_data_and_their_own_update():
    one, other = article.small_learner(3), article.small_learner(3, form="velocity")
    assert isinstance(one.optimizer, torch.optim.SGD)
    assert isinstance(other.optimizer, cw.VelocitySGD)
    for name, value in one.model.state_dict().items():
        assert torch.equal(value, other.model.state_dict()[name])
    assert torch.equal(next(iter(one.data.train_loader))[0], next(iter(other.data.train_loader))[0])
    assert len(one.data.valid_loader) == 1


def test_a_learner_of_idx_files(tmp_path):
    write_images(tmp_path, compressed=True)
    make = article.make_learner_of("torch", small=False, folder=tmp_path, num_images=512)
    learn = make(0)
    assert learn.data.steps_per_epoch == article.num_steps_per_epoch(small=False, folder=tmp_path, num_images=512) == 1
    for num_images in (None, 1000):  # no more than there are
        assert article.num_steps_per_epoch(small=False, folder=tmp_path, num_images=num_images) == 2
    assert learn.fit(cw.Constant(lr=0.01, total_steps=1)).num_steps == 1


# -- whole experiments, with a learner of a moment --------------------------------------------------------------------


printed_policy = Setting.policy


def quick_learner(seed, *, form="torch"):
    inputs = torch.randn(24, 4)
    data = cw.Data.from_arrays(inputs, (inputs[:, 0] > 0).long(), batch_size=32, seed=seed)
    model = torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.ReLU(), torch.nn.Linear(8, 2))
    kind = cw.VelocitySGD if form == "velocity" else torch.optim.SGD
    optimizer = kind(model.parameters(), lr=0.1, momentum=0.9)
    return cw.Learner(model, data, optimizer=optimizer, metrics={"accuracy": cw.accuracy})


@pytest.fixture
def quick(monkeypatch):
    monkeypatch.setattr(article, "small_learner", quick_learner)
    monkeypatch.setattr(article, "num_steps_per_epoch", lambda **_: 1)
    monkeypatch.setattr(Setting, "policy", lambda self, _: printed_policy(replace(self, cyc_len=self.cyc_len // 5), 1))


def test_experiments_share_their_runs_and_are_kept(quick, tmp_path):
    lines = []
    options = {"small": True, "engine": "local", "store": tmp_path / "store", "on_run": lines.append}
    first, second, third = article.run_experiments([1, 2, 3], **options)
    assert len(lines) == len(set(lines)) == article.num_runs([1, 2, 3], 1) == 16
    shared = Setting(0.08, 95, 0.1368)
    assert first.runs[shared] == second.runs[shared] == third.runs[shared]
    assert first.runs[shared][0].num_steps == 19
    assert [len(record.claims) for record in (first, second, third)] == [12, 4, 8]
    (again,) = article.run_experiments([1], **options)
    assert again == first
    comes_back = Experiment.from_dict(json.loads(json.dumps(third.to_dict(), allow_nan=False)))
    assert comes_back == third
    assert hash(comes_back) == hash(third)
    assert "\n" not in str(third)
    section = third.section()
    assert {row[2] for row in section.tables[0].rows} <= {"seen", "not seen"}
    for statement in {claim.statement for claim in third.claims}:
        own = [claim for claim in third.claims if claim.statement == statement]
        missed = [claim for claim in own if not claim.seen]
        words = f"not seen in {len(missed)} of 2 cases ({missed[0].subject}: " if missed else "seen in all 2 cases."
        assert f"{statement}: {words}" in section.conclusion
    titles = [chart.title for chart in third.charts()]
    for kind in ("Loss", "Learning rate", "Momentum"):
        assert any(title.startswith(f"{kind}: max_lr 0.08, 95 epochs, 14 % rising, momentum 0.95") for title in titles)
    assert "experiment 3" in third._repr_html_()
    page = write_html([first, second, third], tmp_path / "report.html").read_text()
    assert len(page) < 3_000_000
    assert "The validation loss is unstable in the middle" in page


def test_a_run_that_diverged_is_reported_as_such():
    good = Run(0, quick_learner(0).fit(cw.Constant(lr=0.01, total_steps=2)))
    runs = {setting: (good,) for setting in settings_of(1)}
    lost = settings_of(1)[0]
    runs[lost] = (Run(0, error="the training loss is nan"),)
    record = Experiment(1, runs, (0,))
    assert [claim.outcome for claim in record.claims if claim.subject == lost.name] == ["diverged"] * 3
    assert f"diverged in 1 of 4 cases ({lost.name})." in record.section().conclusion
    assert record.section().tables[1].rows[0][1] == "1 of 1 diverged"
    assert str(record).startswith("experiment 1: ")
    assert len(record.plot().axes) == len(record.charts())


def test_the_command_line_writes_the_report(quick, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(article, "make_workers", lambda f, engine, workers: cw.engines.make_workers(f))
    result = CliRunner().invoke(app, ["experiment", "2", "--small"])
    assert result.exit_code == 0, result.stderr
    assert re.match(r"experiment 2: \d of 4 claims seen, n=1\n", result.stdout)
    assert (
        "A higher rate trains as well in a shorter cycle (0.8 for 50 epochs against 0.08 for 95, torch)"
        in result.stdout
    )
    assert "experiment 2" in Path("report.html").read_text()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["4"], "the experiment must be 1, 2, 3 or all, got '4'; for example all --small"),
        (["1", "--small", "--data", "."], "--data must be left out with small, got '.'; small runs on the digits"),
        (["1", "--images", "3"], "--images must be a whole number of at least 512, got 3; leave it out for all"),
    ],
)
def test_bad_options_are_usage_errors(arguments, message, tmp_path):
    result = CliRunner().invoke(app, ["experiment", *arguments, "--out", str(tmp_path / "out.html")])
    assert (result.exit_code, result.stderr) == (2, f"error: {message}\n")
