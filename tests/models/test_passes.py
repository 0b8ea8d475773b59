"""A network in several passes: separate BatchNorm as a lone run, sizes apart, views unseen."""

from dataclasses import replace

from flax import linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from augjax import check, models
from augjax.models.net import of_scales, of_views
from augjax.models.norm import BatchNorm
from augjax.types import Outputs, Rows, View

COUNT, IMAGES, SIDE = 3, 8, 8
KEY = jax.random.key(1)
BRANCHES = tuple(View(f"branch{i}", domain=i) for i in range(COUNT))


class Tiny(nn.Module):
    """Convolution, BatchNorm, mean, linear head."""

    domains: int = 1

    @nn.compact
    def __call__(self, x, mode):
        x = nn.Conv(4, (3, 3), use_bias=False, name="conv")(x)
        x = nn.relu(BatchNorm(self.domains, name="norm")(x, mode))
        pooled = x.mean((1, 2))
        return Outputs(nn.Dense(5, name="head")(pooled), {"f0": x}, pooled)


def tiny(domains=1, side=SIDE):
    return models.from_linen(Tiny(domains), (side, side, 3), [0.5] * 3, [0.25] * 3)


def shown(views=BRANCHES):
    """Rows of drawn images, branch after branch darker: [B * N, ...], example-major."""
    image = np.random.default_rng(0).integers(0, 256, (IMAGES, SIDE, SIDE, 3), np.uint8)
    image = np.stack([image // (1 + 2 * i) for i in range(COUNT)], 1).reshape(-1, *image.shape[1:])
    whole = jnp.zeros((len(image),), jnp.int32)
    return Rows(jnp.asarray(image), whole, whole, jnp.ones(whole.shape), whole, views)


def of_branch(tree, branch):
    return jax.tree.map(lambda leaf: leaf[branch::COUNT], tree)


def one_of(branch, view):
    return replace(of_branch(shown(), branch), views=(view,))


def close(a, b):
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=2e-5, atol=2e-6), a, b)


def test_a_branchs_statistics_and_answers_are_those_of_a_lone_run_on_its_rows():
    """Separate BatchNorm (a2_aug Eq. 6): the others' rows in the same pass change nothing."""
    params, stats = tiny(COUNT).init(KEY)
    together, moved = jax.jit(tiny(COUNT).train)((params, stats), shown(), KEY)
    lone = jax.jit(tiny().train)
    for branch in range(COUNT):
        def own(tree):  # the branch's BatchNorm set alone
            sets = jax.tree.map(lambda leaf: leaf[branch:branch + 1], tree["norm"])
            return {**tree, "norm": sets}

        alone, statistics = lone((own(params), own(stats)), one_of(branch, View("a")), KEY)
        close(of_branch(together.logits, branch), alone.logits)
        close(own(moved), statistics)
    assert len(np.unique(np.asarray(moved["norm"]["mean"])[:, 0])) == COUNT


def test_sizes_are_passes_of_their_own_and_meet_again_example_major():
    """Branch i is seen at size i; in prediction so is the whole image."""
    nets = [tiny(COUNT, side) for side in (8, 6, 4)]
    net, seen = of_scales(nets), shown()
    variables = net.init(KEY)
    together, stats = jax.jit(net.train)(variables, seen, KEY)
    assert not together.features and together.pooled.shape == (IMAGES * COUNT, 4)

    @jax.jit
    def apart(variables):
        mine = [one_of(branch, view) for branch, view in enumerate(BRANCHES)]
        return [(own.train(variables, rows, KEY), own.predict(variables, rows, branch),
                 net.predict(variables, rows, branch))
                for branch, (own, rows) in enumerate(zip(nets, mine))]

    for branch, ((alone, moved), predicted, whole) in enumerate(apart(variables)):
        close(of_branch((together.logits, together.pooled), branch), (alone.logits, alone.pooled))
        close(*(jax.tree.map(lambda leaf: leaf[branch], part) for part in (stats, moved)))
        close(whole.logits, predicted.logits)
    with pytest.raises(check.ConfigError, match="0 to 2, one for each scale"):
        net.predict(variables, seen, 3)


def test_a_network_may_see_some_views_alone():
    views, net = tuple(View(name) for name in "abc"), tiny()
    variables = net.init(KEY)
    outputs, stats = jax.jit(of_views(net, ("b",)).train)(variables, shown(views), KEY)
    alone, moved = jax.jit(net.train)(variables, one_of(1, View("b")), KEY)
    close((of_branch(outputs, 1), stats), (alone, moved))
    for other in (0, 2):
        assert not of_branch(outputs.logits, other).any()
    with pytest.raises(check.ConfigError, match="view of a model: .*got 'd'"):
        jax.eval_shape(of_views(net, ("d",)).train, variables, shown(views), KEY)


def test_a_scale_for_every_set_and_none_too_small():
    def build(**options):
        return models.build("resnet8_tiny", 10, (16, 16, 3), [0.5] * 3, [0.5] * 3, **options)

    net = build(domains=2, scales=[16, 8])
    rows = jax.eval_shape(lambda: shown(BRANCHES[:2]))
    outputs, _ = jax.eval_shape(net.train, jax.eval_shape(net.init, KEY), rows, KEY)
    assert outputs.logits.shape == (IMAGES * COUNT, 10)
    with pytest.raises(check.ConfigError, match="scales: expected none, or one for each of 2"):
        build(domains=2, scales=(16,))
    with pytest.raises(check.ConfigError, match="image_shape of resnet8_tiny"):
        build(domains=2, scales=(16, 4))
