"""Base pipelines by name: the layers around a policy. Source: spec B1.

A base is a function (pad, mean fill, policy layers) -> layers in order; `policy` is () for a view
without one. Random-resized and evaluation crops of large images come before all of them, on the
host: `augjax.data.cropped`. Normalisation is the network's.
"""

from collections.abc import Callable

from augjax.augment.crops import flip, Layer, pad_crop, pad_crop_pba
from augjax.augment.erasing import cutout_square

Layers = tuple[Layer, ...]
Base = Callable[[int, tuple[int, ...], Layers], Layers]


def crop_flip(pad: int, fill: tuple[int, ...], policy: Layers) -> Layers:
    """Black pad and crop, flip, policy: RepDistiller's (pad 4), KT's on Tiny-ImageNet (8)."""
    del fill
    return (pad_crop(pad), flip, *policy)


def crop(pad: int, fill: tuple[int, ...], policy: Layers) -> Layers:
    """`crop_flip` without the flip, where left and right differ in meaning."""
    del fill
    return (pad_crop(pad), *policy)


def flipped(pad: int, fill: tuple[int, ...], policy: Layers) -> Layers:
    """Flip, policy: ImageNet's, whose images arrive cropped."""
    del pad, fill
    return (flip, *policy)


def autoaugment_cifar(pad: int, fill: tuple[int, ...], policy: Layers) -> Layers:
    """Policy, pad and crop, flip, cutout 16, the mean as fill: AutoAugment, PBA, role_wise_kd."""
    return (*policy, pad_crop_pba(pad, fill), flip, cutout_square(16, fill))


def none(pad: int, fill: tuple[int, ...], policy: Layers) -> Layers:
    """The policy alone."""
    del pad, fill
    return policy


BASES: dict[str, Base] = {
    "none": none,
    "flip": flipped,
    "crop": crop,
    "crop_flip": crop_flip,
    "autoaugment_cifar": autoaugment_cifar,
}
