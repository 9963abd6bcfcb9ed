# ruff: noqa: INP001 - an example, not a package
"""A network to be priced: `capacity estimate --module docs/examples/nets.py:perceptron --input 100x1000`."""

from itertools import pairwise

from torch import nn


def perceptron() -> nn.Module:
    """Four layers that make one number of a thousand."""
    widths = (1000, 500, 250, 100, 1)
    layers: list[nn.Module] = []
    for wide, narrow in pairwise(widths):
        layers += [nn.Linear(wide, narrow), nn.ReLU()]
    return nn.Sequential(*layers[:-1])
