"""ResNets: the published counts and taps, and the laws of a Net."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from augjax import check, tree
from augjax.models import MODELS, build, resnet
from augjax.types import Rows, View

PIXELS = {"mean": (0.5, 0.4, 0.3), "std": (0.25, 0.2, 0.3)}
TWO = (View("weak", 1, 0), View("strong", 1, 1))

# spec/models.md M1 (RepDistiller, instantiated); resnet8 from RepDistiller's own models/resnet.py:
# resnet20's count less 2 blocks of every stage (97,216 for each).
COUNTS = {
    "resnet8": (78_042, 83_892, 90_392),
    "resnet20": (272_474, 278_324, 284_824),
    "resnet32": (466_906, 472_756, 479_256),
    "resnet44": (661_338, 667_188, 673_688),
    "resnet56": (855_770, 861_620, 868_120),
    "resnet110": (1_730_714, 1_736_564, 1_743_064),
    "resnet8x4": (1_210_410, 1_233_540, 1_259_240),
    "resnet32x4": (7_410_730, 7_433_860, 7_459_560),
}


def tiny(**options):
    return resnet(8, 5, (8, 8, 3), widths=(4, 4, 6, 8), **(PIXELS | options))


def rows_of(count, size=8, views=(View("all"),), seed=0):
    image = np.random.default_rng(seed).integers(0, 256, (count, size, size, 3), np.uint8)
    label = np.arange(count, dtype=np.int32) % 5
    return Rows(
        jnp.asarray(image), jnp.asarray(label), jnp.asarray(label),
        jnp.ones(count), jnp.arange(count), views,
    )


def close(a, b, tolerance=1e-4):
    np.testing.assert_allclose(a, b, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("name", COUNTS)
def test_counts_are_the_published_ones(name):
    def count(classes):
        net = build(name, classes, (32, 32, 3), **PIXELS)
        return tree.count(jax.eval_shape(net.init, jax.random.key(0))[0])

    assert count(10) == COUNTS[name][0]
    if name in ("resnet8", "resnet20", "resnet8x4"):
        assert (count(100), count(200)) == COUNTS[name][1:]
    else:  # the head alone knows the classes: (D + 1) numbers for each
        per_class = (256 if name.endswith("x4") else 64) + 1
        assert [COUNTS[name][0] + more * per_class for more in (90, 190)] == list(COUNTS[name][1:])


@pytest.mark.parametrize("size", [32, 64])
@pytest.mark.parametrize(
    "name, widths", [("resnet20", (16, 16, 32, 64)), ("resnet8x4", (32, 64, 128, 256))]
)
def test_taps_have_the_published_shapes(name, widths, size):
    net = build(name, 10, (size, size, 3), **PIXELS)
    rows = rows_of(2, size)
    variables = jax.eval_shape(net.init, jax.random.key(0))
    outputs = jax.eval_shape(net.predict, variables, rows)
    sizes = (size, size, size // 2, size // 4)
    assert {tap: value.shape for tap, value in outputs.features.items()} == {
        f"f{i}": (2, s, s, width) for i, (s, width) in enumerate(zip(sizes, widths))
    }
    assert outputs.pooled.shape == (2, widths[-1])
    assert outputs.logits.shape == (2, 10)


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
    net = resnet(8, 10, (8, 8, 3), widths=(32, 32, 64, 128), **PIXELS)
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


def test_every_name_builds():
    for name in MODELS:
        build(name, 2, (8, 8, 1), mean=(0.5,), std=(0.25,))


@pytest.mark.parametrize(
    "arguments, message",
    [
        ({"name": "resnet21"}, "got 'resnet21'. Did you mean .*'resnet20'"),
        ({"classes": 1}, "at least 2, got 1"),
        ({"image_shape": (4, 32, 3)}, r"at least 8, got \(4, 32, 3\)"),
        ({"mean": (0.5,)}, "3 numbers"),
        ({"std": (60.0, 60.0, 60.0)}, "Divide them by 255"),
        ({"std": (0.0, 0.2, 0.2)}, "std > 0"),
        ({"domains": 0}, "at least 1"),
        ({"widths": (16, 32)}, "four positive"),
    ],
)
def test_wrong_arguments_are_refused(arguments, message):
    good = {"name": "resnet8", "classes": 10, "image_shape": (32, 32, 3), **PIXELS}
    with pytest.raises(check.ConfigError, match=message):
        build(**(good | arguments))


def test_wrong_depths_and_channels_are_refused():
    with pytest.raises(check.ConfigError, match="6n \\+ 2"):
        resnet(21, 10, (32, 32, 3), **PIXELS)
    net = resnet(8, 10, (8, 8, 1), (0.5,), (0.25,))
    with pytest.raises(check.ConfigError, match=r"\[R, H, W, 1\]"):
        jax.eval_shape(net.predict, jax.eval_shape(net.init, jax.random.key(0)), rows_of(2))
