import itertools
from dataclasses import dataclass

import pytest
import torch

from cyclewise import ArgumentTypeError
from cyclewise.loaders import Batches, check_loader


def test_batches_start_again_and_keep_the_order_of_the_loader():
    loader = torch.utils.data.DataLoader(list(range(5)), batch_size=2)
    batches = Batches(loader)
    assert [batch.tolist() for batch in batches.take(4)] == [[0, 1], [2, 3], [4], [0, 1]]
    assert batches.num_passes == 2


class Stream(torch.utils.data.IterableDataset):
    def __iter__(self):
        return iter(range(3))


def test_a_loader_without_length_is_fine():
    batches = Batches(torch.utils.data.DataLoader(Stream(), batch_size=2))
    assert [batch.tolist() for batch in batches.take(3)] == [[0, 1], [2], [0, 1]]


class Stored(torch.utils.data.IterableDataset):
    """Gives what it was made with: the same iterator each time."""

    def __init__(self, samples):
        self.samples = samples

    def __iter__(self):
        return self.samples


class UpToThree:
    """Counts from where it stands to 3."""

    def __next__(self):
        self.position += 1
        if self.position > 3:
            raise StopIteration
        return torch.tensor(float(self.position))


class Begun(UpToThree, torch.utils.data.IterableDataset):
    """Its own iterator, which begins anew whenever it is asked for, and counts how often."""

    def __init__(self):
        self.passes = 0

    def __iter__(self):
        self.passes += 1
        self.position = 0
        return self


def test_a_data_set_that_stores_its_iterator_is_refused_before_a_sample_is_lost():
    loader = torch.utils.data.DataLoader(Stored(iter(range(4))), batch_size=2)
    with pytest.raises(ArgumentTypeError) as caught:
        check_loader(loader, name="train_loader")
    assert str(caught.value) == (
        "train_loader must be iterable more than once, got a Stored that gives the same iterator each time, whose "
        "samples would be lost; have its __iter__ make a new one"
    )
    assert [batch.tolist() for batch in loader] == [[0, 1], [2, 3]]


def test_a_data_set_that_begins_anew_is_fine_and_does_not_notice_the_check():
    data = Begun()
    loader = torch.utils.data.DataLoader(data, batch_size=3)
    check_loader(loader, name="train_loader")
    assert data.passes == 0
    assert [len(batch) for batch in Batches(loader).take(2)] == [3, 3]


class Rewound(torch.utils.data.IterableDataset):
    """Gives its one cursor, set back to the beginning."""

    class Cursor(UpToThree):
        def __iter__(self):
            return self

    def __init__(self):
        self.cursor = Rewound.Cursor()

    def __iter__(self):
        self.cursor.position = 0
        return self.cursor


class Costly(torch.utils.data.IterableDataset):
    """Counts, outside itself, how often it is asked for its samples; only a worker can give them."""

    asked = 0

    def __iter__(self):
        Costly.asked += 1
        worker = torch.utils.data.get_worker_info()
        return iter(range(worker.id, 4, worker.num_workers))


def test_a_data_set_that_sets_its_cursor_back_is_fine():
    loader = torch.utils.data.DataLoader(Rewound(), batch_size=3)
    check_loader(loader, name="train_loader")
    assert [batch.tolist() for batch in Batches(loader).take(2)] == [[1.0, 2.0, 3.0]] * 2


def test_a_data_set_for_workers_is_not_asked_outside_of_them():
    loader = torch.utils.data.DataLoader(Costly(), batch_size=2, num_workers=2)
    check_loader(loader, name="train_loader")
    assert Costly.asked == 0
    assert sorted(batch.tolist() for batch in loader) == [[0, 2], [1, 3]]


def test_a_data_set_is_asked_once_whether_it_can_be_read_again():
    loader = torch.utils.data.DataLoader(Costly(), batch_size=2)
    for _ in range(3):
        check_loader(loader, name="train_loader")
    assert Costly.asked == 1


@dataclass
class Listed(torch.utils.data.IterableDataset):
    """Equal by value, and so without a hash."""

    samples: list

    def __iter__(self):
        return iter(self.samples)


def test_a_data_set_without_a_hash_is_fine():
    loader = torch.utils.data.DataLoader(Listed([1, 2, 3]), batch_size=3)
    for _ in range(2):
        check_loader(loader, name="train_loader")
    assert [batch.tolist() for batch in Batches(loader).take(2)] == [[1, 2, 3]] * 2


@pytest.mark.parametrize("part", ["sampler", "batch_sampler"])
def test_a_sampler_that_can_be_read_once_is_refused_unread(part):
    once = iter([0, 1] if part == "sampler" else [[0], [1]])
    loader = torch.utils.data.DataLoader(list(range(2)), **{part: once})
    with pytest.raises(ArgumentTypeError) as caught:
        check_loader(loader, name="train_loader")
    assert str(caught.value) == (
        f"train_loader must be iterable more than once, got a DataLoader whose {part} is the one-shot iterator "
        f"list_iterator; pass {part}=list(...), or a torch.utils.data.Sampler"
    )
    assert len(list(loader)) == 2


class StoredLoader:
    def __init__(self):
        self.batches = (batch for batch in [1, 2])

    def __iter__(self):
        return self.batches


def test_a_loader_that_stores_its_generator_is_refused_unread():
    loader = StoredLoader()
    with pytest.raises(ArgumentTypeError) as caught:
        check_loader(loader, name="train_loader")
    assert str(caught.value) == (
        "train_loader must be iterable more than once, got a StoredLoader that gives the same iterator each time, "
        "whose batches would be lost; have its __iter__ make a new one"
    )
    assert list(loader) == [1, 2]


class Looping:
    """Takes from an iterator that it was made with, each time it is asked."""

    def __init__(self, samples):
        self.samples = samples

    def __iter__(self):
        for sample in self.samples:
            yield torch.tensor(float(sample))


class LoopingSet(Looping, torch.utils.data.IterableDataset):
    pass


class Renewed(LoopingSet):
    """Keeps its iterator too, but makes it anew."""

    def __iter__(self):
        self.samples = iter([1, 2, 3])
        yield from self.samples


@pytest.mark.parametrize(
    "make",
    [Looping, LoopingSet, lambda samples: torch.utils.data.DataLoader(LoopingSet(samples), batch_size=1)],
    ids=["loader", "data set", "data set in a loader"],
)
@pytest.mark.parametrize(
    "once", [iter, lambda samples: (s for s in samples), lambda samples: map(int, samples)], ids=["iter", "()", "map"]
)
def test_what_loops_over_an_iterator_that_it_keeps_is_refused_unread(make, once):
    loader = make(once([1, 2]))
    source = getattr(loader, "dataset", loader)
    with pytest.raises(ArgumentTypeError) as caught:
        check_loader(loader, name="train_loader")
    assert str(caught.value) == (
        f"train_loader must be iterable more than once, got a {type(source).__name__} whose __iter__ uses up the "
        "one-shot iterator that it keeps as samples; have its __iter__ make a new one"
    )
    assert [float(batch) for batch in loader] == [1.0, 2.0]


@pytest.mark.parametrize("kept", [Renewed(iter([])), LoopingSet([1, 2, 3]), LoopingSet(itertools.cycle([1, 2, 3]))])
def test_what_makes_its_iterator_anew_or_never_comes_to_its_end_is_fine(kept):
    loader = torch.utils.data.DataLoader(kept, batch_size=1)
    check_loader(loader, name="train_loader")
    assert [float(batch) for batch in Batches(loader).take(4)] == [1.0, 2.0, 3.0, 1.0]
