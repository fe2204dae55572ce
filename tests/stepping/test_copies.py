"""What is copied of a batch, and what is passed on as it is."""

from collections import OrderedDict, UserDict, defaultdict, namedtuple
from collections.abc import MutableMapping
from dataclasses import dataclass, field
from types import MappingProxyType

import pytest
import torch
from torch.nn.utils.rnn import PackedSequence, pack_sequence

from cyclewise.copies import copied

Pair = namedtuple("Pair", "inputs targets")


@dataclass(frozen=True, slots=True)
class Frozen:
    inputs: torch.Tensor
    note: object = None


@dataclass
class Computed:
    inputs: torch.Tensor
    size: torch.Tensor = field(init=False)
    num_made = 0

    def __post_init__(self):
        Computed.num_made += 1
        self.size = torch.tensor(len(self.inputs))


class Named(UserDict):
    def __init__(self, data, *, name):
        super().__init__(data)
        self.name = name


def test_tensors_are_new_ones_with_the_same_bits_at_any_depth():
    inputs, mask, targets = torch.randn(4, 3), torch.randn(4) > 0, torch.arange(4)
    batch = ([inputs, {"mask": (mask,)}], targets)
    copy = copied(batch)
    assert type(copy) is tuple
    assert type(copy[0]) is list
    assert type(copy[0][1]) is dict
    for old, new in ((inputs, copy[0][0]), (mask, copy[0][1]["mask"][0]), (targets, copy[1])):
        assert torch.equal(old, new)
        assert old.dtype == new.dtype
        assert old.data_ptr() != new.data_ptr()


def test_named_tuples_and_packed_sequences_keep_their_type():
    copy = copied(Pair(torch.ones(2), torch.zeros(2)))
    assert type(copy) is Pair
    assert copy.inputs.tolist() == [1.0, 1.0]
    packed = pack_sequence([torch.ones(3, 2), torch.ones(1, 2)])
    copy = copied(packed)
    assert type(copy) is PackedSequence
    assert copy.data.data_ptr() != packed.data.data_ptr()
    assert torch.equal(copy.batch_sizes, packed.batch_sizes)
    assert copy.sorted_indices is None


def test_a_frozen_dataclass_is_rebuilt():
    batch = Frozen(torch.ones(2), note="as it is")
    copy = copied(batch)
    copy.inputs.zero_()
    assert type(copy) is Frozen
    assert copy.note == "as it is"
    assert batch.inputs.tolist() == [1.0, 1.0]


def test_a_dataclass_is_not_constructed_again():
    batch = Computed(torch.ones(2))
    made = Computed.num_made
    copy = copied(batch)
    assert Computed.num_made == made
    assert copy.size == 2
    assert copy.size is not batch.size


@pytest.mark.parametrize(
    "batch",
    [OrderedDict(x=torch.ones(2)), defaultdict(list, x=torch.ones(2)), Named({"x": torch.ones(2)}, name="mine")],
    ids=["OrderedDict", "defaultdict", "UserDict"],
)
def test_mappings_keep_their_type_and_what_else_they_hold(batch):
    copy = copied(batch)
    copy["x"].zero_()
    copy["more"] = 1
    assert type(copy) is type(batch)
    assert batch["x"].tolist() == [1.0, 1.0]
    assert list(batch) == ["x"]
    assert getattr(copy, "default_factory", None) is getattr(batch, "default_factory", None)
    assert getattr(copy, "name", None) == getattr(batch, "name", None)


def test_a_mapping_that_cannot_be_changed_is_rebuilt():
    batch = MappingProxyType({"x": torch.ones(2)})
    copy = copied(batch)
    assert type(copy) is MappingProxyType
    assert copy["x"].data_ptr() != batch["x"].data_ptr()


def test_anything_else_is_passed_on_as_it_is():
    other = object()
    assert copied(other) is other
    assert copied((other, "text", None, 1.5, Frozen)) == (other, "text", None, 1.5, Frozen)


def test_a_tensor_that_is_there_twice_is_one_in_the_copy():
    inputs = torch.ones(2)
    copy = copied((inputs, [inputs]))
    assert copy[0] is copy[1][0]
    assert copy[0] is not inputs


def test_a_batch_that_holds_itself_ends():
    batch = {"x": torch.ones(2)}
    batch["self"] = batch
    copy = copied(batch)
    assert copy["self"] is copy
    assert copy is not batch


def test_a_leaf_stays_a_leaf_and_a_graph_stays_attached():
    leaf = torch.ones(2, requires_grad=True)
    copy, doubled = copied((leaf, leaf * 2))
    assert copy.is_leaf
    assert copy.requires_grad
    doubled.sum().backward()
    assert leaf.grad.tolist() == [2.0, 2.0]
    assert copy.grad is None


def test_a_device_is_where_the_copies_are():
    inputs = torch.ones(2)
    assert copied([inputs], torch.device("meta"))[0].device.type == "meta"
    assert copied([inputs], torch.device("cpu"))[0].data_ptr() != inputs.data_ptr()


class Both(tuple):
    """A tuple that is made of two things."""

    def __new__(cls, first, second):
        return super().__new__(cls, (first, second))


class Fields(MutableMapping):
    """A mapping that is made of names, and of nothing else."""

    def __init__(self, *names):
        self.fields = {name: torch.ones(1) for name in names}

    def __getitem__(self, name):
        return self.fields[name]

    def __setitem__(self, name, value):
        self.fields[name] = value

    def __delitem__(self, name):
        del self.fields[name]

    def __iter__(self):
        return iter(self.fields)

    def __len__(self):
        return len(self.fields)


def test_what_is_made_in_its_own_way_is_copied_or_left_alone():
    pair = Both(torch.ones(1), torch.zeros(1))
    new = copied(pair)
    assert type(new) is Both
    assert new[0] is not pair[0]
    fields = Fields("a")
    before = fields["a"]
    copied(fields)
    assert fields["a"] is before
