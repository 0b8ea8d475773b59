"""Base pipelines by name: the layers around a policy. Source: spec B1.

A base is a function (pad, mean fill, policy layers) -> layers in order; `policy` is () for a view
without one. Random-resized and evaluation crops of large images come before all of them, on the
host: `augjax.data.cropped`. Normalisation is the network's.
"""

from collections.abc import Callable
from functools import partial

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


def autoaugment_cifar(pad: int, fill: tuple[int, ...], policy: Layers, side: int = 16) -> Layers:
    """Policy, pad and crop, flip, cutout of `side` pixels, the mean as fill: AutoAugment, PBA;
    role_wise_kd, whose release cuts 8 pixels out of CIFAR-100 and none in a search (spec P5)."""
    cutout = (cutout_square(side, fill),) if side else ()
    return (*policy, pad_crop_pba(pad, fill), flip, *cutout)


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
    "autoaugment_cifar_cutout8": partial(autoaugment_cifar, side=8),
    "autoaugment_cifar_uncut": partial(autoaugment_cifar, side=0),
}
