import re

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn
from torch.utils.data import ConcatDataset, DataLoader, Dataset, IterableDataset, Subset, TensorDataset

import cyclewise as cw
from cyclewise.training.data import ArrayLoader
from cyclewise.training.layers import find_head, last_layer, num_classes, replace_head, split_layers


class Block(nn.Module):
    def __init__(self, width, depth):
        super().__init__()
        self.layers = nn.ModuleList(nn.Linear(width, width) for _ in range(depth))


def residual_network():
    """Twenty layers under four top-level blocks, after two single layers, as a ResNet has them."""
    parts = {"stem": nn.Conv2d(3, 4, 3), "norm": nn.BatchNorm2d(4)}
    parts |= {f"layer{i}": Block(4, depth) for i, depth in enumerate((4, 4, 5, 5))}
    model = nn.Module()
    for name, part in parts.items():
        model.add_module(name, part)
    model.fc = nn.Linear(4, 10)
    return model


def names(model, groups):
    of = {id(parameter): name for name, parameter in model.named_parameters()}
    return [[of[id(parameter)] for parameter in group] for group in groups]


class TimmLike(nn.Module):
    """A model that knows its classifier; like timm's it makes the new one on the default device, in float32."""

    def __init__(self, num_classes=1000, num_heads=1):
        super().__init__()
        self.heads = nn.ModuleList(nn.Linear(4, num_classes) for _ in range(num_heads))
        self.body = nn.Linear(4, 4)

    def get_classifier(self):
        return self.heads[0] if len(self.heads) == 1 else tuple(self.heads)

    def reset_classifier(self, num_classes):
        self.heads = nn.ModuleList(nn.Linear(4, num_classes) if num_classes else nn.Identity() for _ in self.heads)


def test_the_last_linear_is_replaced_in_place():
    model = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 1000, bias=False)).double().eval()
    body = model[0].weight
    head = replace_head(model, 10)
    assert model[2] is head
    assert model[0].weight is body
    assert head.weight.shape == (10, 8)
    assert head.weight.dtype == torch.float64
    assert head.bias is None
    assert not head.training
    assert model(torch.ones(3, 4).double()).shape == (3, 10)


def test_a_head_of_the_right_size_is_replaced_too():
    model = nn.Sequential(nn.Linear(4, 8), nn.Linear(8, 10))
    old = model[1]
    assert replace_head(model, 10) is not old
    assert not torch.equal(model[1].weight, old.weight)


def test_a_head_that_is_registered_twice_is_replaced_in_both_places():
    model = nn.ModuleDict({"body": nn.Linear(4, 8), "head": nn.Linear(8, 5)})
    model["again"] = nn.Sequential(model["head"])
    head = replace_head(model, 3)
    assert model["head"] is head
    assert model["again"][0] is head


def test_a_convolution_as_classifier():
    model = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Conv2d(8, 1000, 1), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    head = replace_head(model, 10)
    assert model[2] is head
    assert model(torch.zeros(2, 3, 6, 6)).shape == (2, 10)


@pytest.mark.parametrize(
    "model",
    [
        nn.Sequential(nn.Conv2d(3, 8, 3), nn.Conv2d(8, 8, 1), nn.BatchNorm2d(8)),
        nn.Sequential(nn.Conv2d(3, 8, 3)),
        nn.Sequential(nn.Conv2d(3, 8, 1), nn.ConvTranspose2d(8, 8, 1)),
        nn.Sequential(nn.MultiheadAttention(4, 2)),
        nn.Sequential(nn.ReLU()),
        nn.Linear(4, 2),
    ],
    ids=[
        "convolution before a norm",
        "3x3",
        "transposed",
        "attention's projection",
        "no parameters",
        "the layer itself",
    ],
)
def test_a_model_without_a_head_to_replace(model):
    with pytest.raises(cw.ArgumentError) as caught:
        replace_head(model, 3)
    assert str(caught.value) == (
        "model must end in a Linear or 1x1 convolution layer that can be replaced, got a "
        f"{type(model).__name__} without one; pass a function that returns a model with its own head, "
        "and num_outputs=None"
    )


def test_a_lazy_head_and_a_bad_size():
    with pytest.raises(cw.ArgumentError, match="got a LazyLinear as head that has not seen a batch; run one batch"):
        replace_head(nn.Sequential(nn.LazyLinear(3)), 2)
    with pytest.raises(cw.ArgumentError) as caught:
        replace_head(nn.Sequential(nn.Linear(2, 2)), 0)
    assert str(caught.value) == "num_outputs must be a whole number of at least 1, got 0; pass the number of classes"


def test_a_model_that_knows_its_classifier():
    model = TimmLike().double()
    head = replace_head(model, 10)
    assert head is model.get_classifier()
    assert head.weight.dtype == torch.float64
    assert find_head(model) is head
    model.reset_classifier(0)
    assert find_head(model) is None


def test_a_model_with_two_classifiers():
    model = TimmLike(num_heads=2)
    head = replace_head(model, 10)
    assert [part.out_features for part in model.heads] == [10, 10]
    assert {id(p) for p in head.parameters()} == {id(p) for p in model.heads.parameters()}
    assert names(model, split_layers(model, head))[-1] == [
        "heads.0.weight", "heads.0.bias", "heads.1.weight", "heads.1.bias"
    ]  # fmt: skip


def test_blocks_that_fit_are_not_divided():
    model = residual_network()
    groups = names(model, split_layers(model, model.fc))
    assert [sorted({name.split(".")[0] for name in group}) for group in groups] == [
        ["layer0", "layer1", "norm", "stem"],
        ["layer2", "layer3"],
        ["fc"],
    ]


def test_a_block_larger_than_a_group_is_opened():
    model = nn.Sequential(nn.Linear(4, 4), nn.Sequential(*(Block(4, 3) for _ in range(6))), nn.Linear(4, 2))
    groups = names(model, split_layers(model, model[2]))
    assert [name for name in groups[0] if name.endswith("weight")] == [
        "0.weight", *(f"1.{block}.layers.{layer}.weight" for block in range(3) for layer in range(3))
    ]  # fmt: skip


def test_a_block_is_opened_for_a_group_that_would_be_missing():
    model = nn.Sequential(Block(4, 3), Block(4, 3), Block(4, 3), nn.Linear(4, 2))
    assert [len(group) // 2 for group in split_layers(model, model[3], 4)] == [3, 3, 3, 1]
    assert [len(group) // 2 for group in split_layers(model, model[3], 5)] == [2, 2, 3, 2, 1]
    assert [len(group) // 2 for group in split_layers(model, model[3], 3)] == [3, 6, 1]


def test_layers_of_torch_are_never_divided():
    attention = nn.MultiheadAttention(4, 2)
    normed = nn.utils.parametrizations.weight_norm(nn.Linear(4, 4))
    model = nn.Sequential(attention, normed, nn.Linear(4, 2))
    for num_groups in range(2, 6):
        groups = split_layers(model, model[2], num_groups)
        for layer in (attention, normed):
            ids = {id(parameter) for parameter in layer.parameters()}
            assert sum(bool(ids & {id(parameter) for parameter in group}) for group in groups) == 1
    assert len(split_layers(model, model[2], 5)) == 3


def test_a_tied_weight_is_with_the_head():
    model = nn.ModuleDict({"embedding": nn.Embedding(7, 4), "body": nn.Linear(4, 4), "head": nn.Linear(4, 7)})
    model["head"].weight = model["embedding"].weight
    assert names(model, split_layers(model, model["head"])) == [
        ["body.weight", "body.bias"],
        ["embedding.weight", "head.bias"],
    ]


def test_few_layers_make_few_groups():
    model = nn.Sequential(nn.Linear(2, 3))
    assert names(model, split_layers(model, model[0], 5)) == [["0.weight", "0.bias"]]
    assert split_layers(nn.ReLU(), nn.ReLU()) == []


def test_bad_splits_say_what_to_do():
    model = nn.Sequential(nn.Linear(2, 3))
    with pytest.raises(cw.ArgumentError) as caught:
        split_layers(model, model[0], 1)
    assert str(caught.value) == (
        "num_groups must be a whole number of at least 2, got 1; 3 is usual: early layers, late layers, head"
    )
    with pytest.raises(cw.ArgumentError) as caught:
        split_layers(model, nn.Linear(3, 3))
    assert str(caught.value) == (
        "head must be a part of the model, got one with 2 of 2 parameters that are not the model's; "
        "pass what replace_head() returned"
    )


@st.composite
def trees(draw, depth=3):
    """Modules of any nesting, some with parameters of their own beside their parts, some tied or shared."""
    pool = []

    def layer():
        kind = draw(st.integers(0, 5))
        if kind == 4 and pool:
            return draw(st.sampled_from(pool))
        made = [nn.Linear(2, 2), nn.BatchNorm1d(2), nn.ReLU(), nn.MultiheadAttention(2, 1)][min(kind, 3)]
        if kind == 5 and pool:
            made = nn.Linear(2, 2)
            made.weight = next(iter(draw(st.sampled_from(pool)).parameters()))
        if any(True for _ in made.parameters()):
            pool.append(made)
        return made

    def tree(depth):
        if depth == 0 or draw(st.booleans()):
            return layer()
        module = nn.Sequential(*(tree(depth - 1) for _ in range(draw(st.integers(1, 4)))))
        if draw(st.booleans()):
            module.scale = nn.Parameter(torch.ones(2))
        return module

    return nn.Sequential(*(tree(depth) for _ in range(draw(st.integers(1, 6)))), nn.Linear(2, 2))


@given(trees(), st.integers(2, 7))
def test_every_parameter_is_in_exactly_one_group(model, num_groups):
    head = model[-1]
    groups = split_layers(model, head, num_groups)
    ids = [id(parameter) for group in groups for parameter in group]
    assert len(ids) == len(set(ids))
    assert set(ids) == {id(parameter) for parameter in model.parameters()}
    assert all(groups)
    assert len(groups) <= num_groups
    assert {id(parameter) for parameter in groups[-1]} == {id(parameter) for parameter in head.parameters()}
    # The body keeps the order in which it was registered.
    of_head = {id(parameter) for parameter in head.parameters()}
    registered = [id(parameter) for parameter in model.parameters() if id(parameter) not in of_head]
    assert [i for i in ids if i not in of_head] == registered
    # No layer of torch is divided, but for what is tied to an earlier one.
    seen = set(of_head)
    for part in model.modules():
        if not isinstance(part, nn.Sequential):
            own = {id(parameter) for parameter in part.parameters()} - seen
            assert sum(bool(own & {id(parameter) for parameter in group}) for group in groups) <= 1
            seen |= own


@given(st.integers(1, 60), st.integers(2, 8))
def test_groups_of_single_layers_are_of_equal_depth(depth, num_groups):
    model = nn.Sequential(*(nn.LayerNorm(1, bias=False) for _ in range(depth)), nn.Linear(1, 1))
    *body, _ = [len(group) for group in split_layers(model, model[-1], num_groups)]
    assert len(body) == min(depth, num_groups - 1)
    assert max(body) - min(body) <= 1


def test_last_layer_of_a_model_without_parameters_is_the_model():
    model = nn.Sequential(nn.ReLU())
    assert last_layer(model) is model


class Images(Dataset):
    """What data sets of images look like: the targets are kept, and changed when a sample is taken."""

    def __init__(self, kept, *, attribute="targets", **attributes):
        self.kept = kept
        self.reads = 0
        if attribute:
            setattr(self, attribute, kept)
        for name, value in attributes.items():
            setattr(self, name, value)

    def __len__(self):
        return len(self.kept)

    def __getitem__(self, index):
        self.reads += 1
        target = self.kept[index]
        transform = getattr(self, "target_transform", None)
        return torch.zeros(2), target if transform is None else transform(target)


@pytest.mark.parametrize(
    ("dataset", "count"),
    [
        (Images([0, 3, 1]), 4),
        (Images(np.array([0, 3, 1], dtype=np.uint8), attribute="labels"), 4),
        (Images(torch.tensor([0, 3, 1])), 4),
        (Images([0, 3, 1], classes=["a", "b", "c", "d", "e"]), 5),
        (Images([0, 3, 1], attribute=None, classes=("a", "b", "c", "d")), 4),
        (Subset(Images([0, 3, 1]), [0, 2]), 4),
        (ConcatDataset([Images([0, 1]), Subset(Images([5, 1]), [1])]), 6),
        (TensorDataset(torch.zeros(3, 2), torch.zeros(3), torch.tensor([2, 0, 0])), 3),
    ],
)
def test_classes_that_the_data_set_knows(dataset, count):
    assert num_classes(cw.Data(DataLoader(dataset, batch_size=2))) == count
    assert getattr(dataset, "reads", 0) == 0


@pytest.mark.parametrize(
    ("dataset", "count"),
    [
        (Images([0, 3, 1], attribute=None), 4),
        (Images([0, 3, 1], target_transform=lambda target: target % 2), 2),
        (Images([0, 3, 1], attribute=None, labels=["cat", "dog", "bird"]), 4),
        (Images([0, 3, 1], attribute=None, targets=[[1], [2, 3]]), 4),
        (Images([0, 3, 1], attribute=None, targets=lambda: 0), 4),
        (ConcatDataset([Images([0, 7]), Images([0, 5], attribute=None)]), 8),
    ],
)
def test_classes_found_by_one_pass(dataset, count):
    assert num_classes(DataLoader(dataset, batch_size=2)) == count


def test_a_pass_consumes_nothing():
    generator = torch.Generator().manual_seed(3)
    dataset = Images([0, 2, 1, 1], attribute=None)
    loader = DataLoader(dataset, batch_size=2, shuffle=True, generator=generator)
    before, global_state = generator.get_state(), torch.get_rng_state()
    assert num_classes(loader) == 3
    assert torch.equal(generator.get_state(), before)
    assert torch.equal(torch.get_rng_state(), global_state)
    assert dataset.reads == 0


def test_classes_of_arrays_and_lists():
    arrays = ArrayLoader(torch.zeros(3, 2), torch.tensor([0, 8, 1]), batch_size=2, seed=0)
    assert num_classes(arrays) == 9
    assert arrays.num_passes == 0
    ignored = [(torch.zeros(2, 1), torch.tensor([-100, 1])), (torch.zeros(1, 1), torch.tensor([-100]))]
    assert num_classes(ignored) == 2
    assert num_classes([{"input_ids": torch.zeros(2, 3), "labels": torch.tensor([4, 0])}]) == 5


class Stream(IterableDataset):
    def __iter__(self):
        while True:
            yield torch.zeros(2), 1


@pytest.mark.parametrize(
    ("loader", "message"),
    [
        ([(torch.zeros(2, 1), torch.zeros(2))],
         "targets must be class indices, integers of shape [N], to count the classes, got torch.float32 of shape (2,); "
         "pass num_outputs= with the size of the model's output"),
        (ArrayLoader(torch.zeros(2, 1), torch.zeros(2, 3, dtype=torch.int64), batch_size=2, seed=None),
         "targets must be class indices, integers of shape [N], to count the classes, got torch.int64 of shape (2, 3); "
         "pass num_outputs= with the size of the model's output"),
        (DataLoader(TensorDataset(torch.zeros(2, 1), torch.tensor([True, False]))),
         "targets must be class indices, integers of shape [N], to count the classes, got torch.bool of shape (2,); "
         "pass num_outputs= with the size of the model's output"),
        ([{"input_ids": torch.zeros(2, 3)}],
         "targets must be class indices, integers of shape [N], to count the classes, got NoneType None; "
         "pass num_outputs= with the size of the model's output"),
        ([(torch.zeros(1, 1), torch.tensor([-100]))],
         "targets must hold a class index of at least 0, got -100 as the largest; "
         "pass num_outputs= with the size of the model's output"),
        (DataLoader(Stream(), batch_size=2),
         "train_loader must have a length to count the classes in one pass, got a DataLoader without one; "
         "pass num_outputs= with the size of the model's output"),
    ],
)  # fmt: skip
def test_targets_that_are_no_classes(loader, message):
    with pytest.raises(cw.ArgumentError, match="^" + re.escape(message) + "$"):
        num_classes(loader)
