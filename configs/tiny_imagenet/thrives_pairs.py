"""Seven pairs of networks on Tiny-ImageNet: KD and CRD, with CutMix, picked CutMix and long runs.

Claim     kd_thrives_on_da, Table 4: KD gains from CutMix, more from its picked half, and then from
          twice the epochs, which alone help it in 3 pairs of 7; CRD gains from picked CutMix in 5
          and then from twice the epochs in 6. Its own numbers are against it at
          resnet56-resnet20 (kd_pick, crd_pick), wrn40_2-wrn16_2 (crd_pick) and resnet50-vgg8
          (crd_pick_480)
Command   python -m launch.study --config=configs/tiny_imagenet/thrives_pairs.py:pair=vgg13-vgg8 \\
              --data_dir=DIR --workdir=runs/thrives_tiny_vgg
Cost      not measured
Measured  not measured
Rows      "pair=NAME" (vgg13-vgg8 unless told) or "pair=all"; each row is PAIR-METHOD, each network
          alone under its own name. The paper trained these teachers itself: so do we, by recipe RD
Scales    full: recipe RD on 64 pixels (pad 8), 240 epochs or 480, three seeds | tiny: two steps,
          for tests

"crd" is CRD + KD, as in configs/cifar/thrives_pairs.py: the published row is compared with that
(spec KT8), and CRD sees weak views alone. Networks are those of CIFAR with their last map averaged
whole (spec M1). Figure 4's r is `pick_ratio` in the rows of kind "train" of
runs/PAIR-kd_pick/SEED/metrics.jsonl.
"""

from ml_collections import ConfigDict

from augjax import defaults, pairs

ALONE = {
    "wrn_40_2": 61.28, "wrn_16_2": 58.23, "resnet56": 58.37, "resnet20": 52.53, "resnet32x4": 64.41,
    "resnet8x4": 55.41, "vgg13": 62.59, "vgg8": 56.67, "mobilenetv2_cifar": 58.20,
    "resnet50_cifar": 68.20, "shufflenetv2_cifar": 62.07,
}
PUBLISHED = {  # mean and standard deviation of three runs, in the order of pairs.METHODS
    "vgg13-vgg8": (
        (61.48, 0.36), (61.72, 0.10), (62.17, 0.11), (62.32, 0.18), (62.60, 0.25),
        (62.92, 0.31), (63.39, 0.10), (63.60, 0.20)),
    "wrn40_2-wrn16_2": (
        (58.65, 0.09), (59.20, 0.30), (59.06, 0.18), (59.22, 0.05), (60.07, 0.04),
        (60.79, 0.24), (60.72, 0.09), (60.99, 0.33)),
    "resnet56-resnet20": (
        (53.58, 0.18), (54.23, 0.24), (53.77, 0.33), (53.66, 0.05), (54.25, 0.07),
        (55.34, 0.02), (54.99, 0.16), (55.68, 0.22)),
    "resnet32x4-resnet8x4": (
        (55.67, 0.09), (55.49, 0.11), (56.41, 0.04), (56.82, 0.23), (57.54, 0.23),
        (59.28, 0.13), (59.65, 0.24), (60.13, 0.13)),
    "vgg13-mobilenetv2": (
        (59.28, 0.13), (59.27, 0.08), (60.48, 0.30), (60.53, 0.18), (60.66, 0.15),
        (62.38, 0.19), (62.54, 0.22), (62.79, 0.03)),
    "resnet50-vgg8": (
        (60.39, 0.16), (60.10, 0.30), (61.12, 0.18), (61.40, 0.26), (61.95, 0.14),
        (62.03, 0.16), (62.85, 0.18), (62.60, 0.17)),
    "resnet32x4-shufflenetv2": (
        (66.34, 0.11), (65.81, 0.11), (67.01, 0.30), (67.08, 0.13), (67.35, 0.21),
        (67.33, 0.13), (67.64, 0.18), (67.70, 0.35)),
}
CLAIMS = (
    "{0}-kd_cutmix > {0}-kd", "{0}-kd_pick > {0}-kd_cutmix", "{0}-kd_pick_480 > {0}-kd_pick",
    "{0}-crd_pick > {0}-crd", "{0}-crd_pick_480 > {0}-crd_pick",
)
TABLE = pairs.Table(
    "kd_thrives_on_da, Table 4", "tiny_imagenet", 8, 480, ALONE, PUBLISHED, CLAIMS)
WORDS = {"pair": (*pairs.PAIRS, "all"), "scale": pairs.SCALES}  # of an argument; first unless told


def get_config(arg: str = "") -> ConfigDict:
    chosen = defaults.chosen(arg, WORDS)
    return pairs.study(
        TABLE, "KD and CRD with CutMix, picked CutMix and long runs on Tiny-ImageNet",
        __doc__.split("Command")[0].split("Claim")[1].strip(), chosen["pair"], chosen["scale"])
