"""What other people call our parameters and how they lay them out.

A family's names are an ordered table of rows (our module, their module), such as

    ("stage{i}_block{j}/conv{k}", "layer{i}.{j:from0}.conv{k}")

where {i} stands for a number, and {j:from0} for ours less one. The first row that fits counts. What
a leaf is called and how it lies is a matter of the framework, not of the family.
"""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from functools import cache
import re
from typing import NamedTuple

import numpy as np

from augjax import check

Rules = Sequence[tuple[str, str]]
Shape = tuple[int, ...]


class Convention(NamedTuple):
    """How a framework names and lays out the leaves of a module.

    Ours are kernel [k, k, I, O] or [I, O], a norm's scale, bias, mean, var [1, D], a bias [D].
    """

    leaves: Mapping[str, str]  # {our leaf: their name of the whole, with {} for the module}
    shape: Callable[[str, Shape], Shape]  # (our leaf, our shape) -> their shape
    array: Callable[[np.ndarray, Shape], np.ndarray]  # (their array, our shape) -> our array


def _torch_shape(leaf: str, shape: Shape) -> Shape:
    """[O, I, k, k] and [O, I]; depthwise convolutions are [D, 1, k, k] by the same rule."""
    return (*shape[:-3:-1], *shape[:-2]) if leaf == "kernel" else shape[-1:]


def _torch_array(array: np.ndarray, shape: Shape) -> np.ndarray:
    if array.ndim == 4:
        array = array.transpose(2, 3, 1, 0)
    return array.T if array.ndim == 2 else array.reshape(shape)


TORCH = Convention(
    {"kernel": "{}.weight", "scale": "{}.weight", "bias": "{}.bias", "mean": "{}.running_mean",
     "var": "{}.running_var"},
    _torch_shape, _torch_array,
)
FLAX = Convention(
    {**{leaf: f"params/{{}}/{leaf}" for leaf in ("kernel", "scale", "bias")},
     **{leaf: f"batch_stats/{{}}/{leaf}" for leaf in ("mean", "var")}},
    lambda leaf, shape: shape if leaf == "kernel" else shape[-1:],
    lambda array, shape: array.reshape(shape),
)


class Number(int):
    """A number of ours in a name; the format "from0" counts from 0 what we count from 1."""

    def __format__(self, spec: str) -> str:
        return str(self - 1) if spec == "from0" else str(int(self))


def their_name(path: str, rules: Rules, convention: Convention) -> str:
    """Their name of our leaf "stage1_block1/conv1/kernel". Raises ConfigError if no row fits."""
    module, leaf = path.rsplit("/", 1)
    for ours, theirs in rules:
        if found := _pattern(ours).fullmatch(module):
            numbers = {name: Number(value) for name, value in found.groupdict().items()}
            return convention.leaves[leaf].format(theirs.format(**numbers))
    raise check.ConfigError(check.sentence(
        f"name of {path}", "a row of the name map", "none that fits", "add it to its family"))


def their_names(paths: Sequence[str], rules: Rules, convention: Convention) -> dict[str, str]:
    """{our path: their name}, each used once. Raises ConfigError."""
    names = {path: their_name(path, rules, convention) for path in paths}
    twice = [name for name, count in Counter(names.values()).items() if count > 1]
    check.require(not twice, "name map", "a tensor for each leaf", f"{twice} for several",
                  "correct its rows")
    return names


@cache
def _pattern(ours: str) -> re.Pattern:
    return re.compile(re.sub(r"\\\{(\w+)\\\}", r"(?P<\1>\\d+)", re.escape(ours)))
