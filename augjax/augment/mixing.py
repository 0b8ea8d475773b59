"""mixup and CutMix: images of one batch put into each other. Source: spec B7.

Shares are multiples of 1/65536, so that every mixed pixel is exact in float32: the same numbers on
every backend and on any number of devices. All draws are batch-wide, from one replicated key.

    numbers    how strongly and how often: `Mixing`, data, may be scheduled or searched
    pairs      who is mixed with whom: over the `whole_batch` or `per_device`
    mix        what is done to a pair: `mixup`, `cutmix`, or a function of yours
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
from jax import lax
import jax.numpy as jnp
from jax.sharding import AxisType, PartitionSpec as P
import numpy as np

from augjax import check
from augjax.augment.engine import check_images
from augjax.types import record

PARTS = 65536  # a share lam is a whole number of these

Pairs = Callable[[], int]  # into how many runs of neighbours a batch is cut, each paired in itself
Mix = Callable[..., tuple[jax.Array, jax.Array]]  # see `mixup`


@record
class Mixing:
    """How strongly and how often a batch is mixed; `beta_mixing` checks what it is given."""

    alpha: Any  # [] float32
    probability: Any  # [] float32


def beta_mixing(alpha: float = 1.0, probability: float = 1.0) -> Mixing:
    """lam ~ Beta(alpha, alpha), one per batch; a batch is mixed with `probability`, else left.

    Both may be traced scalars or schedules. The papers: alpha 1; probability 1, or 0.5 for CutMix
    on CIFAR. Raises ConfigError.
    """
    check_mixing(Mixing(alpha, probability))
    return Mixing(*(
        np.float32(value) if isinstance(value, int | float) else value
        for value in (alpha, probability)
    ))


def check_mixing(numbers: object) -> None:
    """Raises ConfigError unless `numbers` is a Mixing in range; tracers and schedules pass."""
    check.require(
        isinstance(numbers, Mixing), "numbers of a mixed view", "a Mixing",
        type(numbers).__name__, "build it with augment.beta_mixing() and name it in the policies",
    )

    def concrete(value):
        return not callable(value) and not isinstance(value, jax.core.Tracer)

    if concrete(numbers.alpha):
        alpha, float32 = np.asarray(numbers.alpha), np.finfo(np.float32)
        inside = (alpha >= float32.tiny) & (alpha <= float32.max)  # beyond, shares would be NaN
        check.require(
            bool(np.all(inside)), "alpha of beta_mixing", "a finite number above 0",
            numbers.alpha, "1 draws shares uniformly; probability=0 mixes nothing",
        )
    if concrete(numbers.probability):
        inside = (np.asarray(numbers.probability) >= 0) & (np.asarray(numbers.probability) <= 1)
        check.require(
            bool(np.all(inside)), "probability of beta_mixing", "a probability in [0, 1]",
            numbers.probability, "1 mixes every batch",
        )


# --- the draws: batch-wide -----------------------------------------------------------------------


def draw_lam(key: jax.Array, numbers: Mixing) -> jax.Array:
    """The share of the image itself: [] float32 in [0, 1], a whole number of 1/65536.

    Beta(1, 1) is drawn from the bits themselves, the same on every backend. Another alpha goes
    through logarithms, which backends round differently: 1/65536 more or less, now and then.
    """
    lam_key, apply_key = jax.random.split(key)
    alpha = jnp.asarray(numbers.alpha, jnp.float32)
    share = lax.cond(
        alpha == 1.0,
        lambda: _uniform(lam_key),
        lambda: jax.random.beta(lam_key, alpha, alpha, dtype=jnp.float32),
    )
    lam = jnp.round(share * PARTS) / PARTS
    applied = _uniform(apply_key) < jnp.asarray(numbers.probability, jnp.float32)
    return jnp.where(applied, lam, jnp.float32(1.0))


def _uniform(key):
    return jax.random.uniform(key, (), jnp.float32)


def derangement(key: jax.Array, batch: int) -> jax.Array:
    """Partners among `batch` images: [B] int32, a uniform permutation without a fixed point.

    Permutations are drawn until one has none, as in Good-DA-in-KD; 2.7 of them on average. A batch
    of one image has no such permutation and is its own partner.
    """

    def draw(key):
        places = jnp.arange(batch, dtype=jnp.int32)

        def again(state):
            return (state[1] == places).any()

        def once(state):
            attempt, _ = state
            return attempt + 1, jax.random.permutation(jax.random.fold_in(key, attempt), places)

        return lax.while_loop(again, once, (jnp.int32(0), places))[1]

    return _on_every_device(draw)(key) if batch > 1 else jnp.zeros(1, jnp.int32)


def _on_every_device(function):
    """Computes small, equal things on each device by itself.

    Left to the compiler, they are cut like what uses them: the loop above would then talk between
    devices in every round, and XLA's CPU backend can wait forever for talk inside and outside of a
    loop at once.
    """
    mesh = jax.sharding.get_abstract_mesh()
    types = dict(zip(mesh.axis_names, mesh.axis_types, strict=True))
    if types.get("data", AxisType.Manual) == AxisType.Manual:
        return function
    return jax.shard_map(
        function, in_specs=P(), out_specs=P(), axis_names={"data"}, check_vma=False)


# --- who is mixed with whom ----------------------------------------------------------------------


def whole_batch() -> int:
    """Partners come from the whole batch, from any device: the papers' rule, the same anywhere."""
    return 1


def per_device() -> int:
    """Partners lie on the same device of the mesh axis "data": nothing crosses a pod's network.

    On one device this is `whole_batch`; otherwise it depends on the number of devices.
    """
    return jax.sharding.get_abstract_mesh().shape.get("data", 1)


def draw_partners(key: jax.Array, batch: int, pairs: Pairs = whole_batch) -> jax.Array:
    """[B] int32, each image's partner. Every run is permuted alike. Raises ConfigError."""
    runs = pairs()
    check.require(
        batch % runs == 0, "batch of pairs per device", f"a multiple of {runs} devices", batch,
        "change the batch size or pair over the whole batch",
    )
    each = batch // runs
    first = each * jnp.arange(runs, dtype=jnp.int32)
    return (first[:, None] + derangement(key, each)).reshape(-1)


def of_partners(images: jax.Array, partner: jax.Array, pairs: Pairs = whole_batch) -> jax.Array:
    """images[partner]: [B, ...] and [B] int32 from `draw_partners`; each run gathers by itself."""
    runs = images.reshape(pairs(), -1, *images.shape[1:])  # cut over "data" along its first axis
    return runs[:, partner[: runs.shape[1]]].reshape(images.shape)


# --- what is done to a pair ----------------------------------------------------------------------


def mixup(
    key: jax.Array, images: jax.Array, others: jax.Array, lam: jax.Array
) -> tuple[jax.Array, jax.Array]:
    """x' = lam x + (1 - lam) x_partner: uint8 [B, H, W, C] twice -> (float32 0..255, lam []).

    `lam` counts in 1/65536, so the sum is exact. Source: Zhang et al. 2018; spec B7.
    """
    del key
    own = jnp.asarray(lam * PARTS, jnp.int32)
    total = own * images.astype(jnp.int32) + (PARTS - own) * others.astype(jnp.int32)  # < 2^24
    return total.astype(jnp.float32) * np.float32(1 / PARTS), lam


def cutmix(
    key: jax.Array, images: jax.Array, others: jax.Array, lam: jax.Array
) -> tuple[jax.Array, jax.Array]:
    """Pastes one box of the partner into every image: uint8 [B, H, W, C] twice -> (uint8, lam' []).

    The centre is uniform over the pixels; lam' is the share of the image that is left.
    Source: Yun et al. 2019 as in clovaai/CutMix-PyTorch; spec B7.
    """
    height, width = images.shape[1:3]
    x_bits, y_bits = jax.random.bits(key, (2,))
    box, lam = cutmix_box(lam, x_bits % width, y_bits % height, height, width)
    y, x = jnp.arange(height)[:, None, None], jnp.arange(width)[None, :, None]
    inside = (x >= box[0]) & (x < box[2]) & (y >= box[1]) & (y < box[3])  # [H, W, 1]
    return jnp.where(inside, others, images), lam


def cutmix_box(
    lam: jax.Array, center_x: jax.Array, center_y: jax.Array, height: int, width: int
) -> tuple[jax.Array, jax.Array]:
    """((left, top, right, bottom) [4] int32, lam' [] float32) of a share and a centre in pixels.

    Sides are int(W sqrt(1 - lam)), int(H sqrt(1 - lam)), halved towards zero and clipped at the
    borders; lam' = 1 - area / (W H). The root is found by counting the sides whose square fits,
    which no backend rounds differently.
    """
    rest = 1.0 - jnp.asarray(lam, jnp.float32)

    def edges(center, size):
        side = (jnp.arange(1, size + 1, dtype=jnp.float32) ** 2 <= rest * (size * size)).sum()
        half = side.astype(jnp.int32) // 2
        center = center.astype(jnp.int32)
        return jnp.clip(center - half, 0, size), jnp.clip(center + half, 0, size)

    center_x, center_y = jnp.asarray(center_x), jnp.asarray(center_y)
    (left, right), (top, bottom) = edges(center_x, width), edges(center_y, height)
    area = ((right - left) * (bottom - top)).astype(jnp.float32)
    return jnp.stack([left, top, right, bottom]), 1.0 - area / np.float32(width * height)


# --- the whole -----------------------------------------------------------------------------------


class Mixture(NamedTuple):
    """A mixed batch: pixels, whom each image was mixed with, the share that is its own."""

    image: jax.Array  # [B, H, W, C] uint8, or float32 in 0..255
    partner: jax.Array  # [B] int32, positions in the batch
    lam: jax.Array  # [] float32


def mix_batch(
    key: jax.Array, numbers: Mixing, mix: Mix, images: jax.Array, pairs: Pairs = whole_batch
) -> Mixture:
    """Mixes uint8 [B, H, W, C] with itself, inside anybody's jitted step. Raises ConfigError.

    The label of image b is lam label[b] + (1 - lam) label[partner[b]].
    """
    check_images(images)
    check_mixing(numbers)
    lam_key, pair_key, mix_key = jax.random.split(key, 3)
    partner = draw_partners(pair_key, images.shape[0], pairs)
    others = of_partners(images, partner, pairs)
    mixed, lam = mix(mix_key, images, others, draw_lam(lam_key, numbers))
    return Mixture(mixed, partner, lam)
