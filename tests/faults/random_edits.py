"""Random edits of plain data, as the shipped configs and studies are fuzzed with.

An edit replaces a value by one of another type or size, deletes, misspells or swaps.
"""

from collections.abc import Callable
import copy
from pathlib import Path
import random
import re
from typing import Any

from augjax import check
from test_configs import load

SENTENCE = re.compile(r".+: expected .+, got .+\. .+[.?]", re.DOTALL)
VALUES = (
    None, True, False, 0, 1, -1, 3, 10**6, 10**30, -(10**30), 0.0, 0.5, -0.5, 1e-30, 1e30, -1e300,
    float("nan"), float("inf"), float("-inf"), "", "none", "None", "scratch", "phase:", "phase:x",
    "run:nowhere", "run:nowhere#a@b", "file:x.pth", "*", "a/b", "x" * 500, "ce", "train", "student",
    "teacher", "cosine", "resnet20", "\n", (), (1,), (0.5, "a"), ("ce",), ("train",), ((1, 2), 3),
    {}, {"kind": "cosine"}, {"kind": "sgd"}, {"name": "resnet8"}, {"a": {"b": 1}}, {"kind": 3},
)

NAMES = (
    "adamw", "adam", "sgd", "lamb", "muon", "rmsprop_tf", "linear", "piecewise", "exponential",
    "table", "sparsity", "constant", "cutmix", "mixup", "augmented", "whole_batch", "per_device",
    "hinton", "dkd", "rkd", "crd", "mhgd", "hint", "kd_svd", "attention", "adaptive_ensemble",
    "mutual", "clipped", "weighted_sum", "top", "keep_all", "teacher_filter", "vgg8", "wrn_16_1",
    "resnet8_tiny", "mobilenetv2", "shufflenetv2_cifar", "efficientnet_b0", "alexnet_tiny",
    "autoaugment", "pba", "outliers", "trivial_augment", "ranged_randaugment", "bfloat16", "tf",
    "phase:student", "phase:teacher", "ema", "raw", "digits", "imagenet2012", "cifar100", "mean",
    "bilinear", "crop", "flip", "eval", "train_keep", "teacher_entropy", "head/*", "nets/*",
)
KINDS = ("near",) * 5 + ("value",) * 4 + ("delete", "misspell", "swap", "stranger")


def arguments(path: Path) -> str | None:
    """What makes a config tiny, where it knows such a scale."""
    for arg in ("scale=tiny", "b0,scale=tiny"):
        try:
            load(path).get_config(arg)
            return arg
        except (check.ConfigError, TypeError):
            continue
    return None


def places(block: Any, path: tuple = ()) -> list[tuple]:
    """The path of every block and every leaf; into lists of blocks or of lists, too."""
    items = block.items() if isinstance(block, dict) else enumerate(block)
    found = []
    for name, value in items:
        found.append((*path, name))
        deep = isinstance(value, list) and any(isinstance(each, dict | list) for each in value)
        if isinstance(value, dict) or deep:
            found.extend(places(value, (*path, name)))
    return found


def edited(config: dict, draw: random.Random, every: list[tuple] | None = None
           ) -> tuple[dict, str]:
    """(a copy with one thing changed, what was changed); `every`: where, else anywhere."""
    config = copy.deepcopy(config)
    every = every or places(config)
    path = draw.choice(every)
    block, name = within(config, path), path[-1]
    kind = draw.choice(KINDS)
    if kind == "near":
        block[name] = near(block[name], draw)
        return config, f"{path} = {block[name]!r}"
    if kind == "value":
        block[name] = copy.deepcopy(draw.choice(VALUES))
        return config, f"{path} = {block[name]!r}"
    if kind == "delete":
        del block[name]
    elif kind == "misspell" and isinstance(block, dict):
        block[name[1:] + name[0]] = block.pop(name)
    elif kind == "stranger" and isinstance(block, dict):
        block["stranger"] = 1
    elif kind in ("misspell", "stranger"):  # in a list
        block.append(1 if kind == "stranger" else copy.deepcopy(block[name]))
    else:
        other = draw.choice(every)
        if other[: len(path)] == path or path[: len(other)] == other:
            return edited(config, draw, every)
        theirs = within(config, other)
        block[name], theirs[other[-1]] = theirs[other[-1]], block[name]
        return config, f"{path} <-> {other}"
    return config, f"{kind} {path}"


def near(value: Any, draw: random.Random) -> Any:
    """A value of the same type."""
    if isinstance(value, bool):
        return not value
    if isinstance(value, int):
        return draw.choice((0, 1, 2, 5, 7, -1, value + 1, value - 1, -value, value * 1000, 10**18))
    if isinstance(value, float):
        return draw.choice((0.0, 1.0, -1.0, value / 3, -value, value * 1e3, 1e18, 1e-18, 2.5))
    if isinstance(value, str):
        return draw.choice((*NAMES, value[:-1], value + "x", value.upper()))
    if isinstance(value, list | tuple):
        items = list(value) + draw.choice(([], [], [0.5], ["train"], list(value)))
        draw.shuffle(items)
        return items[: draw.randrange(len(items) + 1)]
    return value and {field: near(each, draw) for field, each in value.items()}


def within(config: Any, path: tuple) -> Any:
    """The block that holds what lies at a path."""
    for name in path[:-1]:
        config = config[name]
    return config


def told(refusal: Callable[[], str], what: str, wrong: list[str]) -> bool:
    """Whether an edit is refused; a traceback is put into `wrong`, with where it came from."""
    try:
        return bool(refusal())
    except Exception as error:  # noqa: BLE001 all of them are told together
        at = error.__traceback__
        while at.tb_next:
            at = at.tb_next
        wrong.append(f"{what}: {type(error).__name__}: {str(error)[:200]} "
                     f"({at.tb_frame.f_code.co_filename}:{at.tb_lineno})")
        return False
