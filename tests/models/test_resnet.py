"""ResNets: paths, statistics, domains, initial spread; the zoo's laws are in test_zoo."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from augjax import tree
from augjax.types import Rows, View
from zoo_rows import net_of, PIXELS, rows_of

TWO = (View("weak", 1, 0), View("strong", 1, 1))


def tiny(**options):
    return net_of("resnet8", widths=(4, 4, 6, 8), **options)


def close(a, b, tolerance=1e-4):
    np.testing.assert_allclose(a, b, rtol=tolerance, atol=tolerance)


def test_paths_are_explicit_and_taps_are_after_the_relu():
    net = tiny()
    params, stats = net.init(jax.random.key(0))
    assert sorted(params) == [
        "head", "stage1_block1", "stage2_block1", "stage3_block1", "stem", "stem_norm"
    ]
    assert sorted(params["stage2_block1"]) == [
        "conv1", "conv2", "norm1", "norm2", "shortcut", "shortcut_norm"
    ]
    assert sorted(params["stage1_block1"]) == ["conv1", "conv2", "norm1", "norm2"]
    assert {leaf.shape[0] for leaf in jax.tree.leaves(stats)} == {1}
    outputs = net.predict((params, stats), rows_of(4))
    assert all(float(tap.min()) >= 0 for tap in outputs.features.values())
    assert all(float(tap.max()) > 0 for tap in outputs.features.values())
    close(outputs.pooled, outputs.features["f3"].mean((1, 2)))


def test_training_uses_batch_statistics_and_moves_the_running_ones():
    net, rows = tiny(), rows_of(8)
    params, stats = net.init(jax.random.key(0))
    train, predict = jax.jit(net.train), jax.jit(net.predict)
    outputs, moved = train((params, stats), rows, jax.random.key(1))
    before = predict((params, stats), rows)
    assert float(jnp.abs(outputs.logits - before.logits).max()) > 1e-2
    assert jax.tree.structure(moved) == jax.tree.structure(stats)
    for _ in range(150):  # 0.9^150: the running statistics have arrived
        _, stats = train((params, stats), rows, jax.random.key(1))
    close(predict((params, stats), rows).logits, outputs.logits, 1e-3)


def test_domains_are_separate_networks_that_share_their_kernels():
    net = tiny(domains=2)
    params, stats = net.init(jax.random.key(0))
    rows = rows_of(8, views=TWO)
    outputs, moved = jax.jit(net.train)((params, stats), rows, jax.random.key(1))
    alone = tiny()
    for domain in (0, 1):
        own = jax.tree.map(lambda leaf: leaf[domain : domain + 1], stats)
        held = tree.map_with_path(
            lambda path, leaf: leaf[domain : domain + 1] if "norm" in path else leaf, params
        )
        half = jax.tree.map(lambda leaf: leaf[domain::2], rows)
        half = Rows(half.image, half.label, half.mix_label, half.lam, half.index, (View("x"),))
        expected, own = jax.jit(alone.train)((held, own), half, jax.random.key(1))
        close(outputs.logits[domain::2], expected.logits)
        jax.tree.map(lambda a, b: close(a[domain : domain + 1], b), moved, own)
        close(
            net.predict((params, moved), half, domain).logits,
            alone.predict((held, own), half).logits,
        )


def test_the_same_key_gives_the_same_network_and_the_same_numbers():
    net, rows = tiny(), rows_of(4)
    variables = [net.init(jax.random.key(seed)) for seed in (0, 0, 1)]
    jax.tree.map(np.testing.assert_array_equal, variables[0], variables[1])
    train = jax.jit(net.train)
    runs = [train(v, rows, jax.random.key(0)) for v in variables]
    jax.tree.map(np.testing.assert_array_equal, runs[0], runs[1])
    assert float(jnp.abs(runs[0][0].logits - runs[2][0].logits).max()) > 1e-3


def test_initial_spread_is_kaiming_fan_out_and_torch_uniform():
    net = net_of("resnet8", 10, widths=(32, 32, 64, 128))
    params, _ = net.init(jax.random.key(0))
    kernel = params["stage3_block1"]["conv2"]["kernel"]
    assert float(kernel.std()) == pytest.approx(np.sqrt(2 / (9 * 128)), rel=0.02)
    bound = 1 / np.sqrt(128)
    for leaf in (params["head"]["kernel"], params["head"]["bias"]):
        assert 0.6 * bound < float(jnp.abs(leaf).max()) <= bound


def test_bfloat16_keeps_the_tree():
    exact, half = tiny(), tiny(dtype=jnp.bfloat16)
    variables = half.init(jax.random.key(0))
    jax.tree.map(np.testing.assert_array_equal, variables, exact.init(jax.random.key(0)))
    rows = rows_of(8)
    outputs, stats = jax.jit(half.train)(variables, rows, jax.random.key(1))
    assert {leaf.dtype for leaf in jax.tree.leaves(stats)} == {jnp.dtype("float32")}
    assert outputs.logits.dtype == outputs.pooled.dtype == jnp.float32
    assert outputs.features["f3"].dtype == jnp.bfloat16
    expected, _ = jax.jit(exact.train)(variables, rows, jax.random.key(1))
    close(outputs.logits, expected.logits, 0.15)


def test_pixels_may_be_bytes_or_floats():
    net = tiny()
    variables = net.init(jax.random.key(0))
    rows = rows_of(4)
    floats = Rows(rows.image.astype(jnp.float32), *[getattr(rows, name) for name in
                  ("label", "mix_label", "lam", "index", "views")])
    np.testing.assert_array_equal(
        net.predict(variables, rows).logits, net.predict(variables, floats).logits
    )


def test_the_net_owns_its_normalisation_and_its_size():
    rows = rows_of(4)
    x = np.asarray(rows.image, np.float32)
    mean, std = (np.asarray(PIXELS[k], np.float32) for k in ("mean", "std"))
    plain = tiny(mean=(0.0,) * 3, std=(1.0,) * 3)
    variables = plain.init(jax.random.key(0))
    by_hand = Rows((x / 255 - mean) / std * 255, rows.label, rows.mix_label, rows.lam, rows.index,
                   rows.views)
    close(tiny().predict(variables, rows).logits, plain.predict(variables, by_hand).logits)
    assert tiny().predict(variables, rows_of(4, size=16)).features["f0"].shape[1:3] == (8, 8)
