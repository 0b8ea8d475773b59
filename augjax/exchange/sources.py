"""Which weights can be taken in: {source: {their model: what it is here}}, one greppable table."""

from collections.abc import Mapping
from fnmatch import fnmatchcase
from typing import Any, NamedTuple

from augjax import check, models
from augjax.exchange import families
from augjax.exchange.names import Rules

Channels = tuple[float, ...]  # one number per channel, of pixels / 255
IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
HALF = ((0.5,) * 3, (0.5,) * 3)
CIFAR100 = ((0.5071, 0.4867, 0.4408), (0.2675, 0.2565, 0.2761))  # RepDistiller dataset/cifar100.py
# What timm's pretrained_cfg says of published weights, NAME.TAG; all others have IMAGENET.
HALVES = ("tf_efficientnet_*.ap_*", "resnet34.ra4_*")


class Foreign(NamedTuple):
    """A model of theirs: ours with the same layers, and what its weights were trained for."""

    ours: str  # a row of models.MODELS
    rules: Rules
    data: str = "imagenet2012"
    statistics: tuple[Channels, Channels] = IMAGENET
    options: Mapping[str, Any] = {}

    @property
    def resolution(self) -> int:
        """Pixels a side."""
        return models.MODELS[self.ours].resolution


def _cifar(ours: str, rules: Rules) -> Foreign:
    return Foreign(ours, rules, "cifar100", CIFAR100)


SOURCES: dict[str, dict[str, Foreign]] = {
    "timm": {
        **{name: Foreign(name, families.RESNET)
           for name in ("resnet18", "resnet34", "resnet50", "resnet200")},
        "mobilenetv2_100": Foreign("mobilenetv2", families.TIMM_INVERTED),
        **{f"tf_efficientnet_b{size}": Foreign(f"efficientnet_b{size}", families.TIMM_INVERTED)
           for size in range(9)},
    },
    "torchvision": {
        **{name: Foreign(name, families.RESNET) for name in ("resnet18", "resnet34", "resnet50")},
        "mobilenet_v2": Foreign("mobilenetv2", families.TORCHVISION_MOBILENET_V2),
    },
    "repdistiller": {
        **{name: _cifar(name, families.RESNET)
           for name in (*(f"resnet{depth}" for depth in (8, 14, 20, 32, 44, 56, 110)),
                        "resnet8x4", "resnet32x4")},
        "ResNet50": _cifar("resnet50_cifar", families.REPDISTILLER_RESNETV2),
        **{name: _cifar(name, families.WIDE_RESNET)
           for name in ("wrn_16_1", "wrn_16_2", "wrn_40_1", "wrn_40_2")},
        **{f"vgg{depth}": _cifar(f"vgg{depth}", families.VGG) for depth in (8, 11, 13, 16, 19)},
        "MobileNetV2": _cifar("mobilenetv2_cifar", families.REPDISTILLER_MOBILENET_V2),
        "ShuffleV2": _cifar("shufflenetv2_cifar", families.SHUFFLENET_V2),
    },
    "flax": {
        "resnet50": Foreign("resnet50", families.FLAX_RESNET50, options={"padding": "same"}),
    },
}
REFUSED = {  # (source, pattern of names): why, and what instead
    ("torchvision", "efficientnet_*"):
        "torchvision pads EfficientNets otherwise than TensorFlow did; take timm's "
        "tf_efficientnet_b0 to b8 with --source=timm",
    ("timm", "efficientnet_*"):
        "timm pads these otherwise than TensorFlow did; take its tf_efficientnet_b0 to b8",
    ("repdistiller", "ShuffleV1"): "augjax has no ShuffleNetV1; take ShuffleV2",
}


def find(source: str, model: str) -> Foreign:
    """The row of a model; timm's may carry a tag, NAME.TAG, which chooses the statistics.

    Raises ConfigError with the nearest names, or with what to take instead.
    """
    known = SOURCES[check.one_of("--source", source, SOURCES)]
    for (where, pattern), instead in REFUSED.items():
        check.require(not (where == source and fnmatchcase(model, pattern)), "--model",
                      f"a model that converts exactly from {source}", model, instead)
    name, dot, tag = model.partition(".")
    tagged = bool(dot) and source == "timm" and tag.replace("_", "").isalnum()
    row = known[check.one_of(f"--model of {source}", name if tagged else model, known)]
    half = any(fnmatchcase(model, pattern) for pattern in HALVES) and source == "timm"
    return row._replace(statistics=HALF) if half else row
