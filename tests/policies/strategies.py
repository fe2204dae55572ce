"""Policies of every kind with settings drawn at random, for the tests of what holds for all of them."""

from hypothesis import assume
from hypothesis import strategies as st

import cyclewise as cw

rates = st.floats(1e-8, 1e3)
lengths = st.integers(1, 400)
fractions = st.floats(0.0, 1.0)
momenta = st.one_of(st.just((None, None)), st.tuples(st.floats(0.0, 0.99), st.floats(0.0, 0.99)))
one_cycle_kinds = st.sampled_from([cw.OneCycle, cw.ThreePhaseOneCycle])


@st.composite
def one_cycles(draw, kind=one_cycle_kinds):
    base, high = draw(momenta)
    return draw(kind)(
        max_lr=draw(rates),
        total_steps=draw(lengths),
        pct_start=draw(fractions),
        div_factor=draw(st.floats(1.0, 100.0)),
        final_div_factor=draw(st.floats(1.0, 1e6)),
        base_momentum=base,
        max_momentum=high,
        anneal=draw(st.sampled_from(["cosine", "linear"])),
    )


@st.composite
def cosines(draw):
    low, high = sorted(draw(st.tuples(st.floats(0.0, 10.0), rates)))
    assume(high > 0)
    return cw.Cosine(max_lr=high, min_lr=low, total_steps=draw(lengths))


@st.composite
def cyclicals(draw, momenta=momenta):
    low, high = sorted(draw(st.tuples(st.floats(0.0, 10.0), rates)))
    base, top = draw(momenta)
    return cw.Cyclical(
        base_lr=low,
        max_lr=max(high, 1e-8),
        step_size_up=draw(st.integers(1, 60)),
        step_size_down=draw(st.one_of(st.none(), st.integers(1, 60))),
        mode=draw(st.sampled_from(["triangular", "triangular2", "exp_range"])),
        gamma=draw(st.floats(0.5, 1.0)),
        base_momentum=base,
        max_momentum=top,
        total_steps=draw(lengths),
    )


sgdrs = st.builds(
    cw.SGDR,
    max_lr=rates,
    min_lr=st.just(0.0),
    T_0=st.integers(1, 40),
    T_mult=st.one_of(st.integers(1, 3), st.floats(1.0, 2.5)),
    num_cycles=st.integers(1, 4),
    peak_decay=st.floats(0.1, 1.0),
)


@st.composite
def warm_and_stable(draw):
    warmup, decay = draw(st.integers(0, 50)), draw(st.integers(0, 50))
    return cw.WarmupStableDecay(
        max_lr=draw(rates), warmup_steps=warmup, decay_steps=decay,
        total_steps=warmup + decay + draw(st.integers(1, 100)), anneal=draw(st.sampled_from(["cosine", "linear"])),
    )  # fmt: skip


multi_steps = st.builds(
    cw.MultiStep,
    max_lr=rates,
    milestones=st.sets(st.integers(1, 300), max_size=5).map(sorted),
    gamma=st.floats(0.01, 1.0),
    total_steps=lengths,
)
small = st.floats(1e-6, 10.0)
simple = st.one_of(
    warm_and_stable(),
    multi_steps,
    st.builds(cw.Exponential, start_lr=small, end_lr=small, total_steps=lengths),
    st.builds(cw.Polynomial, max_lr=small, power=st.floats(0.1, 4.0), total_steps=lengths),
    st.builds(cw.InverseSqrt, max_lr=small, warmup_steps=st.integers(1, 50), total_steps=lengths),
    st.builds(cw.FlatCosine, max_lr=small, pct_start=fractions, total_steps=lengths),
    cyclicals(momenta=st.just((None, None))),
    sgdrs,
    one_cycles().filter(lambda policy: policy.base_momentum is None),
    cosines(),
    st.builds(cw.Constant, lr=st.floats(0.0, 10.0), total_steps=lengths),
    st.builds(cw.Linear, start_lr=st.floats(0.0, 10.0), end_lr=st.floats(0.0, 10.0), total_steps=lengths),
)
joins = st.lists(simple, min_size=1, max_size=4).map(cw.Join)


@st.composite
def togethers(draw):
    rate = draw(simple)
    length, below_one = st.just(rate.total_steps), st.floats(0, 0.9)
    momenta = st.builds(cw.Linear, start_lr=below_one, end_lr=below_one, total_steps=length)
    decays = st.builds(cw.Exponential, start_lr=small, end_lr=small, total_steps=length)
    return cw.Together(
        rate=rate, momenta=draw(st.one_of(st.none(), momenta)), decays=draw(st.one_of(st.none(), decays))
    )


@st.composite
def extensions(draw):
    policy = draw(st.one_of(simple, joins, one_cycles()))
    at_step = draw(st.integers(0, policy.total_steps + 20))
    return policy.extend(total_steps=at_step + draw(st.integers(1, 500)), at_step=at_step)


policies = st.one_of(simple, togethers(), joins, one_cycles(), cyclicals(), extensions())
