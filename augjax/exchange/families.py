"""The names of every importable family, as tables of (our module, their module).

Sources, for names alone: timm 1.0.31 and torchvision 0.28 (state_dict of each model);
HobbitLong/RepDistiller models/*.py at b84f547; google/flax examples/imagenet/models.py.
"""

from collections.abc import Iterator, Mapping

from augjax.exchange.names import Rules

BLOCK, THEIRS = "stage{i}_block{j}", "layer{i}.{j:from0}"

# --- residual networks ---------------------------------------------------------------------------

_RESNET_TRUNK: Rules = (
    ("stem", "conv1"),
    ("stem_norm", "bn1"),
    (f"{BLOCK}/conv{{k}}", f"{THEIRS}.conv{{k}}"),
    (f"{BLOCK}/norm{{k}}", f"{THEIRS}.bn{{k}}"),
)
RESNET: Rules = (  # torchvision, timm and RepDistiller's resnet.py
    *_RESNET_TRUNK,
    (f"{BLOCK}/shortcut", f"{THEIRS}.downsample.0"),
    (f"{BLOCK}/shortcut_norm", f"{THEIRS}.downsample.1"),
    ("head", "fc"),
)
REPDISTILLER_RESNETV2: Rules = (
    *_RESNET_TRUNK,
    (f"{BLOCK}/shortcut", f"{THEIRS}.shortcut.0"),
    (f"{BLOCK}/shortcut_norm", f"{THEIRS}.shortcut.1"),
    ("head", "linear"),
)


def running(blocks: tuple[int, ...], first: int) -> Iterator[tuple[str, int]]:
    """("stage1_block1", first), ...: blocks that others number through all stages."""
    places = [f"stage{stage}_block{block}" for stage, count in enumerate(blocks, start=1)
              for block in range(1, count + 1)]
    return zip(places, range(first, first + len(places)))


def flax_resnet(blocks: tuple[int, ...], name: str) -> Rules:
    """Flax's ImageNet example: Linen's own numbers, in the order in which layers are called."""
    inside = (("conv{k}", "Conv_{k:from0}"), ("norm{k}", "BatchNorm_{k:from0}"),
              ("shortcut", "conv_proj"), ("shortcut_norm", "norm_proj"))
    return (
        ("stem", "conv_init"), ("stem_norm", "bn_init"), ("head", "Dense_0"),
        *((f"{block}/{ours}", f"{name}_{number}/{theirs}")
          for block, number in running(blocks, 0) for ours, theirs in inside),
    )


FLAX_RESNET50 = flax_resnet((3, 4, 6, 3), "BottleneckResNetBlock")

# --- RepDistiller's other families ---------------------------------------------------------------

WIDE_RESNET: Rules = (
    ("stem", "conv1"),
    (f"{BLOCK}/conv{{k}}", "block{i}.layer.{j:from0}.conv{k}"),
    (f"{BLOCK}/norm{{k}}", "block{i}.layer.{j:from0}.bn{k}"),
    (f"{BLOCK}/shortcut", "block{i}.layer.{j:from0}.convShortcut"),
    ("head_norm", "bn1"),
    ("head", "fc"),
)
VGG: Rules = (  # a block is convolution, norm, ReLU, three places of a sequence
    ("stem", "block0.0"),
    ("stem_norm", "block0.1"),
    *((f"stage{{i}}_block{block}/{ours}", f"block{{i}}.{3 * (block - 1) + place}")
      for block in range(1, 5) for place, ours in enumerate(("conv", "norm"))),
    ("head", "classifier"),
)
SHUFFLENET_V2: Rules = (
    *_RESNET_TRUNK,
    ("final", "conv2"),
    ("final_norm", "bn2"),
    ("head", "linear"),
)
REPDISTILLER_MOBILENET_V2: Rules = (
    ("stem", "conv1.0"),
    ("stem_norm", "conv1.1"),
    *((f"{BLOCK}/{ours}", f"blocks.{{i:from0}}.{{j:from0}}.conv.{place}") for ours, place in (
        ("expand", 0), ("expand_norm", 1), ("depthwise", 3), ("depthwise_norm", 4),
        ("project", 6), ("project_norm", 7))),
    ("final", "conv2.0"),
    ("final_norm", "conv2.1"),
    ("head", "classifier.0"),
)

# --- inverted residuals of ImageNet --------------------------------------------------------------


def _blocks(where: str, names: Mapping[str, str], ours: str = BLOCK) -> Rules:
    return tuple((f"{ours}/{our}", f"{where}.{their}") for our, their in names.items())


_DEPTHWISE = {"depthwise": "conv_dw", "depthwise_norm": "bn1", "project": "conv_pw",
              "project_norm": "bn2"}  # timm's blocks without expansion
_INVERTED = {"expand": "conv_pw", "expand_norm": "bn1", "depthwise": "conv_dw",
             "depthwise_norm": "bn2", "project": "conv_pwl", "project_norm": "bn3"}
_GATE = {"squeeze": "se.conv_reduce", "excite": "se.conv_expand"}
TIMM_INVERTED: Rules = (  # MobileNetV2 and EfficientNet
    ("stem", "conv_stem"),
    ("stem_norm", "bn1"),
    *_blocks("blocks.{i:from0}.{j:from0}", _GATE),
    *_blocks("blocks.0.{j:from0}", _DEPTHWISE, "stage1_block{j}"),
    *_blocks("blocks.{i:from0}.{j:from0}", _INVERTED),
    ("final", "conv_head"),
    ("final_norm", "bn2"),
    ("head", "classifier"),
)
_TORCHVISION_DEPTHWISE = {"depthwise": "conv.0.0", "depthwise_norm": "conv.0.1",
                          "project": "conv.1", "project_norm": "conv.2"}
_TORCHVISION_INVERTED = {"expand": "conv.0.0", "expand_norm": "conv.0.1",
                         "depthwise": "conv.1.0", "depthwise_norm": "conv.1.1",
                         "project": "conv.2", "project_norm": "conv.3"}
TORCHVISION_MOBILENET_V2: Rules = (
    ("stem", "features.0.0"),
    ("stem_norm", "features.0.1"),
    *_blocks("features.1", _TORCHVISION_DEPTHWISE, "stage1_block1"),
    *(row for block, number in running((1, 2, 3, 4, 3, 3, 1), 1)
      for row in _blocks(f"features.{number}", _TORCHVISION_INVERTED, block)),
    ("final", "features.18.0"),
    ("final_norm", "features.18.1"),
    ("head", "classifier.1"),
)
