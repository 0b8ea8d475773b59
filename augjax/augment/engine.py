"""The engine: does every image's own program. One meaning, one lowering per kind of backend.

`per_image` walks over the images and takes a real branch per operation: right for a CPU, where
launching costs nothing and work costs time. `select` does every family of operations to the whole
batch in one pass and keeps what each image asked for: right for a GPU, where branches cost
synchronisation. `products` does the same by one-hot matrices where `select` fetches pixels by
their index: right for a TPU, where that costs most. The bits are equal; dm-pix's operations, being
floats, agree to what `pix` states. Design and measurements: engine.md, `launch.benchmark`.
"""

from dataclasses import replace

import jax
from jax import lax
import jax.numpy as jnp

from augjax import check
from augjax.augment.ops import branch, ROW
from augjax.augment.parallel import one_batch, over_data
from augjax.augment.select import GATHERS, select_layer
from augjax.augment.tpu import PRODUCTS
from augjax.types import record, static

LARGEST = 8192  # pixels a side: 16.16 coordinates stay inside int32


@record
class Program:
    """What to do to every image of a batch, layer after layer."""

    op: jax.Array  # [B, L] int32, positions in `ops`
    parameters: jax.Array  # [B, L, ROW] int32, how: see `augjax.augment.ops`
    ops: tuple[str, ...] = static()  # the operations that may occur; no others are compiled
    interpolation: str = static(default="nearest")  # how geometry samples: or "bilinear"


def apply(images: jax.Array, program: Program) -> jax.Array:
    """Does each image's program: [B, H, W, C] uint8 -> same.

    Sharded over the mesh axis "data" where `jax.set_mesh` has set one and the batch divides; the
    bits do not depend on it. `jax.vmap` joins its axis to the batch. Raises ConfigError.
    """
    check_images(images)
    check_program(images, program)

    def lowered(images, op, row):
        return lax.platform_dependent(
            images, replace(program, op=op, parameters=row),
            cpu=per_image, tpu=products, default=select,
        )

    def whole(images, op, row):
        return over_data(lowered)(images, op, row)

    return one_batch(whole)(images, program.op, program.parameters)


def per_image(images: jax.Array, program: Program) -> jax.Array:
    """`apply` by a loop over images with one real branch per layer, whatever the backend.

    [B, H, W, C] uint8 -> same. Nothing is checked and nothing is cut over devices.
    """
    branches = [branch(name, program.interpolation) for name in program.ops]

    def one(parts):
        image, op, row = parts
        return lax.fori_loop(  # not unrolled: half the compile time, and faster
            0, op.shape[0], lambda at, image: lax.switch(op[at], branches, image, row[at]), image
        )

    return lax.map(one, (images, program.op, program.parameters))


def select(images: jax.Array, program: Program) -> jax.Array:
    """`apply` by doing every family of operations to the whole batch, whatever the backend.

    [B, H, W, C] uint8 -> same; as `per_image` it neither checks nor cuts.
    """
    return _by_families(images, program, GATHERS)


def products(images: jax.Array, program: Program) -> jax.Array:
    """`select` without a gather of pixels: one-hot products instead, whatever the backend.

    [B, H, W, C] uint8 -> same; as `per_image` it neither checks nor cuts.
    """
    return _by_families(images, program, PRODUCTS)


def _by_families(images, program, forms):
    def layer(at, images):  # a loop, or a layer's gather would recompute the one before it
        return select_layer(
            images, program.op[:, at], program.parameters[:, at], program.ops,
            program.interpolation, forms,
        )

    return lax.fori_loop(0, program.op.shape[1], layer, images)


# --- refusals ------------------------------------------------------------------------------------


def check_images(images: jax.Array) -> None:
    """Raises ConfigError unless images are uint8 [B, H, W, 1 or 3], 1 to LARGEST pixels a side."""
    what = f"{images.dtype}{list(images.shape)}"
    check.require(
        images.ndim == 4 and images.shape[-1] in (1, 3), "images", "[B, H, W, C] with C of 1 or 3",
        what, "add the batch axis, put channels last, drop an alpha channel",
    )
    check.require(
        images.dtype == jnp.uint8, "images", "uint8 pixels 0..255", what,
        "augment before normalising; convert floats with (x + 0.5).astype(uint8)",
    )
    check.require(
        images.size > 0, "images", "at least one, of at least one pixel", what,
        "leave an empty batch out",
    )
    check.require(
        max(images.shape[1:3]) <= LARGEST, "images", f"at most {LARGEST} pixels a side", what,
        "resize or crop them first",
    )


def check_program(images: jax.Array, program: Program) -> None:
    """Raises ConfigError unless the program fits the images and names known operations."""
    for name in program.ops:
        branch(name, program.interpolation)
    op, row = program.op.shape, program.parameters.shape
    check.require(
        len(op) == 2 and op[0] == images.shape[0] and row == (*op, ROW), "program",
        f"op [{images.shape[0]}, L] and parameters [{images.shape[0]}, L, {ROW}]",
        f"op {list(op)} and parameters {list(row)}", "draw it with one key per image",
    )
