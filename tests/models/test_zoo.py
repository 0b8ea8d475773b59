"""The zoo: published counts and taps, and the laws that every family inherits."""

import functools
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from augjax import check, tree
from augjax.models import build, FULL_PRECISION, MODELS
from augjax.types import View
from zoo_rows import drawn, net_of, PIXELS, rows_of, TOYS

TWO = (View("weak", 1, 0), View("strong", 1, 1))

# {model: {classes: trainable parameters}}, spec/models.md M1-M3
COUNTS = {
    # resnet8: RepDistiller's resnet20 less 2 blocks of every stage (97,216 for each)
    "resnet8": {10: 78_042, 100: 83_892, 200: 90_392},
    "resnet20": {10: 272_474, 100: 278_324, 200: 284_824},
    "resnet32": {10: 466_906, 100: 472_756, 200: 479_256},
    "resnet44": {10: 661_338, 100: 667_188, 200: 673_688},
    "resnet56": {10: 855_770, 100: 861_620, 200: 868_120},
    "resnet110": {10: 1_730_714, 100: 1_736_564, 200: 1_743_064},
    "resnet8x4": {10: 1_210_410, 100: 1_233_540, 200: 1_259_240},
    "resnet32x4": {10: 7_410_730, 100: 7_433_860, 200: 7_459_560},
    "resnet50_cifar": {10: 23_520_842, 100: 23_705_252, 200: 23_910_152},
    "resnet18_cifar": {10: 11_173_962, 100: 11_220_132},
    "resnet18_role_kd": {10: 11_173_962, 100: 11_220_132},
    # wrn_*_1, vgg11, 16 and 19: RepDistiller's code instantiated (b84f547)
    "wrn_16_1": {10: 175_066},
    "wrn_40_1": {10: 563_930},
    "wrn_16_2": {10: 691_674, 100: 703_284, 200: 716_184},
    "wrn_16_4": {10: 2_748_890, 100: 2_772_020},
    "wrn_40_2": {10: 2_243_546, 100: 2_255_156, 200: 2_268_056},
    "wrn_28_10": {10: 36_479_194, 100: 36_536_884},
    "wrn_28_10_tf": {10: 36_220_634},
    "vgg8": {10: 3_918_858, 100: 3_965_028, 200: 4_016_328},
    "vgg11": {10: 9_231_114},
    "vgg13": {10: 9_416_010, 100: 9_462_180, 200: 9_513_480},
    "vgg16": {10: 14_728_266},
    "vgg19": {10: 20_040_522},
    "mobilenetv2_cifar": {10: 697_546, 100: 812_836, 200: 940_936},
    "shufflenetv2_cifar": {10: 1_263_278, 100: 1_355_528, 200: 1_458_028},
    "preresnet32": {10: 466_714, 100: 472_564},
    "preresnet44": {10: 661_146, 100: 666_996},
    "preresnet56": {10: 855_578, 100: 861_428},
    "preresnet164": {10: 1_703_258, 100: 1_726_388},
    "alexnet_cifar": {10: 36_082_624, 100: 36_451_264},
    "pyramidnet_200_240": {10: 26_752_702, 100: 26_844_952},
    "pyramidnet_272_200": {10: 26_210_842, 100: 26_288_692},
    "shake_shake_26_2x32d": {10: 2_923_162, 100: 2_934_772},
    "shake_shake_26_2x96d": {10: 26_192_922, 100: 26_227_572},
    "shake_shake_26_2x112d": {10: 35_640_442, 100: 35_680_852},
    "resnet18": {1000: 11_689_512},
    "resnet34": {1000: 21_797_672},
    "resnet50": {1000: 25_557_032},
    "resnet200": {1000: 64_673_832},
    "mobilenetv2": {1000: 3_504_872},
    "efficientnet_b0": {1000: 5_288_548},
    "efficientnet_b1": {1000: 7_794_184},
    "efficientnet_b2": {1000: 9_109_994},
    "efficientnet_b3": {1000: 12_233_232},
    "efficientnet_b4": {1000: 19_341_616},
    "efficientnet_b5": {1000: 30_389_784},
    "efficientnet_b6": {1000: 43_040_704},
    "efficientnet_b7": {1000: 66_347_960},
    "efficientnet_b8": {1000: 87_413_142},
}
EXTRA = {  # spec C5, 100 classes: {model: (extra_blocks, parameters of each)}
    "resnet20": (10, 73_984),
    "mobilenetv2_cifar": (7, 320_000),  # 2 * 160 * 960 + 9 * 960, and norms of 960, 960 and 160
    "shufflenetv2_cifar": (7, 111_128),  # 2 * 232 * 232 + 9 * 232, and three norms of 232
}

# {model: (pixels, ((stride, channels) of every tap from f0 on), length of `pooled`)}
TAPS = {
    "resnet20": (32, ((1, 16), (1, 16), (2, 32), (4, 64)), 64),
    "resnet8x4": (32, ((1, 32), (1, 64), (2, 128), (4, 256)), 256),
    "resnet50_cifar": (32, ((1, 64), (1, 256), (2, 512), (4, 1024), (8, 2048)), 2048),
    "resnet18_cifar": (32, ((1, 64), (1, 64), (2, 128), (4, 256), (8, 512)), 512),
    "resnet18_role_kd": (32, ((1, 64), (1, 64), (2, 128), (4, 256), (8, 512)), 512),
    "wrn_16_2": (32, ((1, 16), (1, 32), (2, 64), (4, 128)), 128),
    "wrn_28_10": (32, ((1, 16), (1, 160), (2, 320), (4, 640)), 640),
    "wrn_28_10_tf": (32, ((1, 16), (1, 160), (2, 320), (4, 640)), 640),
    "vgg8": (32, ((1, 64), (2, 128), (4, 256), (8, 512), (8, 512)), 512),
    "vgg13": (32, ((1, 64), (2, 128), (4, 256), (8, 512), (8, 512)), 512),
    "mobilenetv2_cifar": (32, ((2, 16), (2, 12), (4, 16), (8, 48), (16, 160)), 1280),
    "shufflenetv2_cifar": (32, ((1, 24), (2, 116), (4, 232), (8, 464)), 1024),
    "preresnet56": (32, ((1, 16), (1, 16), (2, 32), (4, 64)), 64),
    "preresnet164": (32, ((1, 16), (1, 64), (2, 128), (4, 256)), 256),
    "alexnet_cifar": (32, ((2, 64), (4, 192), (4, 384), (4, 256), (8, 256)), 4096),
    "pyramidnet_200_240": (32, ((1, 16), (1, 384), (2, 704), (4, 1024)), 1024),
    "pyramidnet_272_200": (32, ((1, 16), (1, 332), (2, 596), (4, 864)), 864),
    "shake_shake_26_2x32d": (32, ((1, 16), (1, 32), (2, 64), (4, 128)), 128),
    "resnet34": (224, ((2, 64), (4, 64), (8, 128), (16, 256), (32, 512)), 512),
    "resnet50": (224, ((2, 64), (4, 256), (8, 512), (16, 1024), (32, 2048)), 2048),
    "mobilenetv2": (224, ((2, 16), (4, 24), (8, 32), (16, 96), (32, 320)), 1280),
    "efficientnet_b0": (224, ((2, 16), (4, 24), (8, 40), (16, 112), (32, 320)), 1280),
    "efficientnet_b4": (224, ((2, 24), (4, 32), (8, 56), (16, 160), (32, 448)), 1792),
}
AT_64 = (  # one of every family: to trace them all takes minutes
    "resnet20", "resnet50_cifar", "wrn_16_2", "vgg8", "mobilenetv2_cifar", "shufflenetv2_cifar",
    "preresnet56", "alexnet_cifar", "resnet34", "mobilenetv2", "efficientnet_b0")
LAST_AT_64 = {"vgg8": 16, "vgg13": 16}  # stride of the last tap: a fourth pooling (spec M1)
NAMED_BY_LINEN = re.compile(r"[A-Z]\w*_\d+")


def shapes(net):
    return jax.eval_shape(net.init, jax.random.key(0))


@functools.cache
def published(name):
    """(parameters, statistics) at its own resolution; to trace the deepest takes seconds."""
    classes = next(iter(COUNTS.get(name, {10: 0})))
    return shapes(net_of(name, classes, MODELS[name].resolution))


@pytest.mark.parametrize("name", COUNTS)
def test_counts_are_the_published_ones(name):
    size = MODELS[name].resolution
    first, *more = COUNTS[name].items()
    params, _ = published(name)
    assert tree.count(params) == first[1]
    width = params["head"]["kernel"].shape[0]
    per_class = width + ("bias" in params["head"])
    for classes, count in more:  # the head alone knows the classes
        assert first[1] + (classes - first[0]) * per_class == count
    if name in EXTRA:
        blocks, each = EXTRA[name]
        longer, _ = shapes(net_of(name, first[0], size, extra_blocks=blocks))
        assert tree.count(longer) == first[1] + blocks * each


@pytest.mark.parametrize("name", TAPS)
def test_taps_have_the_published_shapes(name):
    native, taps, pooled = TAPS[name]
    for size in (native, 64) if name in AT_64 else (native,):
        strides = [stride for stride, _ in taps]
        if size == 64:
            strides[-1] = LAST_AT_64.get(name, strides[-1])
        classes = next(iter(COUNTS[name]))
        net = net_of(name, classes, size)
        variables = published(name) if name != "alexnet_cifar" else shapes(net)
        outputs = jax.eval_shape(net.predict, variables, rows_of(2, size))
        assert {tap: value.shape for tap, value in outputs.features.items()} == {
            f"f{i}": (2, size // stride, size // stride, channels)
            for i, (stride, (_, channels)) in enumerate(zip(strides, taps))
        }
        assert outputs.pooled.shape == (2, pooled)
        assert outputs.logits.shape == (2, classes)


@pytest.mark.parametrize("name", MODELS)
def test_every_network_is_built_alike(name):
    """Explicit paths, a stem and a head, all float32."""
    params, stats = published(name)
    paths = list(tree.flatten(params))
    assert not [path for path in paths if NAMED_BY_LINEN.search(path)]
    assert [path for path in paths if path.startswith("stem/")]
    assert [path for path in paths if path.startswith("head/")]
    assert tree.matches("stem/kernel", FULL_PRECISION)
    for leaf in jax.tree.leaves((params, stats)):
        assert leaf.dtype == jnp.float32


@pytest.mark.parametrize("name", TOYS)
def test_bfloat16_and_remat_leave_the_trees_alone(name):
    size, options = TOYS[name]
    variables = shapes(net_of(name, 2, size, **options))
    other = net_of(name, 2, size, dtype=jnp.bfloat16, remat=True, **options)
    assert jax.tree.structure(shapes(other)) == jax.tree.structure(variables)
    outputs, moved = jax.eval_shape(other.train, variables, rows_of(2, size), jax.random.key(0))
    assert outputs.logits.dtype == outputs.pooled.dtype == jnp.float32
    assert {tap.dtype for tap in outputs.features.values()} == {jnp.dtype(jnp.bfloat16)}
    assert {leaf.dtype for leaf in jax.tree.leaves(moved)} == {jnp.dtype(jnp.float32)}


@pytest.mark.parametrize("name", TOYS)
def test_domains_and_the_activation_hook_reach_every_family(name):
    size, options = TOYS[name]
    read = []

    def spy(x):
        read.append(x.shape)
        return x

    net = net_of(name, 5, size, domains=2, bn_per_view=True, activation=spy, **options)
    params, stats = shapes(net)
    assert {leaf.shape[0] for leaf in jax.tree.leaves(stats)} == {2}
    rows = rows_of(4, size, TWO)
    read.clear()
    jax.eval_shape(net.train, (params, stats), rows, jax.random.key(0))
    kernels = [path for path in tree.flatten(params) if path.endswith("kernel")
               and not tree.matches(path, FULL_PRECISION)]
    assert 0 < len(read) <= len(kernels)
    assert rows.image.shape not in read  # the stem reads the image itself


@pytest.mark.parametrize("name", TOYS)
def test_toys_learn_and_repeat(name):
    size, options = TOYS[name]
    net, rows = net_of(name, 5, size, **options), rows_of(10, size)
    params, stats = drawn(net)

    @jax.jit
    def step(params, stats, key):
        def loss(params):
            outputs, moved = net.train((params, stats), rows, key)
            own = jnp.take_along_axis(outputs.logits, rows.label[:, None], 1)[:, 0]
            return (jax.nn.logsumexp(outputs.logits, 1) - own).mean(), (moved, outputs.logits)

        (value, (moved, logits)), gradient = jax.value_and_grad(loss, has_aux=True)(params)
        new = jax.tree.map(lambda w, g: w - 0.02 * g, params, gradient)
        return value, new, moved, logits

    first, trained, moved, logits = step(params, stats, jax.random.key(1))
    again = step(params, stats, jax.random.key(1))
    jax.tree.map(np.testing.assert_array_equal, (trained, moved, logits), again[1:])
    other = step(params, stats, jax.random.key(2))[3]
    assert np.array_equal(logits, other) == (name not in DRAWING)
    assert max(float(jnp.abs(a - b).max()) for a, b in
               zip(jax.tree.leaves(moved), jax.tree.leaves(stats))) > 0
    assert all(float(jnp.abs(a - b).max()) > 0 for a, b in
               zip(jax.tree.leaves(trained), jax.tree.leaves(params)))  # every leaf has a gradient
    for _ in range(4):
        last, trained, moved, _ = step(trained, moved, jax.random.key(1))
    assert float(last) < float(first)


DRAWING = {  # these draw in training: dropout, drop-connect, shakes
    "pyramidnet_272_200", "shake_shake_26_2x32d", "efficientnet_b0",
    "wrn_16_1", "mobilenetv2",
}


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
        ({"depth": 21}, r"6n \+ 2"),
        ({"extra_block": 3}, "Did you mean 'extra_blocks'"),
        ({"name": "resnet18", "padding": "valid"}, "one of 'same', 'torch'"),
        ({"name": "resnet18_cifar", "blocks": (2, 2)}, "one per stage"),
        ({"name": "preresnet164", "depth": 32}, r"9n \+ 2"),
        ({"name": "alexnet_cifar", "hidden": 0}, "five positive"),
        ({"name": "pyramidnet_200_240", "drop": 1.0}, r"drop in \[0, 1\)"),
        ({"name": "shake_shake_26_2x32d", "width": 33}, "an even number"),
        ({"name": "wrn_16_2", "depth": 18}, r"6n \+ 4"),
        ({"name": "wrn_16_2", "dropout": 1.0}, r"a share in \[0, 1\)"),
        ({"name": "wrn_28_10_tf", "widen": 0}, "at least 1"),
        ({"name": "vgg8", "depth": 9}, "one of .8, 11, 13, 16, 19"),
        ({"name": "vgg8", "widths": (8, 8)}, "five positive"),
        ({"name": "mobilenetv2_cifar", "stages": ((1, 16, 1, 1),)}, "seven of"),
        ({"name": "shufflenetv2_cifar", "widths": (7, 8, 8, 8)}, "even"),
        ({"name": "shufflenetv2_cifar", "blocks": (1, 1)}, "three counts"),
    ],
)
def test_wrong_arguments_are_refused(arguments, message):
    good = {"name": "resnet8", "classes": 10, "image_shape": (32, 32, 3), **PIXELS}
    with pytest.raises(check.ConfigError, match=message):
        build(**(good | arguments))


def test_averaged_shortcuts_need_whole_squares():
    with pytest.raises(check.ConfigError, match="multiples of 4"):
        shapes(net_of("wrn_28_10_tf", size=30))


def test_wrong_channels_are_refused():
    net = build("resnet8", 10, (8, 8, 1), (0.5,), (0.25,))
    with pytest.raises(check.ConfigError, match=r"\[R, H, W, 1\]"):
        jax.eval_shape(net.predict, shapes(net), rows_of(2))
