"""Models whose parameters or gradients are not dense real numbers: sparse, complex, or not there yet."""

import pytest
import torch
from torch import nn

import cyclewise as cw

INPUTS = torch.randn(64, 4, generator=torch.Generator().manual_seed(0))
CLASSES = (INPUTS[:, 0] > 0).long()
WORDS = torch.randint(12, (64, 5), generator=torch.Generator().manual_seed(1))
STEPS = cw.Constant(lr=0.1, total_steps=60)


class Complex(nn.Module):
    def __init__(self, has_real_part):
        super().__init__()
        self.mix = nn.Parameter(torch.randn(4, 8, dtype=torch.complex64))
        self.head = nn.Linear(8, 2) if has_real_part else None

    def forward(self, inputs):
        mixed = (inputs.to(torch.complex64) @ self.mix).abs()
        return mixed[:, :2] if self.head is None else self.head(mixed)


def words(is_sparse, **options):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Embedding(12, 3, sparse=is_sparse), nn.Flatten(), nn.Linear(15, 2))
    data = cw.Data.from_arrays(WORDS, CLASSES, batch_size=8)
    options.setdefault("optimizer", torch.optim.SGD(model.parameters(), lr=0.1))
    return cw.Learner(model, data, progress=False, **options)


@pytest.mark.parametrize("has_real_part", [True, False])
def test_complex_weights_are_averaged(has_real_part):
    torch.manual_seed(0)
    model = Complex(has_real_part)
    learn = cw.Learner(model, cw.Data.from_arrays(INPUTS, CLASSES, batch_size=16), progress=False)
    trail = []

    class Trail(cw.Callback):
        def on_step_end(self, learner, step, loss):
            trail.append(model.mix.detach().clone())

    average = model.mix.detach().clone()
    learn.fit(STEPS, callbacks=[cw.WeightAverage(0.9), Trail()])
    for step, mix in enumerate(trail, 1):
        average.lerp_(mix, 1.0 - min(0.9, (1 + step) / (10 + step)))
    assert torch.equal(model.mix, average)
    assert not torch.equal(model.mix, trail[-1])


@pytest.mark.parametrize("clip", [0.05, "auto"])
def test_sparse_gradients_are_clipped_as_dense_ones(clip):
    sparse, dense = words(True, clip=clip), words(False, clip=clip)
    for learn in (sparse, dense):
        learn.fit(STEPS)
    for one, other in zip(sparse.model.parameters(), dense.model.parameters(), strict=True):
        torch.testing.assert_close(one, other)
    free = words(True)
    free.fit(STEPS)
    assert not torch.equal(free.model[2].weight, sparse.model[2].weight)
    assert sparse.lr_find(num_steps=20).num_steps > 0


@pytest.mark.parametrize("call", [
    lambda learn: learn.fit_one_cycle(1, max_lr=0.1),
    lambda learn: learn.fit(STEPS),
    lambda learn: learn.summary(),
    lambda learn: learn.lr_find(),
])  # fmt: skip
@pytest.mark.parametrize(
    "layer", [lambda: nn.LazyLinear(2), lambda: nn.Sequential(nn.Linear(4, 2), nn.LazyBatchNorm1d(affine=False))]
)
def test_lazy_layers_are_refused_in_the_same_words_everywhere(call, layer):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 4), layer())
    learn = cw.Learner(model, cw.Data.from_arrays(INPUTS, CLASSES, batch_size=16), progress=False)
    with pytest.raises(cw.ArgumentError) as caught:
        call(learn)
    assert str(caught.value) == (
        "model must have initialised parameters, got a lazy layer that has not seen a batch; "
        "run one batch through the model first"
    )
    model(INPUTS)
    assert learn.history.num_steps == 0
    call(learn)
