"""PyTorch's own networks and ours give the same logits and taps from the same file.

In CI the smallest member of each family and source is computed and all others are held against
their names and shapes. AUGJAX_EVERY_MODEL=1 computes every importable model at its own resolution
and prints a table (pytest -s); that takes five minutes on two cores.
"""

import os

import numpy as np
import pytest

from augjax import check, exchange, models
from augjax.exchange import names, weights

pytestmark = pytest.mark.parity

ALL = [(source, model) for source in ("timm", "torchvision", "repdistiller")
       for model in exchange.SOURCES[source]]
SMALLEST = [  # source, model, pixels a side
    ("timm", "resnet18", 64), ("timm", "mobilenetv2_100", 64), ("timm", "tf_efficientnet_b0", 64),
    ("torchvision", "resnet18", 64), ("torchvision", "resnet50", 64),
    ("torchvision", "mobilenet_v2", 64), ("repdistiller", "resnet8", 32),
    ("repdistiller", "ResNet50", 32), ("repdistiller", "wrn_16_1", 32),
    ("repdistiller", "vgg8", 32), ("repdistiller", "MobileNetV2", 32),
    ("repdistiller", "ShuffleV2", 32),
]
EVERY = [(source, model, models.MODELS[exchange.find(source, model).ours].resolution)
         for source, model in ALL]
TOLERANCE = 1e-4  # of the largest logit; of each tap's own largest number


@pytest.fixture(scope="module")
def cases():
    """The PyTorch side, imported only where it is wanted."""
    import exchange_cases

    return exchange_cases


def assert_equal(found):
    for what, (difference, largest) in found.items():
        assert difference <= TOLERANCE * largest, (what, difference, largest)
        assert 0.1 < largest < 1e3, (what, largest)  # nothing vanished, nothing exploded


@pytest.mark.parametrize("source, model, size", SMALLEST)
def test_the_smallest_of_each_family(cases, tmp_path, source, model, size):
    assert_equal(cases.compared(source, model, tmp_path, size))


@pytest.mark.parametrize("source, model", ALL)
def test_every_model_s_tensors_all_have_a_place(cases, source, model):
    row = exchange.find(source, model)
    classes = 100 if source == "repdistiller" else 1000
    tensors = {name: weights.Tensor(tuple(value.shape), str(value.dtype).removeprefix("torch."))
               for name, value in cases.state_on_meta(source, model, classes).items()}
    assert exchange.differences(
        tensors, cases.shapes(row, classes), row.rules, names.TORCH) == []


def test_every_tensor_counts(cases, tmp_path):
    """Each of them, shaken by a tenth in the file, changes what our network says."""
    changes = cases.sensitivity("repdistiller", "resnet8", tmp_path)
    assert len(changes) == 47  # 9 convolutions, 9 norms of four tensors, a head of two
    assert min(changes.values()) > 10 * TOLERANCE, min(changes.items(), key=lambda item: item[1])


def test_swapped_layers_would_be_seen(cases, tmp_path):
    """The smallest mistake that shapes cannot show: two blocks of a stage in the wrong order."""
    assert cases.swapped("repdistiller", "wrn_16_1", tmp_path, "block1.layer.0.conv1.weight",
                         "block1.layer.1.conv1.weight") > 100 * TOLERANCE


def test_statistics_and_resolution_are_those_timm_publishes(cases):
    """Of every published tag of every importable model."""
    cases.load("torchvision")
    import timm

    smaller = {"a3": 160, "a1h": 176, "tv2": 176}  # trained on less than they are tested on
    seen = 0
    for model in exchange.SOURCES["timm"]:
        for tagged in timm.list_pretrained(f"{model}.*"):
            told, row = timm.get_pretrained_cfg(tagged), exchange.find("timm", tagged)
            assert row.statistics == (told.mean, told.std), tagged
            tag = tagged.split(".")[1].split("_")[0]
            assert told.input_size[1] == smaller.get(tag, row.resolution), tagged
            seen += 1
    assert seen > 50


def test_other_efficientnets_would_not_be_the_same(cases):
    """Why torchvision's are refused: our layers pad as TensorFlow's, theirs do not."""
    with pytest.raises(check.ConfigError, match="tf_efficientnet"):
        exchange.find("torchvision", "efficientnet_b0")


@pytest.mark.skipif("AUGJAX_EVERY_MODEL" not in os.environ, reason="minutes; run by hand")
@pytest.mark.parametrize("source, model, size", EVERY)
def test_every_model(cases, tmp_path, source, model, size):
    found = cases.compared(source, model, tmp_path, size)
    worst = max(difference / largest for difference, largest in found.values())
    logits = np.divide(*found["logits"])
    print(f"\n| {source} | {model} | {size} | {found['logits'][0]:.1e} | {found['logits'][1]:.2f} "
          f"| {logits:.1e} | {worst:.1e} |", flush=True)
    assert_equal(found)
