import functools
import json
import re
import sys
import types
from fnmatch import fnmatch

import pytest
import torch
from torch import nn

import cyclewise as cw
from cyclewise.training.pretrained import Logits, load_pretrained


def network(num_classes=1000):
    return nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, num_classes))


def shapes(groups):
    return [[tuple(parameter.shape) for parameter in group] for group in groups]


def test_a_function_gets_a_new_head_and_layer_groups():
    model, groups = load_pretrained(network, num_outputs=3)
    assert shapes(groups) == [[(8, 4), (8,)], [(8, 8), (8,)], [(3, 8), (3,)]]
    assert groups[-1][0] is model[4].weight


def test_a_function_may_keep_its_own_head():
    made = network(7)
    model, groups = load_pretrained(lambda: made, num_outputs=None)
    assert model is made
    assert shapes(groups)[-1] == [(7, 8), (7,)]
    without_linear = nn.Sequential(nn.Conv1d(1, 2, 3), nn.BatchNorm1d(2))
    _, groups = load_pretrained(lambda: without_linear, num_outputs=None)
    assert shapes(groups) == [[(2, 1, 3), (2,)], [(2,), (2,)]]


ASKED = []


def with_pretrained(pretrained=False, progress=True):
    ASKED.append({"pretrained": pretrained})
    return network()


def with_weights(*, weights=None, progress=True, **options):
    ASKED.append({"weights": weights})
    return network()


def with_any(**options):
    ASKED.append(options)
    return network()


@functools.wraps(with_weights)
def wrapped(**options):
    return with_weights(**options)


class Network(nn.Sequential):
    def __init__(self, weights=None):
        super().__init__(*network())
        ASKED.append({"weights": weights})


@pytest.mark.parametrize(
    ("function", "asked"),
    [
        (with_pretrained, {"pretrained": True}),
        (with_weights, {"weights": "DEFAULT"}),
        (with_any, {}),
        (wrapped, {"weights": "DEFAULT"}),
        (Network, {"weights": "DEFAULT"}),
        (functools.partial(with_weights, progress=False), {"weights": "DEFAULT"}),
        (functools.partial(with_weights, weights="MINE"), {"weights": "MINE"}),
        (functools.partial(with_pretrained, True), {"pretrained": True}),
    ],
)
def test_a_function_is_asked_for_its_weights(function, asked):
    ASKED.clear()
    load_pretrained(function, num_outputs=3)
    assert ASKED == [asked]


class Failure(Exception):
    pass


def test_exceptions_of_the_function_pass_through():
    failure = Failure()

    def fails():
        raise failure

    with pytest.raises(Failure) as caught:
        load_pretrained(fails, num_outputs=3)
    assert caught.value is failure


@pytest.mark.parametrize(
    ("arch", "num_outputs", "error", "message"),
    [
        (lambda: "net", 3, cw.ArgumentTypeError,
         "arch must return a torch.nn.Module, got str 'net'; pass a function that makes one model"),
        (network(), 3, cw.ArgumentTypeError,
         "arch must be a function that returns a model, a directory or a name, got a Sequential; "
         "for a model that is made already pass lambda: model"),
        (None, 3, cw.ArgumentTypeError,
         "arch must be a function that returns a model, a directory or a name, got NoneType None; "
         "for a model that is made already pass lambda: model"),
        (network, 0, cw.ArgumentError,
         "num_outputs must be a whole number of at least 1, got 0; None keeps the model's own head"),
    ],
)  # fmt: skip
def test_bad_arguments_say_what_to_do(arch, num_outputs, error, message):
    with pytest.raises(error) as caught:
        load_pretrained(arch, num_outputs=num_outputs)
    assert str(caught.value) == message


class Classifier(nn.Module):
    """What models of timm have."""

    def __init__(self, num_classes):
        super().__init__()
        self.blocks = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4))
        self.head = nn.Linear(4, num_classes)
        self.pretrained_cfg = {"num_classes": 1000}

    def get_classifier(self):
        return self.head

    def reset_classifier(self, num_classes):
        self.head = nn.Linear(4, num_classes)

    def forward(self, inputs):
        return self.head(self.blocks(inputs))


@pytest.fixture
def timm(monkeypatch):
    tagged = ["resnet18.a1_in1k", "resnet18.a2_in1k", "resnet34.a1_in1k"]
    plain = ["resnet18", "resnet34", "vit_giant"]
    fake = types.ModuleType("timm")
    fake.asked = []
    fake.made = []

    def create_model(name, pretrained=False, **options):
        fake.asked.append((name, pretrained, options))
        fake.made.append(Classifier(options.get("num_classes", 1000)).to(torch.float64))
        fake.head = fake.made[-1].head
        return fake.made[-1]

    fake.create_model = create_model
    fake.is_model = lambda name: name.split(".")[0] in [*plain, "old_name"]
    fake.is_model_pretrained = lambda name: name in [*tagged, "resnet18", "resnet34"]
    fake.list_models = lambda pattern="*", pretrained=False: [
        name for name in (tagged if pretrained else plain) if fnmatch(name, pattern)
    ]
    monkeypatch.setitem(sys.modules, "timm", fake)
    return fake


@pytest.mark.parametrize("name", ["resnet18", "timm/resnet18", "timm/resnet34.a1_in1k", "old_name", "hf-hub:me/mine"])
def test_a_name_is_a_model_of_timm(timm, name):
    model, groups = load_pretrained(name, num_outputs=3)
    assert timm.asked == [(name.removeprefix("timm/"), True, {"num_classes": 3})]
    assert model.head is timm.head
    assert shapes(groups) == [[(4, 4), (4,)], [(4, 4), (4,)], [(3, 4), (3,)]]
    assert model(torch.zeros(2, 4, dtype=torch.float64)).shape == (2, 3)


def test_a_loaded_head_of_the_same_size_is_replaced_and_kept_only_when_asked(timm):
    model, groups = load_pretrained("resnet18", num_outputs=1000)
    assert model.head is not timm.head
    assert groups[-1][0] is model.head.weight
    assert model.head.weight.dtype == torch.float64
    model, groups = load_pretrained("resnet18", num_outputs=None)
    assert timm.asked[-1] == ("resnet18", True, {})
    assert model.head is timm.head
    assert shapes(groups)[-1] == [(1000, 4), (1000,)]


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("timm/resnet19",
         "arch must be a function, a directory that exists or the name of a timm model, got 'resnet19'; "
         "did you mean 'resnet18' or 'resnet34'?"),
        ("./models/mine",
         "arch must be a function, a directory that exists or the name of a timm model, got './models/mine'; "
         "timm.list_models() has them"),
        ("resnet18.a9_in1k",
         "arch must be a timm model with pretrained weights, got 'resnet18.a9_in1k'; "
         "there is 'resnet18.a1_in1k', 'resnet18.a2_in1k'"),
        ("vit_giant",
         "arch must be a timm model with pretrained weights, got 'vit_giant'; choose another model"),
    ],
)  # fmt: skip
def test_unknown_names_have_near_ones(timm, name, message):
    with pytest.raises(cw.ArgumentError) as caught:
        load_pretrained(name, num_outputs=3)
    assert str(caught.value) == message
    assert timm.asked == []


class Output:
    def __init__(self, logits, loss):
        self.logits = logits
        self.loss = loss


class HuggingFace(nn.Module):
    """What a classifier of transformers looks like."""

    def __init__(self, num_labels):
        super().__init__()
        self.encoder = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4))
        self.pooler = nn.Linear(4, 4)
        self.classifier = nn.Linear(4, num_labels)

    def forward(self, values=None, labels=None):
        logits = self.classifier(self.pooler(self.encoder(values)))
        return Output(logits, None if labels is None else nn.functional.cross_entropy(logits, labels))


class ImageConfig:
    pass


class TextConfig:
    pass


class BothConfig:
    pass


class SpeechConfig:
    pass


@pytest.fixture
def transformers(monkeypatch):
    fake = types.ModuleType("transformers")
    fake.asked = []
    fake.loading = {"missing_keys": [], "mismatched_keys": []}
    configs = {kind.__name__: kind for kind in (ImageConfig, TextConfig, BothConfig, SpeechConfig)}

    class AutoConfig:
        @staticmethod
        def from_pretrained(directory, **options):
            assert options == {"local_files_only": True, "trust_remote_code": False}
            content = json.loads((directory / "config.json").read_text())
            config = configs[content["kind"]]()
            config.architectures = content.get("architectures")
            return config

    def auto_class(kind):
        def from_pretrained(directory, *, output_loading_info, **options):
            assert output_loading_info
            fake.asked.append((kind, options))
            fake.made = HuggingFace(options.get("num_labels", 5))
            fake.head = fake.made.classifier
            return fake.made, fake.loading

        return types.SimpleNamespace(from_pretrained=from_pretrained)

    fake.AutoConfig = AutoConfig
    fake.AutoModelForImageClassification = auto_class("image")
    fake.AutoModelForSequenceClassification = auto_class("text")
    fake.MODEL_FOR_IMAGE_CLASSIFICATION_MAPPING = {ImageConfig: 0, BothConfig: 0}
    fake.MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING = {TextConfig: 0, BothConfig: 0}
    monkeypatch.setitem(sys.modules, "transformers", fake)
    return fake


def directory(path, kind="ImageConfig", **content):
    (path / "config.json").write_text(json.dumps({"kind": kind, **content}))
    return path


LOCAL = {"local_files_only": True, "trust_remote_code": False}


@pytest.mark.parametrize(
    ("kind", "architectures", "asked"),
    [
        ("ImageConfig", None, "image"),
        ("TextConfig", None, "text"),
        ("BothConfig", ["BothForImageClassificationLearned"], "image"),
        ("BothConfig", ["BothForSequenceClassification"], "text"),
        ("BothConfig", None, "text"),
    ],
)
def test_a_directory_is_a_model_of_transformers(transformers, tmp_path, kind, architectures, asked):
    transformers.loading["mismatched_keys"] = [("classifier.weight", (5, 4), (3, 4)), ("classifier.bias", (5,), (3,))]
    path = directory(tmp_path, kind, architectures=architectures)
    model, groups = load_pretrained(str(path), num_outputs=3)
    assert transformers.asked == [(asked, {**LOCAL, "num_labels": 3, "ignore_mismatched_sizes": True})]
    assert isinstance(model, Logits)
    assert model.model.classifier is transformers.head
    assert shapes(groups) == [[(4, 4), (4,), (4, 4), (4,)], [(4, 4), (4,)], [(3, 4), (3,)]]


def test_all_that_is_new_is_in_the_last_group(transformers, tmp_path):
    transformers.loading["missing_keys"] = {"pooler.weight", "pooler.bias", "classifier.weight", "classifier.bias"}
    model, groups = load_pretrained(directory(tmp_path), num_outputs=3)
    assert model.model.classifier is transformers.head
    assert shapes(groups) == [[(4, 4), (4,)], [(4, 4), (4,)], [(4, 4), (4,), (3, 4), (3,)]]


def test_a_head_that_was_loaded_is_replaced_and_kept_only_when_asked(transformers, tmp_path):
    model, groups = load_pretrained(directory(tmp_path), num_outputs=5)
    assert model.model.classifier is not transformers.head
    assert groups[-1][0] is model.model.classifier.weight
    model, groups = load_pretrained(directory(tmp_path), num_outputs=None)
    assert transformers.asked[-1] == ("image", LOCAL)
    assert model.model.classifier is transformers.head
    assert shapes(groups)[-1] == [(5, 4), (5,)]


def test_logits_work_with_all_kinds_of_batches(transformers, tmp_path):
    model, groups = load_pretrained(directory(tmp_path), num_outputs=3)
    values, labels = torch.zeros(2, 4), torch.tensor([0, 2])
    assert model(values).shape == (2, 3)
    assert model(values=values).shape == (2, 3)
    assert model(values=values, labels=labels).loss.ndim == 0
    for batch in ((values, labels), ({"values": values}, labels)):
        optimizer = torch.optim.SGD([{"params": group} for group in groups], lr=0.1, momentum=0.9)
        learn = cw.Learner(model, cw.Data([batch] * 2), optimizer=optimizer, progress=False)
        assert learn.fit_one_cycle(1, max_lr=[0.01, 0.03, 0.1]).num_steps == 2


def test_directories_that_hold_no_classifier(transformers, tmp_path):
    with pytest.raises(cw.ArgumentError) as caught:
        load_pretrained(tmp_path, num_outputs=3)
    assert str(caught.value) == (
        f"arch must be a directory with the config.json of a Hugging Face model, got {str(tmp_path)!r} without; "
        "save one with save_pretrained(directory); for a timm model of that name put 'timm/' before it"
    )
    with pytest.raises(cw.ArgumentError) as caught:
        load_pretrained(directory(tmp_path, "SpeechConfig"), num_outputs=3)
    assert str(caught.value) == (
        "arch must be a directory with a classifier of images or text, got a SpeechConfig; "
        "pass a function that loads the model"
    )
    assert transformers.asked == []


@pytest.mark.parametrize("package", ["timm", "transformers"])
def test_missing_packages_are_named_with_the_command(monkeypatch, tmp_path, package):
    def missing(name):
        raise ModuleNotFoundError(f"No module named {name!r}", name=name)

    monkeypatch.setattr("importlib.import_module", missing)
    arch = directory(tmp_path) if package == "transformers" else "resnet18"
    with pytest.raises(
        cw.MissingExtraError, match=re.escape(f'{package}, which is not installed; run: pip install "cyc')
    ):
        load_pretrained(arch, num_outputs=3)


def test_what_an_installed_package_misses_passes_through(monkeypatch):
    def broken(name):
        raise ModuleNotFoundError("No module named 'torchvision'", name="torchvision")

    monkeypatch.setattr("importlib.import_module", broken)
    with pytest.raises(ModuleNotFoundError, match="torchvision"):
        load_pretrained("resnet18", num_outputs=3)
