"""What evaluations cost, in gradient evaluations: one is forward and backward over all batches.

The figures are geometric means over the models of `benchmarks/hessian.py`. They are constants, not measured on the
user's model, so that the same seed gives the same numbers whatever else the machine does.
"""

# A forward pass; the backward pass is about twice the work.
LOSS_COST = 1.0 / 3.0

# A product whose gradient graph is kept, and building such a graph.
KEPT_COST = 2.0
BUILD_COST = 1.5
# A product that runs the model, in reverse over reverse and in forward over reverse.
REVERSE_COST = 3.0
FORWARD_COST = 3.5
# One of many products that are made at once on a model of a few hundred numbers, where most of the time is overhead:
# 0.09 to 0.29 were measured. The dense Hessian of 500 numbers then fits into the default budget.
BLOCK_COST = 0.3
