"""Leading eigenvectors of symmetric matrices, with a gradient that is always finite.

On a CPU they are iterated for with matrix products: jax 0.10 hands batched LAPACK calls to the
thread pool that they already occupy, and two at once wait for each other for ever.
"""

from functools import partial

import jax
from jax import lax
import jax.numpy as jnp
import numpy as np

from augjax.losses.precise import product, unit

GAP = 1e-6  # of the largest eigenvalue: closer ones count as equal
WHOLE = 16  # matrices up to this size are decomposed as a whole,
MORE = 8  # others into so many vectors more than are asked for
STEPS, SWEEPS, SOLVE = 40, 8, 30  # of subspace iteration, of Jacobi, of conjugate gradients


@partial(jax.custom_vjp, nondiff_argnums=(1,))
def leading_eigenvectors(a: jax.Array, count: int) -> tuple[jax.Array, jax.Array]:
    """The `count` largest eigenvalues and their vectors.

    The gradient of vector v_j is sum_i v_i (v_i . dA v_j) / (w_j - w_i). Where |w_j - w_i| is at
    most 1e-6 of the largest |w| that summand is left out: vectors of equal eigenvalues may be
    turned into each other, so nothing that depends on them alone has a derivative along that turn.
    The eigenvalues carry no gradient.

    Matrices above 16 x 16 are decomposed into count + 8 vectors, on a CPU by a subspace iteration
    that leaves the j-th exact to (w_{count + 9} / w_j)^40. What lies beyond the `count` adds to the
    gradient what 30 steps of conjugate gradients, on every device, find of it.

    Args:
      a: [..., n, n] symmetric, no eigenvalue below 0.

    Returns ([..., count], [..., n, count]), largest first. Source: spec D4.
    """
    return _forward(a, count)[0]


def _forward(a, count):
    size = a.shape[-1]
    kept = size if size <= WHOLE else min(size, count + MORE)
    values, vectors = lax.platform_dependent(
        a, cpu=partial(by_iteration, kept=kept), default=partial(by_eigh, kept=kept))
    return (values[..., :count], vectors[..., :count]), (a, values, vectors)


def _pull(count, saved, cotangents):
    a, values, vectors = saved
    pull = cotangents[1]  # [..., n, count]
    gap = values[..., None, :count] - values[..., :, None]  # [..., kept, count]
    near = jnp.abs(gap) <= GAP * jnp.max(jnp.abs(values), axis=-1)[..., None, None]
    turn = product("...ni,...nj->...ij", vectors, pull)
    turn = jnp.where(near, 0, turn / jnp.where(near, 1, gap))
    moved = product("...ni,...ij->...nj", vectors, turn)
    if vectors.shape[-1] < a.shape[-1]:
        guess = product("...ni,...ij->...nj", vectors[..., count:], turn[..., count:, :])
        leading = vectors[..., :count]
        moved += _solved(a, values[..., None, :count], leading, pull, guess) - guess
    pulled = product("...nj,...mj->...nm", moved, vectors[..., :count])
    return ((pulled + jnp.swapaxes(pulled, -1, -2)) / 2,)


leading_eigenvectors.defvjp(_forward, _pull)


def _solved(a, values, vectors, pull, guess):
    """x with (w_j - A) x = pull_j beyond all given vectors, by conjugate gradients: [..., n, j]."""
    def beyond(x):
        return x - product("...nk,...kj->...nj", vectors,
                           product("...nk,...nj->...kj", vectors, x))

    def turn(x):
        return beyond(values * x - product("...nm,...mj->...nj", a, x))

    def step(_, state):
        x, rest, way, length = state
        turned = turn(way)
        bend = jnp.sum(way * turned, -2, keepdims=True)
        goes = (bend > 0) & (length > enough)
        far = jnp.where(goes, length / jnp.where(goes, bend, 1), 0)
        x, rest = x + far * way, rest - far * turned
        after = jnp.sum(rest * rest, -2, keepdims=True)
        way = rest + jnp.where(goes, after / jnp.where(goes, length, 1), 0) * way
        return x, rest, way, after

    guess = beyond(guess)
    enough = jnp.finfo(pull.dtype).eps ** 2 * jnp.sum(pull * pull, -2, keepdims=True)
    rest = beyond(pull) - turn(guess)
    length = jnp.sum(rest * rest, -2, keepdims=True)
    return lax.fori_loop(0, SOLVE, step, (guess, rest, rest, length))[0]


def by_eigh(a: jax.Array, kept: int) -> tuple[jax.Array, jax.Array]:
    """The `kept` largest eigenvalues and vectors, by the device's own library."""
    values, vectors = jnp.linalg.eigh(a)
    return values[..., ::-1][..., :kept], vectors[..., ::-1][..., :kept]


def by_iteration(a: jax.Array, kept: int) -> tuple[jax.Array, jax.Array]:
    """The same by matrix products alone: all at once, or the leading subspace and those in it."""
    size = a.shape[-1]
    if kept == size:
        return jacobi(a)
    draw = np.random.Generator(np.random.Philox(0)).normal(size=(size, kept))
    x = jnp.broadcast_to(jnp.asarray(draw, a.dtype), (*a.shape[:-1], kept))
    x = lax.fori_loop(
        0, STEPS, lambda _, x: _orthonormal(product("...nm,...mk->...nk", a, x)), x)
    inner = product("...nk,...nm,...ml->...kl", x, a, x)
    values, turn = jacobi((inner + jnp.swapaxes(inner, -1, -2)) / 2)
    return values, product("...nk,...kl->...nl", x, turn)


def _orthonormal(x):
    """Gram and Schmidt, each column twice; one that adds nothing becomes 0: [..., n, k]."""
    def column(place, q):
        v = lax.dynamic_index_in_dim(x, place, -1, keepdims=False)
        for _ in range(2):
            v = unit(v - product("...nk,...k->...n", q, product("...nk,...n->...k", q, v)))
        return lax.dynamic_update_index_in_dim(q, v, place, -1)

    return lax.fori_loop(0, x.shape[-1], column, jnp.zeros_like(x))


def jacobi(a: jax.Array) -> tuple[jax.Array, jax.Array]:
    """All eigenvalues, largest first, and their vectors, by Jacobi's rotations.

    In every round of a sweep each index meets one other, as in a tournament, and all pairs are
    rotated at once; eight sweeps take what lies off the diagonal to rounding.

    Args:
      a: [..., n, n] symmetric, small.
    """
    size = a.shape[-1]
    partner = jnp.asarray(_tournament(size))  # [rounds, n, n], permutations
    eye = jnp.eye(size, dtype=a.dtype)
    lower = jnp.arange(size)

    def meet(round, state):
        a, vectors = state
        pairs = lax.dynamic_index_in_dim(partner, round % len(partner), 0, keepdims=False)
        other = jnp.argmax(pairs, -1)
        pairs = pairs.astype(a.dtype)
        own = jnp.sum(a * eye, -1)
        across = jnp.sum(a * pairs, -1)
        alone = (across == 0) | (other == lower)
        ratio = (product("...n,mn->...m", own, pairs) - own) / (2 * jnp.where(alone, 1, across))
        sign = jnp.where(ratio == 0, jnp.where(lower < other, 1, -1), jnp.sign(ratio))
        tangent = jnp.where(alone, 0, sign / (jnp.abs(ratio) + jnp.sqrt(1 + ratio**2)))
        cosine = 1 / jnp.sqrt(1 + tangent**2)
        turn = cosine[..., None] * eye + (tangent * cosine)[..., None] * pairs * (1 - eye)
        a = product("...nk,...nm,...ml->...kl", turn, a, turn)
        # Of a matrix that is not quite symmetric both would turn by different angles.
        return (a + jnp.swapaxes(a, -1, -2)) / 2, product("...nk,...kl->...nl", vectors, turn)

    a, vectors = lax.fori_loop(
        0, SWEEPS * len(partner), meet, (a, jnp.broadcast_to(eye, a.shape)))
    values = jnp.sum(a * eye, -1)
    ranked = jnp.argsort(values, axis=-1, descending=True)
    return (jnp.take_along_axis(values, ranked, -1),
            jnp.take_along_axis(vectors, ranked[..., None, :], -1))


def _tournament(size):
    """Who meets whom in each round, so that all do once: [rounds, n, n] bool permutations."""
    places = [*range(size), *([None] if size % 2 else [])]
    rounds = []
    for _ in range(max(len(places) - 1, 1)):
        met = np.zeros((size, size), bool)
        for one, other in zip(places, places[::-1]):
            if one is None or other is None:
                alone = one if other is None else other
                met[alone, alone] = True
            else:
                met[one, other] = True
        rounds.append(met)
        places = [places[0], places[-1], *places[1:-1]]
    return np.stack(rounds)
