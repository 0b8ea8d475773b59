"""EfficientNet: its table, TensorFlow's padding, drop-connect; the zoo's laws are in test_zoo."""

from math import sqrt

import jax
from jax import lax
import jax.numpy as jnp
import numpy as np
import pytest

from augjax import check, models, tree
from augjax.models import efficientnet
from augjax.models.norm import Mode
from augjax.types import View
from zoo_rows import net_of, rows_of

BUILD = models.Build(classes=5)
TRAINING = Mode(views=(View("all"),))

# spec M3: {model: (stem, (channels x repeats of every stage), head, blocks)}
TABLE = {
    "b0": (32, "16x1 24x2 40x2 80x3 112x3 192x4 320x1", 1280, 16),
    "b1": (32, "16x2 24x3 40x3 80x4 112x4 192x5 320x2", 1280, 23),
    "b2": (32, "16x2 24x3 48x3 88x4 120x4 208x5 352x2", 1408, 23),
    "b3": (40, "24x2 32x3 48x3 96x5 136x5 232x6 384x2", 1536, 26),
    "b4": (48, "24x2 32x4 56x4 112x6 160x6 272x8 448x2", 1792, 32),
    "b5": (48, "24x3 40x5 64x5 128x7 176x7 304x9 512x3", 2048, 39),
    "b6": (56, "32x3 40x6 72x6 144x8 200x8 344x11 576x3", 2304, 45),
    "b7": (64, "32x4 48x7 80x7 160x10 224x10 384x13 640x4", 2560, 55),
    "b8": (72, "32x4 56x8 88x8 176x11 248x11 424x15 704x4", 2816, 61),
}


@pytest.mark.parametrize("name", TABLE)
def test_widths_and_repeats_are_the_published_ones(name):
    net = models.MODELS[f"efficientnet_{name}"].make(BUILD)
    stages = " ".join(f"{width}x{blocks}" for *_, width, blocks in net.stages)
    blocks = sum(stage[-1] for stage in net.stages)
    assert (net.stem_width, stages, net.final_width, blocks) == TABLE[name]
    assert [stage[:3] for stage in net.stages] == [
        (3, 1, 1), (3, 2, 6), (5, 2, 6), (3, 2, 6), (5, 1, 6), (5, 2, 6), (3, 1, 6)
    ]


def test_paths_and_the_squeeze_of_the_blocks_input():
    params, _ = jax.eval_shape(net_of("efficientnet_b0", 5, 32).init, jax.random.key(0))
    assert sorted(params["stage2_block1"]) == [
        "depthwise", "depthwise_norm", "excite", "expand", "expand_norm", "project",
        "project_norm", "squeeze",
    ]
    assert "expand" not in params["stage1_block1"]
    squeeze = {block: params[block]["squeeze"]["kernel"].shape for block in
               ("stage1_block1", "stage2_block1", "stage2_block2", "stage3_block1")}
    assert squeeze == {"stage1_block1": (1, 1, 32, 8), "stage2_block1": (1, 1, 96, 4),
                       "stage2_block2": (1, 1, 144, 6), "stage3_block1": (1, 1, 144, 6)}
    assert params["stage3_block1"]["depthwise"]["kernel"].shape == (5, 5, 1, 144)


@pytest.mark.parametrize("side, symmetric_differs", [(8, True), (7, False)])
def test_padding_at_stride_2_is_tensorflows(side, symmetric_differs):
    x = jax.random.normal(jax.random.key(0), (2, side, side, 4))
    for layer in (efficientnet._conv(BUILD, 4, 3, "conv", stride=2),
                  BUILD.depthwise(4, 3, "conv", 2, "SAME")):
        variables = layer.init(jax.random.key(1), x)
        kernel = variables["params"]["kernel"]

        def by(padding):
            return lax.conv_general_dilated(
                x, kernel, (2, 2), padding, dimension_numbers=("NHWC", "HWIO", "NHWC"),
                feature_group_count=4 // kernel.shape[2])

        own = layer.apply(variables, x)
        np.testing.assert_allclose(own, by("SAME"), atol=1e-5)
        assert own.shape == by([(1, 1)] * 2).shape
        assert (float(jnp.abs(own - by([(1, 1)] * 2)).max()) > 0.1) == symmetric_differs


def test_drop_connect_keeps_a_row_or_loses_it_and_its_mean():
    x = 1 + jax.random.uniform(jax.random.key(0), (3, 2, 2, 4))
    keys = jax.random.split(jax.random.key(1), 4000)
    drawn = jax.vmap(lambda key: efficientnet.drop_connected(key, x, 0.8))(keys)
    kept = drawn != 0
    np.testing.assert_array_equal(kept, jnp.broadcast_to(kept[:, :, :1, :1, :1], kept.shape))
    np.testing.assert_allclose(drawn, jnp.where(kept, x / 0.8, 0), rtol=1e-6)
    np.testing.assert_allclose(drawn.mean(0), x, rtol=0.04)  # 5 deviations of sqrt(.25 / 4000)
    together = kept[:, 0, 0, 0, 0] & kept[:, 1, 0, 0, 0]
    assert float(together.mean()) == pytest.approx(0.64, abs=0.04)  # rows draw for themselves


def trained(block, variables, x, *seeds):
    """What the block says in training, for every seed."""
    run = jax.jit(lambda variables, key: block.apply(
        variables, x, TRAINING, rngs={"dropout": key}, mutable=["batch_stats"])[0])
    return [run(variables, jax.random.key(seed)) for seed in seeds]


@pytest.mark.parametrize("width, stride, survival, drops", [
    (8, 1, 0.5, True), (8, 1, 1.0, False), (8, 2, 0.5, False), (16, 1, 0.5, False)])
def test_only_blocks_with_a_shortcut_are_dropped(width, stride, survival, drops):
    x = jax.random.normal(jax.random.key(0), (16, 4, 4, 8))
    block = efficientnet.MBConv(width, 3, stride, 6, survival, BUILD)
    variables = jax.jit(lambda key: block.init(key, x, Mode()))(jax.random.key(1))
    first, second = trained(block, variables, x, 0, 1)
    lost = (first == x).all((1, 2, 3)) if first.shape == x.shape else np.zeros(16, bool)
    assert bool(lost.any()) == drops
    assert np.array_equal(first, second) != drops
    whole, = trained(efficientnet.MBConv(width, 3, stride, 6, 1.0, BUILD), variables, x, 0)
    if drops:  # what is kept is the branch over its probability
        kept = ~np.asarray(lost)
        np.testing.assert_allclose((first - x)[kept], 2 * (whole - x)[kept], atol=1e-4)
    else:
        np.testing.assert_array_equal(first, whole)


def test_block_i_of_L_survives_with_one_minus_a_fifth_of_i_over_L(monkeypatch):
    asked = []
    monkeypatch.setattr(efficientnet, "drop_connected", lambda key, x, p: asked.append(p) or x)
    net = net_of("efficientnet_b0", 5, 32, width=0.25)
    variables = jax.eval_shape(net.init, jax.random.key(0))
    asked.clear()
    jax.eval_shape(net.train, variables, rows_of(2, 32), jax.random.key(0))
    # of B0's 16 blocks, those that repeat a shape; a quarter of the width lets block 0 repeat too
    assert asked == pytest.approx([1 - 0.2 * i / 16 for i in (2, 4, 6, 7, 9, 10, 12, 13, 14)])


def test_initial_spread_is_tensorflows():
    block = efficientnet.MBConv(192, 5, 1, 6, 1.0, BUILD)
    start = jax.jit(lambda key: block.init(key, jnp.zeros((1, 2, 2, 192)), Mode())["params"])
    params = start(jax.random.key(0))
    for name, deviation in (("expand", sqrt(2 / 1152)), ("depthwise", sqrt(2) / 5),
                            ("project", sqrt(2 / 192)), ("excite", sqrt(2 / 1152))):
        assert float(params[name]["kernel"].std()) == pytest.approx(deviation, rel=0.03)
    assert not params["squeeze"]["bias"].any()


def test_the_head_starts_as_tensorflows_and_alone_sees_the_dropout():
    x = jax.random.normal(jax.random.key(0), (4, 8, 8, 3))
    net = efficientnet.EfficientNet(8, ((3, 2, 1, 8, 1),), 64, 0.5, 0.0, models.Build(classes=40))
    variables = jax.jit(lambda key: net.init(key, x, Mode()))(jax.random.key(0))
    head = variables["params"]["head"]
    assert 0.99 / sqrt(40) < float(jnp.abs(head["kernel"]).max()) <= 1 / sqrt(40)
    assert not head["bias"].any()
    outputs = trained(net, variables, x, 0, 1)
    np.testing.assert_array_equal(outputs[0].pooled, outputs[1].pooled)
    assert not np.array_equal(outputs[0].logits, outputs[1].logits)


@pytest.mark.parametrize("options, message", [
    ({"width": 0}, "above 0, got 0"), ({"dropout": 1.0}, r"\[0, 1\)"),
    ({"drop_connect": -0.1}, r"\[0, 1\)"), ({"depths": 2}, "Did you mean 'depth'")])
def test_wrong_options_are_refused(options, message):
    with pytest.raises(check.ConfigError, match=message):
        net_of("efficientnet_b0", 5, 32, **options)


def test_options_scale_the_network():
    counts = {options: tree.count(jax.eval_shape(
        net_of("efficientnet_b0", 5, 32, width=options[0], depth=options[1]).init,
        jax.random.key(0))[0]) for options in ((0.25, 0.25), (0.5, 0.25), (0.5, 1.0))}
    assert list(counts.values()) == sorted(counts.values())
