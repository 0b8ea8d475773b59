"""A row of the zoo."""

from collections.abc import Callable
from typing import NamedTuple

from flax import linen as nn


class Model(NamedTuple):
    """A network by name: make(build, **options) -> module, called as module(x, mode) -> Outputs."""

    make: Callable[..., nn.Module]
    smallest: int  # pixels a side below which a stage would vanish
    resolution: int = 32  # pixels a side that it is made for
