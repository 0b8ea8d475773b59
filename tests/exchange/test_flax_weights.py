"""Flax's ImageNet ResNet-50, from msgpack and from Orbax: its own layers' logits and taps."""

from typing import Any

import flax
from flax import linen as nn
from flax.training import checkpoints, train_state
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from augjax import builders, defaults, exchange, tree
from models.zoo_rows import rows_of

SIZE, CLASSES = 64, 1000
MEAN, STD = (np.array(part) for part in ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)))


class Block(nn.Module):
    """A bottleneck in Flax's names; it normalises by the batch and keeps what it saw."""

    width: int
    stride: int

    @nn.compact
    def __call__(self, x):
        def layer(x, name, norm, width, kernel, stride=1):
            x = nn.Conv(width, (kernel, kernel), stride, use_bias=False, name=name)(x)
            return nn.BatchNorm(False, momentum=0.0, name=norm)(x)

        y = nn.relu(layer(x, "Conv_0", "BatchNorm_0", self.width, 1))
        y = nn.relu(layer(y, "Conv_1", "BatchNorm_1", self.width, 3, self.stride))
        y = layer(y, "Conv_2", "BatchNorm_2", 4 * self.width, 1)
        if x.shape != y.shape:
            x = layer(x, "conv_proj", "norm_proj", 4 * self.width, 1, self.stride)
        return nn.relu(x + y)


class FlaxResNet50(nn.Module):
    """The layers of google/flax examples/imagenet/models.py, in short; ends with (taps, logits)."""

    @nn.compact
    def __call__(self, x):
        x = nn.Conv(64, (7, 7), 2, padding=3, use_bias=False, name="conv_init")(x)
        x = nn.relu(nn.BatchNorm(False, momentum=0.0, name="bn_init")(x))
        features, number = {"f0": x}, 0
        x = nn.max_pool(x, (3, 3), (2, 2), "SAME")
        for stage, blocks in enumerate((3, 4, 6, 3), start=1):
            for block in range(blocks):
                stride = 2 if stage > 1 and block == 0 else 1
                x = Block(32 * 2**stage, stride, name=f"BottleneckResNetBlock_{number}")(x)
                number += 1
            features[f"f{stage}"] = x
        return features, nn.Dense(CLASSES, name="Dense_0")(x.mean((1, 2)))


class State(train_state.TrainState):
    """What the example saves."""

    batch_stats: Any
    dynamic_scale: Any = None


@pytest.fixture(scope="module")
def theirs():
    """(rows, params, stats, taps, logits); the statistics are those of these very rows."""
    rows = rows_of(4, SIZE)
    x = jnp.asarray((np.asarray(rows.image) / 255 - MEAN) / STD, jnp.float32)
    module = FlaxResNet50()
    shapes = jax.eval_shape(module.init, jax.random.key(0), x)
    draw = np.random.Generator(np.random.Philox(5))

    def value(path, leaf):
        if path.endswith("kernel"):
            return draw.normal(0, np.prod(leaf.shape[:-1]) ** -0.5, leaf.shape).astype(np.float32)
        return draw.uniform(0.5, 1.5, leaf.shape).astype(np.float32)

    variables = tree.map_with_path(value, shapes)
    (taps, logits), seen = jax.jit(lambda v: module.apply(v, x, mutable=["batch_stats"]))(variables)
    return rows, variables["params"], seen["batch_stats"], taps, logits


def saved(folder, theirs, orbax):
    _, params, stats, _, _ = theirs
    state = State.create(apply_fn=None, params=params, tx=optax.sgd(0.1, 0.9, nesterov=True),
                         batch_stats=stats)
    before = flax.config.flax_use_orbax_checkpointing
    flax.config.update("flax_use_orbax_checkpointing", orbax)
    try:
        return checkpoints.save_checkpoint(folder, state, 7)
    finally:
        flax.config.update("flax_use_orbax_checkpointing", before)


@pytest.mark.parametrize("orbax", [False, True], ids=["msgpack", "orbax"])
def test_logits_and_taps_are_flax_s(tmp_path, theirs, orbax):
    rows, params, _, taps, logits = theirs
    path = saved(tmp_path, theirs, orbax)
    converted = exchange.convert("flax", "resnet50", path, image_size=SIZE)
    np.testing.assert_array_equal(converted.params["stem"]["kernel"], params["conv_init"]["kernel"])
    assert converted.model["padding"] == "same" and len(converted.origin["sha256"]) == 64
    net = builders.build_net(defaults.model(**converted.model),
                          builders.Pictures("imagenet2012", CLASSES, (224, 224, 3)))
    ours = jax.jit(net.predict)((converted.params, converted.stats), rows)
    for mine, other in [(ours.logits, logits), *((ours.features[k], taps[k]) for k in taps)]:
        np.testing.assert_allclose(mine, other, atol=1e-4 * float(jnp.abs(other).max()), rtol=0)


def test_checkpoints_from_before_optax_are_known(tmp_path, theirs):
    _, params, stats, _, _ = theirs
    old = {"step": 7, "optimizer": {"target": params, "state": {"step": 7}},
           "model_state": {"batch_stats": stats}, "dynamic_scale": None}
    path = tmp_path / "checkpoint_7"
    path.write_bytes(flax.serialization.msgpack_serialize(jax.tree.map(np.asarray, old)))
    converted = exchange.convert("flax", "resnet50", path)
    np.testing.assert_array_equal(converted.params["head"]["bias"], params["Dense_0"]["bias"])
    np.testing.assert_array_equal(
        converted.stats["stage4_block3"]["norm3"]["var"][0],
        stats["BottleneckResNetBlock_15"]["BatchNorm_2"]["var"])
