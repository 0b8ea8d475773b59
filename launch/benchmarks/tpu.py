"""Compiler estimates, not timings: what the engine's TPU lowering moves, by XLA's TPU compiler.

The compiler itself runs (libtpu, without a TPU) and says, for one chip of a v5e, how many bytes the
program's instructions read and write, HBM and on-chip memory alike, and how large its temporaries
are. Needs libtpu (setup.py's extra "tpu", or `pip install --target DIR libtpu` and PYTHONPATH).
Gathers of pixels are left in pix_rotate and pix_affine, which are dm-pix's own.

Expected before measuring (ecosystem.md 13): 2 to 15 copies of the uint8 batch for an operation
without geometry, and the whole engine below 5 % of a ResNet-50 train step's 82 GB for 256 images of
224 pixels. Of plain gathers the same source says 220 GB (turn) and 1,729 GB (look-up) for them.

What came (jax 0.10.2, libtpu 0.0.51; 64x224x224): 2 to 16 copies without geometry, 48 for geometry
nearest, 176 bilinear, 67 for a layer of all of timm's operations. Two layers are 6.3 % of the step,
not 5; bilinear 17.4 %. Its temporaries were 8.2 float32 copies of the batch, the aim below 4: done
eight images after eight they are 0.15. The compiler counts the body of a loop once, however often
it runs, so bilinear bytes are those of one such group, compiled by itself, times the groups. On the
way to that: gathers replaced by 16 x 16 one-hot products 145 copies for both tables, by comparing
with all 256 values 16 each; geometry 75 with two products per parity and a transposed result, 71
with one, 48 with the intermediate in uint8 and indices in int16. Half of what is left of geometry
is copies between the layout that moves along rows and the one that moves along columns; 15 copies
are the input's way into on-chip memory, in four slices that are each charged the whole of it.
Groups of 8 or 16 images change nothing for nearest sampling (67.4, 67.2).
"""

from collections.abc import Callable, Iterator
import importlib.util
import os
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from augjax import augment
from augjax.augment import maps, ops
from augjax.augment.rows import ROW
from augjax.augment.tpu import images_at_a_time
from launch.benchmarks import measure

SIZES = {"64x224x224": (64, 224), "256x32x32": (256, 32)}
STEP_BYTES = 82e9 / 256  # of a ResNet-50 train step, an image of 224 pixels: ecosystem.md 13
LAYERS = 2
HEAD = "compiler estimate, v5e"


def compiled(function: Callable[..., Any], *shapes: tuple) -> Any:
    """`function` for one v5e chip; shapes are (shape, dtype)."""
    os.environ.setdefault("TPU_SKIP_MDS_QUERY", "1")
    from jax.experimental import topologies

    devices = topologies.get_topology_desc(platform="tpu", topology_name="v5e:2x2").devices
    mesh = jax.sharding.Mesh(np.array(devices[:1]), ("data",))
    whole = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec())
    arguments = [jax.ShapeDtypeStruct(*shape, sharding=whole) for shape in shapes]
    return jax.jit(function).lower(*arguments).compile()


def layer(names: tuple[str, ...], count: int, size: int, interpolation: str) -> Any:
    """One layer of a program that may name `names`, compiled for [count, size, size, 3]."""
    def one(images, op, parameters):
        program = augment.Program(op, parameters, names, interpolation)
        return augment.products(images, program)

    return compiled(one, ((count, size, size, 3), jnp.uint8), ((count, 1), jnp.int32),
                    ((count, 1, ROW), jnp.int32))


def at_once(count: int, size: int, interpolation: str) -> int:
    """How many images to compile for: of a loop over groups the compiler counts one group alone."""
    return images_at_a_time(count, size, size) if interpolation == "bilinear" else count


def moved(names: Callable[[], tuple[str, ...]], count: int, size: int, interpolation: str
          ) -> measure.Work:
    """A row: bytes accessed in copies of the uint8 batch."""
    def work(name: str) -> dict[str, Any]:
        if importlib.util.find_spec("libtpu") is None:
            return measure.unmeasured(name, "libtpu is not installed")
        images = at_once(count, size, interpolation)
        done = layer(names(), images, size, interpolation)
        batch = images * size * size * 3
        copies = done.cost_analysis()["bytes accessed"] / batch
        temporaries = done.memory_analysis().temp_size_in_bytes / (4 * batch)
        note = f"{HEAD}; temporaries {temporaries:.2f} float32 copies"
        return measure.row(name, [copies], "copies of the batch", note=note)
    return work


def share(count: int, size: int, interpolation: str) -> measure.Work:
    """A row: bytes of the engine's layers over a ResNet-50 train step's, 224 pixels."""
    def work(name: str) -> dict[str, Any]:
        if importlib.util.find_spec("libtpu") is None:
            return measure.unmeasured(name, "libtpu is not installed")
        images = at_once(count, size, interpolation)
        done = layer(maps.MAPS["timm"].ops, images, size, interpolation)
        moves = LAYERS * done.cost_analysis()["bytes accessed"] * count / images
        note = f"{HEAD}; {LAYERS} layers of one layer's estimate, {moves / 1e9:.2f} GB"
        return measure.row(name, [moves / (STEP_BYTES * count)], "of a ResNet-50 step's bytes",
                           at_most=0.05 if interpolation == "nearest" else None, note=note)
    return work


def temporaries(count: int, size: int, interpolation: str) -> measure.Work:
    """A row: temporaries of the whole engine, two layers, in float32 copies of the batch."""
    def work(name: str) -> dict[str, Any]:
        if importlib.util.find_spec("libtpu") is None:
            return measure.unmeasured(name, "libtpu is not installed")
        policy = augment.randaugment(9.0, map="timm", interpolation=interpolation)

        def engine(key, images):
            keys = augment.image_keys(jax.random.wrap_key_data(key), count)
            return augment.products(images, augment.draw(keys, policy, images.shape[1:]))

        done = compiled(engine, ((2,), jnp.uint32), ((count, size, size, 3), jnp.uint8))
        copies = done.memory_analysis().temp_size_in_bytes / (4 * count * size * size * 3)
        return measure.row(name, [copies], "float32 copies of the batch", at_most=4, note=HEAD)
    return work


def _rows() -> Iterator[tuple[str, measure.Work]]:
    for shape, size in SIZES.items():
        for interpolation in ops.INTERPOLATIONS:
            if size[1] == 224:
                yield f"engine, {shape}, {interpolation}: share", share(*size, interpolation)
            yield f"engine, {shape}, {interpolation}: temporaries", temporaries(
                *size, interpolation)
            yield f"one layer, all of timm's, {shape}, {interpolation}", moved(
                lambda: maps.MAPS["timm"].ops, *size, interpolation)
        for name in ops.OPS:
            yield f"{name}, {shape}", moved(lambda name=name: (name,), *size, "nearest")
        for name in ops.BILINEAR:
            yield f"{name}, {shape}, bilinear", moved(lambda name=name: (name,), *size, "bilinear")


ROWS = dict(_rows())
