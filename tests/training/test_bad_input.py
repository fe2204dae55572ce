"""What a newcomer may hand to a Learner by mistake: each is refused with a message that shows it and the way out."""

import re

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, TensorDataset

import cyclewise as cw

INPUTS = torch.randn(8, 4, generator=torch.Generator().manual_seed(0))
CLASSES = torch.arange(8) % 2
STEP = cw.Constant(lr=0.1, total_steps=1)
PLACE = "batches must be on the model's device, 'cpu', got a tensor on 'meta'; move the model before the Learner or " \
        "the optimizer is made, or the batches, with .to(device)"  # fmt: skip
METRICS = "metrics must be a dict of functions by name, or a list of functions, got {}; pass for example " \
          "{{'accuracy': cyclewise.accuracy}}"  # fmt: skip


def network(num_outputs=2):
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, num_outputs))


def learner(targets=CLASSES, inputs=INPUTS, model=None, **options):
    batches = [(inputs, targets)]
    return cw.Learner(model or network(), cw.Data(batches, batches), progress=False, **options)


@pytest.mark.parametrize("how", ["fit", "lr_find", "evaluate"])
@pytest.mark.parametrize(("options", "targets", "num_outputs", "message"), [
    ({}, CLASSES + 1, 2,
     "targets must be class indices in [0, 2), one for each sample, got targets of torch.int64 (8,) from 1 to 2 and "
     "outputs of (8, 2); give the model as many outputs as there are classes, and number those from 0"),
    ({}, CLASSES[:5], 2,
     "targets must be class indices in [0, 2), one for each sample, got targets of torch.int64 (5,) from 0 to 1 and "
     "outputs of (8, 2); give the model as many outputs as there are classes, and number those from 0"),
    ({}, [0, 1] * 4, 2,
     "loss_fn must be given unless targets are class indices [N] for outputs [N, C], got targets of the type list and "
     "outputs of (8, 2); pass for example loss_fn=torch.nn.functional.mse_loss"),
    ({"loss_fn": F.cross_entropy}, CLASSES.float(), 2,
     "targets must fit the outputs and cross_entropy, got outputs torch.float32 of shape (8, 2) and targets "
     "torch.float32 of shape (8,), of which torch says: expected target dtype to be Long or Byte, but got Float; "
     "pass class indices from 0 to C - 1, torch.int64 of shape [N], for outputs [N, C]"),
    ({"loss_fn": nn.CrossEntropyLoss()}, CLASSES + 1, 2,
     "targets must fit the outputs and CrossEntropyLoss, got outputs torch.float32 of shape (8, 2) and targets "
     "torch.int64 of shape (8,) with values from 1 to 2, of which torch says: Target 2 is out of bounds.; "
     "pass class indices from 0 to C - 1, torch.int64 of shape [N], for outputs [N, C]"),
    ({"loss_fn": F.binary_cross_entropy_with_logits}, CLASSES.float(), 1,
     "targets must fit the outputs and binary_cross_entropy_with_logits, got outputs torch.float32 of shape (8, 1) and "
     "targets torch.float32 of shape (8,), of which torch says: Target size (torch.Size([8])) must be the same as "
     "input size (torch.Size([8, 1])); give both the same shape and a floating point type, for example "
     "targets.float()"),
    ({"loss_fn": F.mse_loss}, CLASSES.float(), 1,
     "targets must have the shape of the outputs for mse_loss, got outputs torch.float32 of shape (8, 1) and targets "
     "torch.float32 of shape (8,); reshape one of them, for example targets[:, None] or outputs.squeeze(1)"),
])  # fmt: skip
def test_targets_that_do_not_fit_are_shown_with_the_outputs(how, options, targets, num_outputs, message):
    learn = learner(targets, model=network(num_outputs), **options)
    with pytest.raises(cw.ArgumentError) as caught:
        learn.fit(STEP) if how == "fit" else getattr(learn, how)()
    assert str(caught.value) == message


def test_a_loss_of_ones_own_raises_the_same_object_with_a_note():
    error = ValueError("mine")

    def loss_fn(outputs, targets):
        raise error

    with pytest.raises(ValueError) as caught:  # noqa: PT011
        learner(loss_fn=loss_fn).fit(STEP)
    assert caught.value is error
    assert str(error) == "mine"
    if hasattr(error, "__notes__"):
        assert error.__notes__ == [
            "raised by loss_fn for outputs torch.float32 of shape (8, 2) and targets torch.int64 of shape (8,)"
        ]


def test_what_the_model_raises_gets_a_note_about_types():
    with pytest.raises(RuntimeError) as caught:
        learner(inputs=INPUTS.double()).fit(STEP)
    assert not isinstance(caught.value, cw.CyclewiseError)
    if hasattr(caught.value, "__notes__"):
        assert caught.value.__notes__ == [
            "raised by the model for inputs torch.float64 of shape (8, 4), while its parameters are torch.float32; "
            "convert the inputs, as with .to(torch.float32)"
        ]


class Named(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(4, 2)

    def forward(self, x, labels):
        logits = self.layer(x)
        return {"loss": F.cross_entropy(logits, labels), "logits": logits}


def test_a_dict_batch_has_the_loss_of_the_models_output():
    torch.manual_seed(0)
    batches = [{"x": INPUTS, "labels": CLASSES}]
    learn = cw.Learner(Named(), cw.Data(batches, batches), progress=False)
    before = learn.evaluate()["loss"]
    assert learn.fit(cw.Constant(lr=0.1, total_steps=20)).loss[0] == before
    assert learn.evaluate()["loss"] < before


def replaced():
    learn = learner()
    learn.model[2] = nn.Linear(8, 2)
    return learn


def moved():
    learn = learner()
    learn.model.to("meta")
    return learn


@pytest.mark.parametrize(("call", "error", "message"), [
    (lambda: learner(inputs=INPUTS.to("meta")).fit(STEP), cw.ArgumentError, PLACE),
    (lambda: learner(CLASSES.to("meta")).evaluate(), cw.ArgumentError, PLACE),
    (lambda: learner().predict(INPUTS.to("meta")), cw.ArgumentError, PLACE),
    (lambda: learner(model=network().to("meta")), cw.ArgumentError,
     "model must have parameters with values, got them on the device 'meta', which has none; "
     "call model.to_empty(device=...) and load weights, then make the Learner"),
    (lambda: moved().fit(STEP), cw.ArgumentError,
     "model must have parameters with values, got them on the device 'meta', which has none; "
     "call model.to_empty(device=...) and load weights, then make the Learner"),
    (lambda: replaced().fit(STEP), cw.ArgumentError,
     "optimizer must own parameters of this model, got 2 of 4 that are not; "
     "make the optimizer from model.parameters(), after the last change of the model"),
    (lambda: learner(model=network().requires_grad_(False)).fit(STEP), cw.ArgumentError,
     "optimizer must own a parameter that is trained, got 4 with requires_grad=False; "
     "call learn.unfreeze(), or requires_grad_(True) on what should be trained"),
    (lambda: learner(loss_fn=lambda outputs, targets: outputs.detach().sum()).fit(STEP), cw.ArgumentError,
     "loss_fn must return a loss that depends on a parameter that is trained, got one without a gradient; "
     "call requires_grad_(True) on what should be trained, and leave detach() and no_grad() out"),
    (lambda: learner(loss_fn="mse"), cw.ArgumentTypeError,
     "loss_fn must be a function (outputs, targets) -> scalar tensor, got str 'mse'; "
     "pass for example torch.nn.functional.cross_entropy"),
    (lambda: learner(metrics="accuracy"), cw.ArgumentTypeError, METRICS.format("str 'accuracy'")),
    (lambda: learner(metrics=None), cw.ArgumentTypeError, METRICS.format("NoneType None")),
    (lambda: learner(metrics=cw.accuracy), cw.ArgumentTypeError, METRICS.format("a function")),
    (lambda: learner(metrics=[lambda o, t: 1.0, lambda o, t: 2.0]), cw.ArgumentError,
     "metrics must have names of their own, got '<lambda>' twice; pass a dict with names"),
    (lambda: learner(metrics={"valid_loss": cw.accuracy}), cw.ArgumentError,
     "metrics must not contain the name 'valid_loss', got it; the loss is always reported"),
    (lambda: learner().fit(STEP, callbacks=cw.EarlyStopping()), cw.ArgumentTypeError,
     "callbacks must be a list, got a EarlyStopping; pass [callback]"),
    (lambda: learner().fit(STEP, callbacks=[cw.EarlyStopping]), cw.ArgumentTypeError,
     "callbacks must be a list of callbacks, made from classes that inherit cw.Callback, got a type; "
     "pass for example [cw.EarlyStopping()]"),
    (lambda: cw.Learner(network(), [(INPUTS, CLASSES)], progress="loud"), cw.ArgumentError,
     "progress must be \"auto\", True or False, got 'loud'; pass False for silence"),
    (lambda: learner().predict("inputs.pt"), cw.ArgumentTypeError,
     "inputs must be an array of samples or a loader of batches, got str 'inputs.pt'; pass a tensor"),
    (lambda: learner(layer_groups=[[(model := network())[0], model[2]], [model[2]]], model=model), cw.ArgumentError,
     "layer_groups must hold every parameter of the model once, got 4 for 4; "
     "put each module into one group, tied ones into the first"),
])  # fmt: skip
def test_bad_calls_say_what_to_do(call, error, message):
    with pytest.raises(error) as caught:
        call()
    assert str(caught.value) == message


def test_a_metric_needs_nothing_but_the_three_methods():
    class Count:
        def reset(self):
            self.count = 0

        def update(self, outputs, targets):
            self.count += len(targets)

        def compute(self):
            return self.count

    assert learner(metrics={"count": Count()}).evaluate()["count"] == 8


def test_the_data_of_a_learner_cannot_be_replaced_unnoticed():
    learn = learner()
    with pytest.raises(cw.ArgumentError) as caught:
        learn.data = [1]
    assert str(caught.value) == (
        "data must stay the same for the life of a Learner, got list [1]; go on with the same model in another one, "
        "cw.Learner(learn.model, data, optimizer=learn.optimizer)"
    )


@pytest.mark.parametrize("monitor", ["valid_loss", "accuracy"])
def test_early_stopping_is_refused_before_the_first_step(monitor):
    learn = cw.Learner(network(), [(INPUTS, CLASSES)], metrics=[cw.accuracy], progress=False)
    with pytest.raises(cw.ArgumentError, match=re.escape(f"monitor must be one of ['train_loss'], got '{monitor}'; ")):
        learn.fit(STEP, callbacks=[cw.EarlyStopping(monitor)])
    assert learn.num_steps == 0


class Tied(nn.Module):
    def __init__(self):
        super().__init__()
        self.first, self.second, self.head = nn.Linear(4, 4), nn.Linear(4, 4), nn.Linear(4, 2)
        self.second.weight = self.first.weight

    def forward(self, x):
        return self.head(self.second(self.first(x)))


def test_a_tied_parameter_is_in_the_first_of_its_groups():
    model = Tied()
    learn = learner(model=model, layer_groups=[model.first, model.second, model.head])
    assert [len(group["params"]) for group in learn.optimizer.param_groups] == [2, 1, 2]
    learn.fit(STEP)
    assert model.first.weight is model.second.weight


def test_a_collection_of_torchmetrics_is_its_metrics():
    from torchmetrics import MetricCollection
    from torchmetrics.classification import MulticlassAccuracy, MulticlassF1Score

    learn = learner(metrics=MetricCollection([MulticlassAccuracy(num_classes=2), MulticlassF1Score(num_classes=2)]))
    assert set(learn.evaluate()) == {"loss", "MulticlassAccuracy", "MulticlassF1Score"}


def test_predictions_without_targets_and_of_plain_lists():
    learn = learner()
    expected = learn.predict(INPUTS)
    assert torch.equal(learn.predict(DataLoader(TensorDataset(INPUTS), batch_size=3)), expected)
    assert torch.equal(learn.predict(INPUTS.tolist()), expected)
    assert torch.equal(learn.predict(INPUTS.numpy().astype("float64")), expected)


@pytest.mark.parametrize(("also", "got"), [(5, "int 5"), (None, "NoneType None")])
def test_what_else_a_range_test_gives_back_must_be_a_list(also, got):
    with pytest.raises(cw.ArgumentTypeError) as caught:
        learner().lr_find(also=also)
    assert str(caught.value) == f"also must be a list of objects, got {got}; pass also=[ema]"
