"""Names: every leaf of every importable model has one, of its own, and the nearest is told."""

import jax
import pytest

from augjax import check, exchange, models, tree
from augjax.exchange import names, sources

LARGE = {"resnet110", "resnet200", *(f"tf_efficientnet_b{size}" for size in range(2, 9))}
MODELS = [(source, model) for source, rows in exchange.SOURCES.items() for model in rows
          if model not in LARGE]  # these have the names of their smaller siblings


@pytest.mark.parametrize("source, model", MODELS)
def test_every_leaf_has_a_name_of_its_own(source, model):
    row = exchange.find(source, model)
    size = max(32, models.MODELS[row.ours].smallest)
    net = models.build(row.ours, 10, (size, size, 3), *row.statistics, **row.options)
    params, stats = jax.eval_shape(net.init, jax.random.key(0))
    leaves = [*tree.flatten(params), *tree.flatten(stats)]
    convention = names.FLAX if source == "flax" else names.TORCH
    found = names.their_names(leaves, row.rules, convention)  # raises unless names are distinct
    assert len(found) == len(leaves)


@pytest.mark.parametrize("source, model, path, name", [
    ("timm", "resnet50", "stage2_block1/shortcut_norm/var", "layer2.0.downsample.1.running_var"),
    ("timm", "tf_efficientnet_b0", "stage3_block2/excite/bias", "blocks.2.1.se.conv_expand.bias"),
    ("timm", "tf_efficientnet_b1", "stage1_block2/project/kernel", "blocks.0.1.conv_pw.weight"),
    ("timm", "mobilenetv2_100", "stage2_block1/project/kernel", "blocks.1.0.conv_pwl.weight"),
    ("torchvision", "mobilenet_v2", "stage3_block1/depthwise_norm/scale",
     "features.4.conv.1.1.weight"),
    ("repdistiller", "vgg13", "stage0_block2/conv/bias", "block0.3.bias"),
    ("repdistiller", "wrn_16_2", "head_norm/mean", "bn1.running_mean"),
    ("repdistiller", "MobileNetV2", "stage1_block1/expand/kernel", "blocks.0.0.conv.0.weight"),
    ("repdistiller", "ShuffleV2", "stage2_block1/norm5/scale", "layer2.0.bn5.weight"),
])
def test_names_are_those_of_the_sources(source, model, path, name):
    assert names.their_name(path, exchange.find(source, model).rules, names.TORCH) == name


def test_flax_counts_blocks_through_all_stages():
    rules = exchange.find("flax", "resnet50").rules
    assert names.their_name("stage2_block1/norm3/mean", rules, names.FLAX) \
        == "batch_stats/BottleneckResNetBlock_3/BatchNorm_2/mean"
    assert names.their_name("stage4_block3/conv1/kernel", rules, names.FLAX) \
        == "params/BottleneckResNetBlock_15/Conv_0/kernel"


def test_a_map_with_holes_or_doubles_is_refused():
    with pytest.raises(check.ConfigError, match="name of stem/kernel"):
        names.their_name("stem/kernel", (("head", "fc"),), names.TORCH)
    with pytest.raises(check.ConfigError, match=r"\['a.weight'\] for several"):
        names.their_names(["x1/kernel", "x2/kernel"], (("x{i}", "a"),), names.TORCH)


@pytest.mark.parametrize("source, model, hint", [
    ("tim", "resnet18", "Did you mean 'timm'"),
    ("timm", "resnet51", "'resnet50'"),
    ("torchvision", "efficientnet_b0", "tf_efficientnet_b0 to b8 with --source=timm"),
    ("timm", "efficientnet_b0", "take its tf_efficientnet"),
    ("repdistiller", "ShuffleV1", "take ShuffleV2"),
    ("repdistiller", "vgg12", "'vgg13'"),
    ("torchvision", "resnet50.tv_in1k", "'resnet50'"),
    ("timm", "resnet50.", "'resnet50'"),
])
def test_unknown_models_are_answered_with_the_nearest(source, model, hint):
    with pytest.raises(check.ConfigError) as caught:
        exchange.find(source, model)
    assert hint in str(caught.value)


@pytest.mark.parametrize("model, statistics", [
    ("tf_efficientnet_b3", sources.IMAGENET),
    ("tf_efficientnet_b3.ns_jft_in1k", sources.IMAGENET),
    ("tf_efficientnet_b3.ap_in1k", sources.HALF),
])
def test_a_tag_chooses_the_statistics(model, statistics):
    assert exchange.find("timm", model).statistics == statistics
