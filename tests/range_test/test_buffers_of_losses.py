"""Losses with tensors of their own, and steps and optimizers that keep or clear what the test looks at."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, TensorDataset

import cyclewise as cw
from cyclewise.range_test.find import lr_find_by_step
from cyclewise.stepping import Step
from tests.range_test.tasks import make_task


class Normalised(nn.Module):
    """A loss with running statistics."""

    def __init__(self):
        super().__init__()
        self.norm = nn.BatchNorm1d(3)

    def forward(self, outputs, targets):
        return F.cross_entropy(self.norm(outputs), targets)


@pytest.mark.parametrize(
    ("loss_fn", "targets"),
    [
        (nn.CrossEntropyLoss(weight=torch.tensor([1.0, 2.0, 3.0])), "classes"),
        (nn.MultiMarginLoss(weight=torch.tensor([1.0, 2.0, 3.0])), "classes"),
        (Normalised(), "classes"),
        (nn.BCEWithLogitsLoss(pos_weight=torch.tensor([1.0, 2.0, 3.0])), "one-hot"),
        (nn.MultiLabelSoftMarginLoss(weight=torch.tensor([1.0, 2.0, 3.0])), "one-hot"),
    ],
    ids=["class weights", "margin", "batch norm", "pos_weight", "multi-label"],
)
@pytest.mark.parametrize("accumulation_steps", [1, 2])
def test_tensors_of_a_loss_stay_what_they_are(loss_fn, targets, accumulation_steps):
    torch.manual_seed(0)
    inputs = torch.randn(600, 10)
    classes = (inputs @ torch.randn(10, 3)).argmax(1)
    wanted = classes if targets == "classes" else F.one_hot(classes, 3).float()
    model = nn.Sequential(nn.Linear(10, 32), nn.ReLU(), nn.Linear(32, 3))
    before = [(buffer, buffer.clone()) for buffer in loss_fn.buffers()]
    result = cw.lr_find(
        model,
        torch.optim.AdamW(model.parameters()),
        loss_fn,
        DataLoader(TensorDataset(inputs, wanted), batch_size=30, shuffle=True),
        accumulation_steps=accumulation_steps,
    )
    assert result.max_lr is not None
    assert result.link > 2.5
    assert [id(buffer) for buffer in loss_fn.buffers()] == [id(buffer) for buffer, _ in before]
    assert all(torch.equal(buffer, value) for buffer, value in before)


class Trainer:
    """Makes the updates itself, and counts and averages as it goes."""

    def __init__(self):
        self.model, self.optimizer, self.loader = make_task()
        self.global_step = 0
        self.average = [parameter.detach().clone() for parameter in self.model.parameters()]

    def training_step(self, batch):
        inputs, targets = batch
        self.optimizer.zero_grad()
        loss = F.cross_entropy(self.model(inputs), targets)
        loss.backward()
        self.optimizer.step()
        self.global_step += 1
        for average, parameter in zip(self.average, self.model.parameters(), strict=True):
            average.lerp_(parameter.detach(), 0.1)
        return loss.item()

    __call__ = training_step


@pytest.mark.parametrize("is_method", [True, False])
def test_what_hangs_on_a_step_that_is_a_method_or_an_object_is_given_back(is_method):
    trainer = Trainer()
    before = [average.clone() for average in trainer.average]
    step = trainer.training_step if is_method else trainer
    found = cw.lr_find(train_step=step, model=trainer.model, optimizer=trainer.optimizer, train_loader=trainer.loader)
    assert found.num_steps > 50
    assert trainer.global_step == 0
    assert all(map(torch.equal, trainer.average, before))


def test_an_optimizer_that_clears_its_gradients_is_not_called_one_without():
    model, _, loader = make_task()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    expected = cw.lr_find(model, optimizer, F.cross_entropy, loader)
    optimizer.register_step_post_hook(lambda own, args, kwargs: own.zero_grad())
    assert expected.max_lr is not None
    assert cw.lr_find(model, optimizer, F.cross_entropy, loader).max_lr == expected.max_lr


def test_nobody_is_left_watching_the_gradients_of_a_step():
    model, optimizer, loader = make_task()
    step = Step(model, optimizer, F.cross_entropy)
    assert lr_find_by_step(step, loader).max_lr is not None
    assert step.on_gradients == []
