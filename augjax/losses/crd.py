"""Contrastive representation distillation, with a memory of every training image (CRD)."""

import math

import jax
import jax.numpy as jnp

from augjax import check
from augjax.losses.precise import in_float32, product, unit
from augjax.losses.signals import tap_of
from augjax.types import Params, PyTree, Signals, Term

EPS = 1e-7  # inside the logarithms
UNSEEN = -1  # the label of an image that has not come yet
SIDES = ("student", "teacher")


def crd(
    images: int,
    negatives: int = 16384,
    width: int = 128,
    tau: float = 0.07,
    momentum: float = 0.5,
    tap: str = "pooled",
    teacher_tap: str = "pooled",
    student: str = "student",
    teacher: str = "teacher",
) -> Term:
    """`contrast_rows` of both networks' embeddings against a memory of the other's, mean over rows.

    Both embeddings, linear to `width` and of unit length, are trained with the term (the teacher's
    features carry no gradient) and stay behind. The memory is state: one row per image and side,
    M[i] <- unit(momentum M[i] + (1 - momentum) g) after the loss. Weight 0.8, with hinton of
    weight 1 for "CRD+KD".

    Negatives are drawn among the images of other classes, without replacement. Classes become
    known as images come: one that has not come yet may be drawn for any row, but its memory is
    still noise. Where fewer than `negatives` are of other classes, all of them count, each
    negatives / (how many) times, which is what drawing with replacement gives on average. Of an
    image that has several rows in the batch, the first is remembered.

    Args:
      images: of the training set, for each of which there is a row; a recipe with more of them is
        refused, as JAX would take the last row for every image beyond it.
      negatives: per row, fewer than `images`.
      width: of the embeddings.
      tau: temperature of the scores.
      momentum: of the memory.
      tap, teacher_tap: what is embedded.

    Raises ConfigError for numbers out of range, and when initialised or traced for an unknown net
    or tap. Source: spec D9 (Tian et al. 2020; RepDistiller, mode "exact").
    """
    check.require(0 < negatives < images, "negatives of crd", f"1 to {images - 1} (images - 1)",
                  negatives, "images is the size of the training set")
    check.require(tau > 0, "tau of crd", "a positive temperature", tau, "0.07 is common")
    check.require(0 <= momentum < 1, "momentum of crd", "0 up to 1", momentum, "0.5 is common")
    taps = {"student": (student, tap), "teacher": (teacher, teacher_tap)}

    def features(signals: Signals) -> dict[str, jax.Array]:
        found = {side: tap_of(signals, *where, "crd") for side, where in taps.items()}
        return {side: f.reshape(f.shape[0], -1) for side, f in found.items()}

    def init(key, signals):
        inputs = jax.eval_shape(features, signals)
        return init_memory(key, {side: f.shape[-1] for side, f in inputs.items()}, images, width)

    def apply(params, state, signals, key):
        seen = features(signals)
        seen["teacher"] = jax.lax.stop_gradient(seen["teacher"])
        g = {side: embedded(params[side], f) for side, f in seen.items()}
        return _contrast(g, state, signals.rows, key, negatives, tau, momentum)

    return Term(init, apply, images=images)


def _contrast(g, state, rows, key, negatives, tau, momentum):
    """The value of the embeddings {side: [R, width]}, and the next state."""
    chosen = draw_negatives(key, state["label"], rows.label, rows.index, negatives)
    value, memory, z = 0.0, {}, {}
    for side, other in zip(SIDES, SIDES[::-1]):
        each, z[side] = contrast_rows(
            g[side], state["memory"][other], rows.index, chosen, negatives, state["z"][side], tau)
        value += each.mean()
        memory[side] = remember(state["memory"][side], rows.index, g[side], momentum)
    label = state["label"].at[rows.index].set(rows.label, mode="drop")
    return value, {"memory": memory, "label": label, "z": z}


def init_memory(key: jax.Array, inputs: dict[str, int], images: int, width: int
                ) -> tuple[Params, PyTree]:
    """(the embeddings, the memory): uniform, within 1 / sqrt(inputs) and 1 / sqrt(width / 3)."""
    params, memory = {}, {}
    bound = 1 / math.sqrt(width / 3)
    for number, (side, size) in enumerate(inputs.items()):
        keys = jax.random.split(jax.random.fold_in(key, number), 3)
        limit = 1 / math.sqrt(size)
        params[side] = {
            "kernel": jax.random.uniform(keys[0], (size, width), jnp.float32, -limit, limit),
            "bias": jax.random.uniform(keys[1], (width,), jnp.float32, -limit, limit),
        }
        memory[side] = jax.random.uniform(keys[2], (images, width), jnp.float32, -bound, bound)
    zero = jnp.zeros((), jnp.float32)  # no constant yet: it is positive once there is one
    return params, {"memory": memory, "label": jnp.full((images,), UNSEEN, jnp.int32),
                    "z": dict.fromkeys(SIDES, zero)}


def embedded(params: Params, f: jax.Array) -> jax.Array:
    """unit(f W + b): [R, d] -> [R, width] float32."""
    return unit(product("rc,cd->rd", in_float32(f), params["kernel"]) + params["bias"])


def draw_negatives(key: jax.Array, known: jax.Array, label: jax.Array, index: jax.Array,
                   count: int) -> jax.Array:
    """How often each remembered image is a negative of each row: [R, N] float32, sums to `count`.

    Args:
      known: [N] int32, the remembered images' labels.
      label, index: [R] int32, of the rows.
      count: negatives per row, below N.
    """
    images = jnp.arange(len(known))
    eligible = (known != label[:, None]) & (images != index[:, None])
    number = eligible.sum(-1, keepdims=True)
    # The `count` lowest of random words; a tie at the edge, once in 2**32 / N rows, adds one.
    words = jax.random.bits(key, eligible.shape, jnp.uint32)
    words = jnp.where(eligible, words, jnp.uint32(2**32 - 1))
    edge = jnp.sort(words, axis=-1)[:, count - 1 : count]
    chosen = eligible & (words <= edge)
    return chosen * jnp.maximum(1, count / jnp.maximum(number, 1)).astype(jnp.float32)


def contrast_rows(
    g: jax.Array, memory: jax.Array, index: jax.Array, chosen: jax.Array, negatives: int,
    z: jax.Array, tau: float,
) -> tuple[jax.Array, jax.Array]:
    """-log [P_0 / (P_0 + c)] - sum over negatives j of log [c / (P_j + c)], every row; and Z.

    P_j = exp(M_j . g / tau) / Z for the row's own image (0) and its negatives, c = negatives / N
    (and 1e-7 in the denominators). Z = N mean(P Z) over the first batch, then constant.

    All N scores of a row come from one matrix product; only its own image's row is gathered.

    Args:
      g: [R, width] embeddings of unit length.
      memory: [N, width], no gradient.
      index: [R] int32, the rows' places in the memory.
      chosen: [R, N], how often each image is a negative.
      negatives: per row.
      z: [] float32, 0 before the first batch.

    Returns ([R] float32, [] float32).
    """
    size = memory.shape[0]
    memory = jax.lax.stop_gradient(memory)
    own = jnp.exp(product("rd,rd->r", memory[index], g) / tau)  # [R]
    score = jnp.exp(product("rd,nd->rn", g, memory) / tau)  # [R, N]
    total = jnp.sum(own) + jnp.sum(score * chosen)
    first = size * total / (own.shape[0] * (negatives + 1))
    z = jax.lax.stop_gradient(jnp.where(z > 0, z, first).astype(jnp.float32))
    share = negatives / size
    own, score = own / z, score / z
    lost = jnp.log(own + share + EPS) - jnp.log(own)
    return lost + jnp.sum(chosen * (jnp.log(score + share + EPS) - math.log(share)), -1), z


def remember(memory: jax.Array, index: jax.Array, g: jax.Array, momentum: float) -> jax.Array:
    """The memory after a batch; of several rows of one image the first counts."""
    new = unit(momentum * memory[index] + (1 - momentum) * g)
    places = jnp.arange(len(index))
    first = ~((index[:, None] == index) & (places < places[:, None])).any(-1)
    where = jnp.where(first, index, memory.shape[0])  # beyond the end: dropped
    return memory.at[where].set(jax.lax.stop_gradient(new).astype(memory.dtype), mode="drop")
