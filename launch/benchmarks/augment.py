"""RandAugment, augjax against its peers: same images, same number of operations, one run.

Every row is a ratio of images per second on one XLA CPU device against one process of the peer.
Real CIFAR-10 images (the JPEG copy beside the checkout) where they are there, else noise; 224-pixel
images are enlarged mosaics of them. Keys, and so the operations drawn, rotate from call to call.

Expected before measuring (engine.md sections 3 and 7): 18 to 23 times timm at 32 pixels nearest,
3 to 6 times at 224, about 20 times a `vmap(lax.switch)` written in the same forms or more, since
those forms are made for one branch; 1.5 to 1.9 times from a second device.
"""

from collections.abc import Callable
import importlib.util
import itertools
from pathlib import Path
from typing import Any

import jax
from jax import lax
import numpy as np
from PIL import Image

from augjax import augment, data
from augjax.train import sharding
from launch.benchmarks import measure

jax.config.update("jax_num_cpu_devices", 2)

CIFAR = Path(__file__).resolve().parents[3] / "shared/data/tfds"
NEAREST, BILINEAR = Image.Resampling.NEAREST, Image.Resampling.BILINEAR


def images(count: int, size: int) -> np.ndarray:
    """[count, size, size, 3] uint8."""
    if CIFAR.is_dir():
        small = data.load("cifar10", CIFAR).test.read(range(count))
    else:
        small = np.random.default_rng(0).integers(0, 256, (count, 32, 32, 3), np.uint8)
    if size == 32:
        return small
    return np.stack([np.asarray(Image.fromarray(x).resize((size, size), Image.Resampling.BICUBIC))
                     for x in small])


def ours(pixels: np.ndarray, interpolation: str = "nearest", devices: int = 1) -> Callable[[], Any]:
    """The engine alone: drawing and doing, inside one jitted step."""
    policy = augment.randaugment(9.0, map="timm", interpolation=interpolation)
    mesh = sharding.make_mesh(jax.devices()[:devices])
    with jax.set_mesh(mesh):
        placed = jax.device_put(pixels, sharding.over_data(mesh))
        step = jax.jit(augment.augment).lower(jax.random.key(0), policy, placed).compile()
    keys = itertools.cycle(jax.random.split(jax.random.key(1), 50))
    return lambda: jax.block_until_ready(step(next(keys), policy, placed))


def vmapped_switch(pixels: np.ndarray) -> Callable[[], Any]:
    """What one writes first: every image's switch under vmap, which runs every branch."""
    policy = augment.randaugment(9.0, map="timm")

    @jax.jit
    def step(key, images):
        keys = augment.image_keys(key, images.shape[0])
        program = augment.draw(keys, policy, images.shape[1:])
        branches = [augment.OPS[name] for name in program.ops]
        for layer in range(program.op.shape[1]):
            images = jax.vmap(lambda image, op, row: lax.switch(op, branches, image, row))(
                images, program.op[:, layer], program.parameters[:, layer])
        return images

    keys = itertools.cycle(jax.random.split(jax.random.key(1), 50))
    return lambda: jax.block_until_ready(step(next(keys), pixels))


def timm(pixels: np.ndarray, interpolation: int, probability: float = 1.0) -> Callable[[], Any]:
    """timm's RandAugment on PIL images, arrays in and out, in one process."""
    found = importlib.util.find_spec("timm")
    path = Path(found.submodule_search_locations[0]) / "data/auto_augment.py"
    spec = importlib.util.spec_from_file_location("timm_auto_augment", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    policy = module.rand_augment_transform(
        f"rand-m9-n2-p{probability}", {"interpolation": interpolation, "img_mean": (128,) * 3})
    return lambda: [np.asarray(policy(Image.fromarray(image))) for image in pixels]


def kornia(pixels: np.ndarray) -> Callable[[], Any]:
    """kornia's RandAugment on float tensors: one pair of operations for the whole batch."""
    from kornia.augmentation.auto import RandAugment
    import torch

    policy = RandAugment(n=2, m=9)
    batch = torch.from_numpy(pixels).permute(0, 3, 1, 2).float() / 255
    return lambda: policy(batch)


def against(peer: Callable[[np.ndarray], Callable[[], Any]], count: int, size: int,
            at_least: float | None = None, interpolation: str = "nearest", needs: str = "jax",
            note: str = "") -> Callable[[str], dict[str, Any]]:
    """A row: the peer's time over ours, in 20 interleaved pairs."""
    def work(name: str) -> dict[str, Any]:
        if importlib.util.find_spec(needs) is None:
            return measure.unmeasured(name, f"{needs} is not installed")
        pixels = images(count, size)
        mine, other = ours(pixels, interpolation), peer(pixels)
        ratios = measure.paired_ratio(mine, other, pairs=20)
        speed = count / measure.seconds(mine)
        return measure.row(name, ratios, "times the peer's images/s", at_least=at_least,
                           note=f"{speed:,.0f} images/s; {note}".strip("; "))
    return work


def two_devices(count: int, size: int, at_least: float) -> Callable[[str], dict[str, Any]]:
    def work(name: str) -> dict[str, Any]:
        pixels = images(count, size)
        ratios = measure.paired_ratio(ours(pixels, devices=2), ours(pixels), pairs=40)
        return measure.row(name, ratios, "times one device", at_least=at_least)
    return work


def timm_nearest(pixels):
    return timm(pixels, NEAREST)


def timm_bilinear(pixels):
    return timm(pixels, BILINEAR)


def timm_default(pixels):
    return timm(pixels, NEAREST, 0.5)


HALF = "timm does half the work: p 0.5"
ROWS = {
    "timm, 256x32x32, nearest": against(timm_nearest, 256, 32, 18.0, needs="timm"),
    "timm, 512x32x32, nearest": against(timm_nearest, 512, 32, 18.0, needs="timm"),
    "timm, 256x32x32, bilinear": against(timm_bilinear, 256, 32, 16.0, "bilinear", "timm"),
    "timm, 32x224x224, nearest": against(timm_nearest, 32, 224, 4.0, needs="timm"),
    "timm, 32x224x224, bilinear": against(timm_bilinear, 32, 224, 6.0, "bilinear", "timm"),
    "timm's default p, 256x32x32": against(timm_default, 256, 32, needs="timm", note=HALF),
    "vmap(lax.switch), 256x32x32": against(
        vmapped_switch, 256, 32, 20.0, note="the same operations, in forms made for a branch"),
    "kornia, 256x32x32": against(
        kornia, 256, 32, needs="kornia", note="kornia draws one pair of operations per batch"),
    "two devices, 512x32x32": two_devices(512, 32, 1.5),
    "two devices, 32x224x224": two_devices(32, 224, 1.8),
}
