"""RandAugment, augjax against its peers: same images, same number of operations, one run.

Every row is a ratio of images per second on one XLA CPU device against one process of the peer, in
a process that has one core from its beginning; rows of two devices or two processes have all cores.
Real CIFAR-10 images (the JPEG copy beside the checkout) where they are there, else noise; 224-pixel
images are enlarged from them. Keys, and so the operations drawn, rotate from call to call.

Expected before measuring (engine.md sections 3 and 7): 18 to 23 times timm at 32 pixels nearest,
3 to 6 times at 224, about 20 times a `vmap(lax.switch)` written in the same forms or more, since
those forms are made for one branch; 1.5 to 1.9 times from a second device.

What profiling changed in the CPU lowering (ms for 256x32x32 | 32x224x224 through one operation
inside the engine, best of 21, one core, before and after in turn; the arrow joins the two):

    equalize     1.52 -> 1.40 | 7.33 -> 5.16   a scatter reads places and ones from memory: by
                 channel, the uint8 is the place; the table flat and int32, so that LLVM gathers it
                 by vectors (1.2 for 2.0 at 224, uint8 or transposed)
    rotate       0.43 -> 0.30 | 3.31 -> 2.11   a colour packed into a uint32 is one load: `packed`
    shear_y      0.43 -> 0.29 | 3.25 -> 1.94   the same
    shear_x      0.28 -> 0.12 | 1.74 -> 0.79   rows of bytes are copied, rows of colours looped over
    translate_x  0.24 -> 0.12 | 1.49 -> 0.79   the same
    sharpness    0.48         | 3.38 -> 2.90   blended along rows; below 64 pixels left as it was
    bilinear rotate 2.00 -> 1.04 | 15.2 -> 7.0, shear_y 0.80 -> 0.50 | 5.7 -> 3.3: packed colours,
                 the neighbours gathered once and not for every channel

Expected at 224: equalize, shear_y 2 ms less, sharpness 1.3, rotate 1.2, contrast 1.1, shear_x and
translate_x 0.9, brightness 0.4. Sharpness, contrast and brightness gave 0.5, 0.3 and 0.1: blends
cost 0.9 of floats and conversions in any form. Of equalize the histogram is now 2.9 (0.6 ns a
value), the look-up 1.2, the scan 0.1.
Before that (ms likewise): the prefix sum as an unrolled scan and not as products of 16 x 16
(1.95 -> 1.53 at 32), extremes by halves of a row (autocontrast 0.86 -> 0.62).

Losing forms, in the same harness. Histogram at 224, of 2.9: one scatter for all channels 4.0,
uint16 places 3.5, chunks of 4 or 16 rows 3.2 and 3.3, four interleaved tables 3.3, a loop over
groups of rows 5.9; pairs of values in a table of 65,536 are 2.7 there, whose clearing costs more
than that at 32. Prefix sums by comparing 0.8 more, `cumsum` 0.1 more. Packing once for both layers,
by its parts (not built): point operations lose what geometry gains. Unpacking by `jnp.stack` inside
a branch 2.4 for 0.35. Padding for shear_y's outside 4.4 for 1.9. Sums of grey without slicing
channels 16 for 2.4, `color` through packed colours 3.9 for 1.8, a stencil over the flat image 33
for 3.1, its division in 16 bits no change. Bilinear shear_x and translate_x along rows of bytes 5.7
for 3.2, packed 3.1 for 3.3. The loop: layers unrolled, images updated in place, one loop over all
calls, all within 5 %; branches that slice for themselves 10 for 3, that also write 54. Earlier:
stretching by arithmetic (1.2 | 2.7), planar gathers for nearest sampling, a shift as one slice of
the flat image and a mask, gathers of 2 x 2 windows.

The engine, old and new in turn, 100 calls each, loads of 1.6 to 3: 32x224x224 nearest 3.66 -> 3.02
ms at best and 4.78 -> 4.10 in the median, bilinear 4.78 -> 4.22 and 7.30 -> 5.64; 256x32x32 1.22 ->
0.96 and 1.60 -> 1.29 in the median. What the rows say stands in `launch/benchmarks/results`.

Threads: where XLA has two, it halves kernels above some 200,000 of its units of cost, in the loop
over images, too: with bilinear sampling one of 32 x 32 pixels, at 224 nearly all. Handing over a
half costs more than it saves: one device on two cores is no faster than on one (timm, 512x32x32,
bilinear 24 [14, 30] for 29 [26, 33]; 32x224x224, nearest 3.3 for 4.5), and held to one core only
after XLA had made its threads, it lost half (14, and 3.2 at 224). Hence the rows' own processes,
and why a second device, whose every kernel is cut as well, adds so little: the program of two has
no collective, every array in it is half as long, the draw is cut, too. Nothing in the program can
forbid it (XLA's ParallelTaskAssigner spares tuples and updates in place, neither of which is ours
to force), and `compiler_options` are the caller's.
"""

from collections.abc import Callable, Iterator
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
from augjax.augment.select import GATHERS, gathered_look_up, select_layer
from augjax.augment.staging import staged
from augjax.train import sharding
from launch.benchmarks import measure, peers

CPU_DEVICES = 2  # what `launch.benchmark` asks JAX for before the first row

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


def every_branch(apart: bool) -> Callable[[np.ndarray], Callable[[], Any]]:
    """A vmapped switch as a compiler sees it, in forms tuned for batches: all branches, one kept.

    The forms are those of `select`, its histogram and its look-up changed to what a CPU likes.
    `apart` has every branch's result finished before one is kept, which no vmapped switch does and
    which is faster where results are small.
    """
    policy = augment.randaugment(9.0, map="timm")

    def layer(images, op, row, ops):
        result = images
        for place, name in enumerate(ops):
            def branch(images, row, name=name):
                chosen = jnp.zeros(images.shape[0], jnp.int32)
                return select_layer(images, chosen, row, (name,), "nearest", BATCHES)

            done = staged(branch, images, row) if apart else branch(images, row)
            result = jnp.where((op == place)[:, None, None, None], done, result)
        return result

    @jax.jit
    def step(key, images):
        program = augment.draw(
            augment.image_keys(key, images.shape[0]), policy, images.shape[1:])
        for at in range(program.op.shape[1]):
            images = layer(images, program.op[:, at], program.parameters[:, at], program.ops)
        return images

    def peer(pixels):
        keys = itertools.cycle(jax.random.split(jax.random.key(1), 50))
        return lambda: jax.block_until_ready(step(next(keys), pixels))
    return peer


def _darker_by_scattering(images):
    batch, channels = images.shape[0], images.shape[-1]
    table = 256 * jnp.arange(batch * channels, dtype=jnp.int32).reshape(batch, 1, 1, channels)
    counts = jnp.zeros(batch * channels * 256, jnp.int32).at[(images + table).reshape(-1)].add(
        1, mode="promise_in_bounds")
    return staged(lambda n: jnp.cumsum(n, -1) - n, counts.reshape(batch, channels, 256))


def _look_up_staged(images, tables):
    return gathered_look_up(images, staged(lambda tables: tables, tables))


BATCHES = GATHERS._replace(darker=_darker_by_scattering, look_up=_look_up_staged)


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
            many_cores: bool = False) -> measure.Work:
    """A row: the peer's time over ours, in interleaved pairs."""
    def work(name: str) -> dict[str, Any]:
        if importlib.util.find_spec(needs) is None:
            return measure.unmeasured(name, f"{needs} is not installed")
        pixels = images(count, size)
        own = mine(pixels) if mine else ours(pixels, interpolation, map=map)
        other = peer(pixels)
        other()  # compiles, starts its processes
        slow = measure.seconds(other) > 2.0
        ratios = measure.paired_ratio(own, other, pairs=8 if slow else PAIRS)
        speed = count / min(measure.seconds(own) for _ in range(5))
        said = [f"{speed:,.0f} images/s", f"load {os.getloadavg()[0]:.1f}", note,
                "8 pairs: a call takes over 2 s" if slow else ""]
        return measure.row(name, ratios, "times the peer's images/s", at_least=at_least,
                           note="; ".join(filter(None, said)))
    return work if many_cores else measure.on_one_core("augment", work)


def two_devices(count: int, size: int, at_least: float) -> measure.Work:
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


def _rows() -> Iterator[tuple[str, measure.Work]]:
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
    for shape in ("256x32x32", "32x224x224"):
        size, aim = SIZES[shape], 20 if shape == "256x32x32" else None
        yield f"vmap(lax.switch), {shape}, forms for a branch", against(
            vmapped_switch, *size, note="flatters us: the engine's own forms under vmap")
        yield f"vmap(lax.switch), {shape}, forms for batches", against(
            every_branch(apart=False), *size, aim, note="as compiled: all branches, one kept")
        yield f"every branch apart, {shape}, forms for batches", against(
            every_branch(apart=True), *size, note="no vmapped switch, but the best of its kind")
    for shape in ("256x32x32", "32x224x224"):
        yield f"dm-pix rotate, order 1, {shape}", against(
            lambda pixels: turned(pixels, by_pix=True), *SIZES[shape], note=FLOATS,
            mine=lambda pixels: turned(pixels, by_pix=False))
    yield "two devices, 512x32x32", two_devices(512, 32, 1.5)
    yield "two devices, 32x224x224", two_devices(*LARGE, 1.8)


ROWS = dict(_rows())
