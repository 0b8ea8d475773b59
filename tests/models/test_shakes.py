"""The laws of ShakeDrop and Shake-Shake: forward, backward and prediction (spec M2)."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from augjax.models import Build, Mode, pyramidnet, shake_shake
from augjax.models.layers import shaken
from augjax.types import View
from zoo_rows import net_of, rows_of

TRAIN = Mode(views=(View("all"),))
ROWS = 40_000  # the means below are those of that many draws, to four standard deviations
IMAGES = np.random.default_rng(0).normal(size=(2000, 1, 1, 8)).astype(np.float32)
BLOCKS = {  # one of either kind that keeps its shape, whose norms `last` end its branches
    "pyramid": (lambda build: build.block(pyramidnet.PyramidBlock)(2, 1, 0.75, build),
                ("norm4",)),
    "shake_shake": (lambda build: build.block(shake_shake.ShakeShakeBlock)(8, 1, build),
                    ("branch1_norm2", "branch2_norm2")),
}


def close(a, b, tolerance=1e-5):
    np.testing.assert_allclose(a, b, rtol=tolerance, atol=tolerance)


def constant(values):
    """`values` as factors of every row: a number, or [passes, branches] of them."""
    values = jnp.asarray(values, jnp.float32)[..., None, None, None, None]
    return jnp.broadcast_to(values, (*values.shape[:-4], len(IMAGES), 1, 1, 1))


def block_of(name, biases, remat=False):
    """(branches' sum in training and its bias gradients, the same in prediction).

    The branches are made constants: their last norms have scale 0 and the given bias.
    """
    make, last = BLOCKS[name]
    block = make(Build(classes=5, remat=remat))
    variables = jax.jit(lambda: block.init(jax.random.key(0), IMAGES, Mode()))()
    for norm, bias in zip(last, biases):
        variables["params"][norm] = {"scale": jnp.zeros((1, 8)), "bias": jnp.full((1, 8), bias)}

    def branches(mode):
        def run(params):
            y, _ = block.apply(variables | {"params": params}, IMAGES, mode,
                               rngs={"dropout": jax.random.key(1)}, mutable=["batch_stats"])
            return (y - IMAGES).sum() / 8, y - IMAGES

        (_, y), gradient = jax.jit(jax.value_and_grad(run, has_aux=True))(variables["params"])
        return y, [float(gradient[norm]["bias"].sum()) for norm in last]  # of 8 channels' mean

    return branches(TRAIN), branches(Mode())


def test_gradients_flow_by_the_backward_factor():
    forward, backward = (jnp.asarray(v).reshape(4, 1, 1, 1) for v in
                         ([1.0, 0.0, -0.5, 0.3], [0.2, 1.0, 0.7, 0.0]))
    x = IMAGES[:4]
    y, pull = jax.vjp(lambda x: shaken(x, forward, backward), x)
    close(y, x * forward)
    close(pull(jnp.ones_like(y))[0], np.broadcast_to(backward, x.shape))


@pytest.mark.parametrize("survival", [0.5, 0.9])
def test_shake_drop_draws_by_its_law(survival):
    forward, backward = (np.ravel(f) for f in
                         pyramidnet.shake_drop(jax.random.key(0), ROWS, survival))
    shaken_rows = forward != 1
    np.testing.assert_array_equal(shaken_rows, backward != 1)  # one b for both passes
    assert shaken_rows.mean() == pytest.approx(1 - survival, abs=4 * 0.5 / np.sqrt(ROWS))
    assert forward.mean() == pytest.approx(survival, abs=4 / np.sqrt(ROWS))  # as in prediction
    alpha, beta = forward[shaken_rows], backward[shaken_rows]
    few = 4 / np.sqrt(alpha.size)
    for values, mean, variance in ((alpha, 0, 1 / 3), (beta, 1 / 2, 1 / 12)):
        assert values.mean() == pytest.approx(mean, abs=few)
        assert values.var() == pytest.approx(variance, abs=few)
    assert -1 <= alpha.min() < -0.99 and 0 <= beta.min() < 0.01
    assert abs(np.corrcoef(alpha, beta)[0, 1]) < few
    assert abs(np.corrcoef(alpha[1:], alpha[:-1])[0, 1]) < few  # every row its own


def test_shake_shake_draws_by_its_law():
    factors = np.asarray(shake_shake.shake_shake_factors(jax.random.key(0), ROWS))
    assert factors.shape == (2, 2, ROWS, 1, 1, 1)
    forward, backward = factors[:, 0, :, 0, 0, 0]
    few = 4 / np.sqrt(ROWS)
    close(factors.sum(1), 1)
    assert 0 <= factors.min() and factors.max() <= 1
    for values in (forward, backward):
        assert values.mean() == pytest.approx(1 / 2, abs=few)
        # U / (U + V) has the second moment 1 - log 2; Gastaldi's U(0, 1) would have 1 / 3
        assert np.square(values).mean() == pytest.approx(1 - np.log(2), abs=few / 2)
    assert abs(np.corrcoef(forward, backward)[0, 1]) < few
    assert abs(np.corrcoef(forward[1:], forward[:-1])[0, 1]) < few


def test_a_pyramid_block_shakes_its_branch(monkeypatch):
    (trained, _), (predicted, _) = block_of("pyramid", (1.0,))
    close(predicted, 0.75)
    close(trained, np.broadcast_to(trained[..., :1], trained.shape))  # one factor for each row
    assert trained.mean() == pytest.approx(0.75, abs=4 / np.sqrt(len(IMAGES)))
    assert len(np.unique(np.asarray(trained[:, 0, 0, 0]).round(4))) > 0.2 * len(IMAGES)
    for forward, backward in ((-0.5, 0.25), (1.0, 0.0)):
        monkeypatch.setattr(pyramidnet, "shake_drop",
                            lambda *_: (constant(forward), constant(backward)))
        (trained, (gradient,)), _ = block_of("pyramid", (1.0,))
        close(trained, forward)
        close(gradient, backward * len(IMAGES))


def test_survival_falls_linearly_over_the_blocks(monkeypatch):
    seen = []

    def spy(key, rows, survival):
        seen.append(survival)
        return jnp.ones((rows, 1, 1, 1)), jnp.ones((rows, 1, 1, 1))

    monkeypatch.setattr(pyramidnet, "shake_drop", spy)
    for name, expected in (("pyramidnet_272_200", [5 / 6, 4 / 6, 3 / 6]),
                           ("pyramidnet_200_240", [])):
        net = net_of(name, depth=11, widening=6)
        variables = jax.eval_shape(net.init, jax.random.key(0))
        seen.clear()
        jax.eval_shape(net.train, variables, rows_of(4), jax.random.key(0))
        assert seen == pytest.approx(expected)


def test_a_shake_shake_block_mixes_its_branches(monkeypatch):
    (both, _), (predicted, _) = block_of("shake_shake", (1.0, 1.0))
    close(both, 1)
    close(predicted, 1)
    (trained, _), (predicted, _) = block_of("shake_shake", (1.0, 0.0))  # a_1 itself
    close(predicted, 0.5)
    assert trained.mean() == pytest.approx(0.5, abs=2 / np.sqrt(len(IMAGES)))
    assert len(np.unique(np.asarray(trained[:, 0, 0, 0]).round(5))) > 0.9 * len(IMAGES)
    factors = constant([[0.25, 0.75], [0.9, 0.1]])
    monkeypatch.setattr(shake_shake, "shake_shake_factors", lambda *_: factors)
    (trained, gradients), _ = block_of("shake_shake", (1.0, -1.0))
    close(trained, -0.5)
    close(gradients, [0.9 * len(IMAGES), 0.1 * len(IMAGES)])


def test_the_shake_shake_shortcut_reads_even_and_odd_pixels():
    images = np.random.default_rng(0).normal(size=(2, 4, 4, 8)).astype(np.float32)
    block = shake_shake.ShakeShakeBlock(16, 2, Build(classes=5))
    variables = jax.jit(lambda: block.init(jax.random.key(0), images, Mode()))()
    for branch in ("branch1", "branch2"):
        norm = f"{branch}_norm2"
        variables["params"][norm] = jax.tree.map(jnp.zeros_like, variables["params"][norm])
    for half in ("shortcut1", "shortcut2"):
        variables["params"][half] = {"kernel": jnp.eye(8)[None, None]}
    halves = images[:, ::2, ::2], images[:, 1::2, 1::2]
    close(jax.jit(lambda v: block.apply(v, images, Mode()))(variables),
          np.concatenate(halves, -1) / np.sqrt(1 + 1e-5))


@pytest.mark.parametrize("name", BLOCKS)
def test_rematerialised_blocks_draw_the_same_numbers_twice(name):
    biases = (1.0, 0.5)[: len(BLOCKS[name][1])]
    plain, again = (block_of(name, biases, remat)[0] for remat in (False, True))
    close(plain[0], again[0])
    close(plain[1], again[1])
