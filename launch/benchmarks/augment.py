"""RandAugment, augjax against its peers: same images, same number of operations, one run.

Every row is a ratio of images per second on one XLA CPU device against one process of the peer,
both held to one core; rows of two devices or two processes have all cores. Real CIFAR-10 images
(the JPEG copy beside the checkout) where they are there, else noise; 224-pixel images are enlarged
from them. Keys, and so the operations drawn, rotate from call to call.

Expected before measuring (engine.md sections 3 and 7): 18 to 23 times timm at 32 pixels nearest,
3 to 6 times at 224, about 20 times a `vmap(lax.switch)` written in the same forms or more, since
those forms are made for one branch; 1.5 to 1.9 times from a second device.

What profiling changed in the CPU lowering (ms for 256x32x32 | 32x224x224 through one operation
inside the engine, best of 21, one core, before and after in turn):

    equalize      1.95 | 5.15 -> 1.53 | 5.84   its prefix sum was two products of 16 x 16 and
                                               3.6 us an image, now an unrolled scan and 0.7; at
                                               224 the scan costs 20 us an image, not understood
    autocontrast  0.86 | 1.64 -> 0.62 | 1.66   extremes by halves of a row instead of by threes
                                               (0.44 -> 0.07); no gather per entry of the table
    blends        0.32 | 1.76 -> 0.31 | 1.70   one float product instead of an integer's

Expected was half of the first two. The histogram and the look-up (0.8 | 5.2; 1.1 and 0.3 ns a
value) remain: sub-histograms, wider updates and a loop by hand were no faster. Losing forms, in
the same harness: stretching pixels by arithmetic instead of a table (1.2 | 2.7), planar gathers for
nearest sampling (0.87 against 0.28), a shift as one slice of the flat image and a mask (0.61
against 0.23), gathers of 2 x 2 windows, packed colours. Bilinear turns went from 3.1 | 19.8 to
2.0 | 12.8 by gathering planes where nothing is fused with them.

Measured at loads of 2.5 to 3.5 on two cores: 25 to 30 times timm at 32 pixels nearest, 20 to 23
bilinear, but 2.5 to 3.2 and 4.4 to 4.9 at 224, below the aims of 4 and 6: at that size the engine's
time is gathers and the histogram, which Pillow does nearly as fast. A second device showed nothing
(0.78 and 0.95) where others used the cores; once, 1.9 between the best calls at 224.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
import importlib.util
import itertools
import os
from pathlib import Path
from typing import Any

import dm_pix
import jax
from jax import lax
import jax.numpy as jnp
import numpy as np
from PIL import Image

from augjax import augment, data
from augjax.augment import bilinear, matrices
from augjax.train import sharding
from launch.benchmarks import measure, peers

jax.config.update("jax_num_cpu_devices", 2)

CIFAR = Path(__file__).resolve().parents[3] / "shared/data/tfds"
PAIRS = 24


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


@contextmanager
def cores(count: int) -> Iterator[None]:
    """Holds every thread of this process to `count` cores, where the system can (Linux)."""
    def hold(allowed):
        for thread in os.listdir("/proc/self/task"):
            os.sched_setaffinity(int(thread), allowed)

    if not hasattr(os, "sched_setaffinity"):
        yield
        return
    everything = os.sched_getaffinity(0)
    try:
        hold(sorted(everything)[-count:])
        yield
    finally:
        hold(everything)


# --- what is timed -------------------------------------------------------------------------------


def ours(pixels: np.ndarray, interpolation: str = "nearest", devices: int = 1,
         map: str = "timm") -> Callable[[], Any]:
    """The engine alone: drawing and doing, inside one jitted step."""
    policy = augment.randaugment(9.0, map=map, interpolation=interpolation)
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


def turned(pixels: np.ndarray, by_pix: bool) -> Callable[[], Any]:
    """Every image turned by its own angle, bilinear: dm-pix's rotate, or ours (floats in, out)."""
    count, size = pixels.shape[:2]
    degrees = np.random.default_rng(0).uniform(-30, 30, count)
    if by_pix:
        floats = jnp.asarray(pixels, jnp.float32) / 255
        step = jax.jit(jax.vmap(lambda image, angle: dm_pix.rotate(image, angle, mode="constant")))
        return lambda: jax.block_until_ready(step(floats, np.float32(np.radians(degrees))))
    rows = np.stack([matrices.rotation(angle, size, size) for angle in degrees])
    step = jax.jit(lambda images, rows: lax.map(lambda one: bilinear.rotate(*one), (images, rows)))
    return lambda: jax.block_until_ready(step(pixels, rows))


# --- rows ----------------------------------------------------------------------------------------


def against(peer: Callable[[np.ndarray], Callable[[], Any]], count: int, size: int,
            at_least: float | None = None, interpolation: str = "nearest", needs: str = "jax",
            note: str = "", map: str = "timm", mine: Callable | None = None,
            many_cores: bool = False) -> Callable[[str], dict[str, Any]]:
    """A row: the peer's time over ours, in interleaved pairs."""
    def work(name: str) -> dict[str, Any]:
        if importlib.util.find_spec(needs) is None:
            return measure.unmeasured(name, f"{needs} is not installed")
        pixels = images(count, size)
        with cores(os.cpu_count() if many_cores else 1):
            own = mine(pixels) if mine else ours(pixels, interpolation, map=map)
            other = peer(pixels)
            other()  # compiles, starts its processes
            slow = measure.seconds(other) > 2.0
            ratios = measure.paired_ratio(own, other, pairs=8 if slow else PAIRS)
            speed = count / measure.seconds(own)
        said = [f"{speed:,.0f} images/s", f"load {os.getloadavg()[0]:.1f}", note,
                "8 pairs: a call takes over 2 s" if slow else ""]
        return measure.row(name, ratios, "times the peer's images/s", at_least=at_least,
                           note="; ".join(filter(None, said)))
    return work


def two_devices(count: int, size: int, at_least: float) -> Callable[[str], dict[str, Any]]:
    def work(name: str) -> dict[str, Any]:
        pixels = images(count, size)
        ratios = measure.paired_ratio(ours(pixels, devices=2), ours(pixels), pairs=40)
        return measure.row(name, ratios, "times one device", at_least=at_least,
                           note=f"load {os.getloadavg()[0]:.1f}")
    return work


SIZES = {"256x32x32": (256, 32), "512x32x32": (512, 32), "32x224x224": (32, 224)}
LARGE = SIZES["32x224x224"]
EQUAL = peers.timm(peers.NEAREST)
HALF = "timm does half the work: p 0.5, bilinear or bicubic by chance"
ONE_PAIR = "kornia draws one pair of operations per batch, so the work is not equal"
FLOATS = "dm-pix's floats against uint8; no fill"
VMAPPED = "the same operations, in forms made for a branch"


def _rows() -> Iterator[tuple[str, Callable[[str], dict[str, Any]]]]:
    for shape, size in SIZES.items():
        small = size[1] == 32
        yield f"timm, {shape}, nearest", against(EQUAL, *size, 18 if small else 4, needs="timm")
        yield f"timm, {shape}, bilinear", against(
            peers.timm(peers.BILINEAR), *size, 16 if small else 6, "bilinear", "timm")
    for shape in ("512x32x32", "32x224x224"):
        size = SIZES[shape]
        yield f"timm's default sampling, p 1, {shape}, ours bilinear", against(
            peers.timm(None), *size, None, "bilinear", "timm")
        yield f"timm in 2 processes, {shape}, nearest, ours on one device", against(
            peers.timm_processes(peers.NEAREST, 2), *size, needs="timm", many_cores=True)
        yield f"torchvision on PIL, {shape}, nearest", against(
            peers.torchvision_pil, *size, needs="torchvision", map="torchvision")
        yield f"torchvision on uint8 tensors, {shape}, nearest", against(
            peers.torchvision_tensor, *size, needs="torchvision", map="torchvision")
        yield f"kornia, {shape}", against(peers.kornia, *size, needs="kornia", note=ONE_PAIR)
    yield "timm's default, 512x32x32", against(
        peers.timm(None, 0.5), 512, 32, needs="timm", note=HALF)
    yield "vmap(lax.switch), 256x32x32", against(vmapped_switch, 256, 32, 20, note=VMAPPED)
    yield "vmap(lax.switch), 32x224x224", against(vmapped_switch, *LARGE, note=VMAPPED)
    for shape in ("256x32x32", "32x224x224"):
        yield f"dm-pix rotate, order 1, {shape}", against(
            lambda pixels: turned(pixels, by_pix=True), *SIZES[shape], note=FLOATS,
            mine=lambda pixels: turned(pixels, by_pix=False))
    yield "two devices, 512x32x32", two_devices(512, 32, 1.5)
    yield "two devices, 32x224x224", two_devices(*LARGE, 1.8)


ROWS = dict(_rows())
