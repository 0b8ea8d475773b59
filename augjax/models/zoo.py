"""The networks by name."""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from augjax import check
from augjax.models.resnet import WIDTHS_X4, resnet
from augjax.types import Net

MODELS: dict[str, Callable[..., Net]] = {
    "resnet8": partial(resnet, 8),
    "resnet20": partial(resnet, 20),
    "resnet32": partial(resnet, 32),
    "resnet44": partial(resnet, 44),
    "resnet56": partial(resnet, 56),
    "resnet110": partial(resnet, 110),
    "resnet8x4": partial(resnet, 8, widths=WIDTHS_X4),
    "resnet32x4": partial(resnet, 32, widths=WIDTHS_X4),
    "resnet8_tiny": partial(resnet, 8, widths=(8, 8, 16, 32)),  # quick starts and tests
}


def build(name: str, classes: int, image_shape: Sequence[int], **options: Any) -> Net:
    """The Net called `name`; `options` are those of its builder (mean, std, domains, dtype, ...).

    Raises ConfigError with the nearest names if there is no such network.
    """
    builder = MODELS[check.one_of("model", name, MODELS)]
    return builder(classes=classes, image_shape=image_shape, **options)
