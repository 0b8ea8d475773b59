"""BatchNorm: whose rows share statistics, whose scale is used, what the running ones become."""

from flax import linen as nn
import jax
import jax.numpy as jnp
from jax.sharding import AxisType, NamedSharding, PartitionSpec
import numpy as np
import pytest

from augjax import check
from augjax.models import BatchNorm
from augjax.models.norm import column_groups, Mode
from augjax.types import View

ONE = (View("a"),)
TWO = (View("a"), View("b"))
DOMAINS = (View("a", 1, 0), View("b", 2, 1))


def images(rows, seed=0, channels=5):
    """Rows whose mean and spread grow with their position, so that no two groups agree."""
    x = np.random.default_rng(seed).normal(size=(rows, 4, 3, channels))
    return jnp.asarray(x * (1 + np.arange(rows)[:, None, None, None]) / 4 + 3, jnp.float32)


def variables(domains=1, channels=5):
    """Parameters and statistics that differ between domains and channels."""
    grid = np.linspace(0.5, 1.5, domains * channels).reshape(domains, channels)
    grid = jnp.asarray(grid, jnp.float32)
    return {
        "params": {"scale": grid, "bias": grid - 1},
        "batch_stats": {"mean": 2 * grid, "var": grid},
    }


def train(module, held, x, views):
    y, changed = module.apply(held, x, Mode(views=views), mutable=["batch_stats"])
    return y, changed["batch_stats"]


def normalised(x, scale, bias):
    mean, var = x.mean((0, 1, 2)), x.var((0, 1, 2))
    return (x - mean) / np.sqrt(var + 1e-5) * scale + bias, mean, var


def close(a, b, tolerance=2e-5):
    np.testing.assert_allclose(a, b, rtol=tolerance, atol=tolerance)


def test_one_domain_and_one_view_is_flax_batch_norm():
    x, held = images(8), variables()
    flat = jax.tree.map(lambda leaf: leaf[0], held)
    theirs = nn.BatchNorm(momentum=0.9, epsilon=1e-5)
    y, stats = train(BatchNorm(), held, x, ONE)
    expected, changed = theirs.apply(flat, x, use_running_average=False, mutable=["batch_stats"])
    close(y, expected)
    jax.tree.map(lambda a, b: close(a[0], b), stats, changed["batch_stats"])
    close(BatchNorm().apply(held, x, Mode()), theirs.apply(flat, x, use_running_average=True))

    def gradients(module, held, *mode, **flags):
        def loss(held, x):
            return jnp.sin(module.apply(held, x, *mode, mutable=["batch_stats"], **flags)[0]).sum()

        return jax.grad(loss, argnums=(0, 1))(held, x)

    ours = gradients(BatchNorm(), held, Mode(views=ONE))
    plain = gradients(theirs, flat, use_running_average=False)
    jax.tree.map(lambda a, b: close(a[0], b, 2e-4), ours[0]["params"], plain[0]["params"])
    close(ours[1], plain[1], 2e-4)


def test_stacked_views_equal_separate_passes():
    x, held = images(12), variables()
    y, stats = train(BatchNorm(per_view=True), held, x, TWO)
    passes = [train(BatchNorm(), held, x[view::2], ONE) for view in (0, 1)]
    for view, (alone, _) in enumerate(passes):
        close(y[view::2], alone)
    for name in ("mean", "var"):  # towards the mean of both views
        close(stats[name], sum(own[name] for _, own in passes) / 2)


def test_without_per_view_all_views_share_statistics():
    x, held = images(12), variables()
    y, stats = train(BatchNorm(), held, x, TWO)
    alone, own = train(BatchNorm(), held, x, ONE)
    close(y, alone)
    jax.tree.map(close, stats, own)


@pytest.mark.parametrize("per_view", [False, True])
def test_groups_of_images_by_position(per_view):
    x, held = images(12), variables()  # 6 images of 2 views; 3 images share statistics
    y, stats = train(BatchNorm(images=3, per_view=per_view), held, x, TWO)
    halves = [train(BatchNorm(per_view=per_view), held, x[h : h + 6], TWO) for h in (0, 6)]
    close(y, np.concatenate([half for half, _ in halves]))
    for name in ("mean", "var"):
        close(stats[name], sum(own[name] for _, own in halves) / 2)
    whole = train(BatchNorm(images=6, per_view=per_view), held, x, TWO)
    close(whole[0], train(BatchNorm(per_view=per_view), held, x, TWO)[0])


@pytest.mark.parametrize("per_view", [False, True])
def test_domains_never_mix(per_view):
    x, held = images(12), variables(domains=3)  # 4 images: 1 row of domain 0, 2 of domain 1
    y, stats = train(BatchNorm(domains=3, per_view=per_view), held, x, DOMAINS)
    grouped = np.asarray(x).reshape(4, 3, *x.shape[1:])
    for domain, columns in ((0, [0]), (1, [1, 2])):
        rows = grouped[:, columns].reshape(-1, *x.shape[1:])
        expected, mean, var = normalised(
            rows, held["params"]["scale"][domain], held["params"]["bias"][domain]
        )
        got = np.asarray(y).reshape(grouped.shape)[:, columns].reshape(rows.shape)
        close(got, expected)
        for name, value in (("mean", mean), ("var", var)):
            close(stats[name][domain], 0.9 * held["batch_stats"][name][domain] + 0.1 * value)
    for name in ("mean", "var"):  # domain 2 has no view
        np.testing.assert_array_equal(stats[name][2], held["batch_stats"][name][2])


def test_two_views_of_one_domain_and_one_of_another():
    views = (View("a", 1, 1), View("b", 1, 0), View("c", 1, 1))
    assert column_groups(views, per_view=False) == (((0, 2), 1), ((1,), 0))
    assert column_groups(views, per_view=True) == (((0,), 1), ((1,), 0), ((2,), 1))
    x, held = images(12), variables(domains=2)
    y, _ = train(BatchNorm(domains=2), held, x, views)
    rows = np.asarray(x).reshape(4, 3, *x.shape[1:])[:, [0, 2]].reshape(-1, *x.shape[1:])
    expected, _, _ = normalised(rows, held["params"]["scale"][1], held["params"]["bias"][1])
    close(np.asarray(y).reshape(4, 3, *x.shape[1:])[:, [0, 2]].reshape(rows.shape), expected)


def test_prediction_uses_the_domain_also_when_traced():
    x, held = images(4), variables(domains=2)
    module = BatchNorm(domains=2)
    traced = jax.jit(lambda domain: module.apply(held, x, Mode(domain)))
    for domain in (0, 1):
        stats, params = ({k: v[domain] for k, v in part.items()} for part in
                         (held["batch_stats"], held["params"]))
        expected = (x - stats["mean"]) / jnp.sqrt(stats["var"] + 1e-5) * params["scale"]
        close(traced(domain), expected + params["bias"])
        close(module.apply(held, x, Mode(domain)), traced(domain))


def test_rows_without_height_and_width():
    x, held = images(12)[:, 0, 0], variables()
    y, stats = train(BatchNorm(per_view=True, images=3), held, x, TWO)
    tall, same = train(BatchNorm(per_view=True, images=3), held, x[:, None, None], TWO)
    close(y, tall[:, 0, 0])
    jax.tree.map(close, stats, same)


@pytest.mark.parametrize(
    "module, views",
    [
        (BatchNorm(), ONE),
        (BatchNorm(per_view=True), TWO),
        (BatchNorm(images=4), TWO),
        (BatchNorm(domains=2, images=2, per_view=True), (View("a", 1, 0), View("b", 1, 1))),
    ],
)
def test_the_same_numbers_on_any_number_of_devices(module, views):
    x, held = images(32), variables(module.domains)

    def step(held, x):
        y, stats = train(module, held, x, views)
        return y, stats, jax.grad(lambda x: jnp.sin(train(module, held, x, views)[0]).sum())(x)

    def on(devices):
        mesh = jax.make_mesh(
            (devices,), ("data",), axis_types=(AxisType.Auto,), devices=jax.devices()[:devices]
        )
        rows = NamedSharding(mesh, PartitionSpec("data"))
        placed = jax.device_put(held, NamedSharding(mesh, PartitionSpec())), jax.device_put(x, rows)
        compiled = jax.jit(step).lower(*placed).compile()
        assert "all-gather" not in compiled.as_text()  # rows stay where they are
        return compiled(*placed)

    alone = on(1)
    for devices in (2, 8):
        jax.tree.map(close, on(devices), alone)


def test_statistics_are_float32_in_bfloat16():
    x, held = images(8), variables()
    y, stats = train(BatchNorm(dtype=jnp.bfloat16), held, x.astype(jnp.bfloat16), ONE)
    assert y.dtype == jnp.bfloat16
    assert {leaf.dtype for leaf in jax.tree.leaves(stats)} == {jnp.dtype("float32")}
    _, exact = train(BatchNorm(), held, x.astype(jnp.bfloat16).astype(jnp.float32), ONE)
    jax.tree.map(close, stats, exact)


def test_what_does_not_fit_is_refused():
    x = images(12)
    with pytest.raises(check.ConfigError, match="divisor of the 6 groups.*got 4"):
        train(BatchNorm(images=4), variables(), x, TWO)
    with pytest.raises(check.ConfigError, match="a domain in 0..0, got 1"):
        train(BatchNorm(), variables(), x, DOMAINS)
    with pytest.raises(check.ConfigError, match="multiple of 2"):
        train(BatchNorm(), variables(), x[:11], TWO)
    with pytest.raises(check.ConfigError, match="a domain in 0..1, got 2"):
        BatchNorm(domains=2).apply(variables(2), x, Mode(2))
