"""Seven pairs of networks on CIFAR-100: KD and CRD, with CutMix, picked CutMix and long runs.

Claim     kd_thrives_on_da, Table 3: KD gains from four times the epochs, more from CutMix, more
          from its picked half, and again from four times the epochs; CRD gains from the last two.
          Its own numbers are against it at resnet32x4-resnet8x4 (kd_960, kd_pick, crd_pick_960)
          and resnet56-resnet20 (crd_pick)
Command   python -m launch.study --config=configs/cifar/thrives_pairs.py:pair=vgg13-vgg8 \\
              --data_dir=DIR --workdir=runs/thrives_vgg
Cost      not measured
Measured  not measured
Rows      "pair=NAME" (vgg13-vgg8 unless told) or "pair=all"; each row is PAIR-METHOD, each network
          alone under its own name | "teacher=trained" (by recipe RD, one seed) or
          "teacher=converted": the paper's, RepDistiller's, in runs/teachers/NAME (as its row is
          called), as made by python -m launch.convert --source=repdistiller
Scales    full: recipe RD, 240 epochs or 960, three seeds | tiny: two steps, for tests

"crd" is CRD + KD: the published row has the numbers of that (spec KT8). CRD sees weak views alone,
as its memory has one place per image (spec B8). Left out of what was published, for the text copy
of the table merges or loses them: kd_pick_960 of resnet56-resnet20, resnet32x4-resnet8x4 and
resnet32x4-shufflenetv2, crd and crd_pick of resnet56-resnet20 (spec R3).
Figure 4's r is `pick_ratio` in the rows of kind "train" of runs/PAIR-kd_pick/SEED/metrics.jsonl.
"""

from ml_collections import ConfigDict

from augjax import defaults, pairs

ALONE = {
    "wrn_40_2": 75.61, "wrn_16_2": 73.26, "resnet56": 72.34, "resnet20": 69.06, "resnet32x4": 79.42,
    "resnet8x4": 72.50, "vgg13": 74.64, "vgg8": 70.36, "mobilenetv2_cifar": 64.60,
    "resnet50_cifar": 79.34, "shufflenetv2_cifar": 71.82,
}
PUBLISHED = {  # mean and standard deviation of three runs, in the order of pairs.METHODS
    "vgg13-vgg8": (
        (72.98, 0.19), (74.00, 0.34), (74.16, 0.18), (74.43, 0.20), (75.00, 0.17),
        (74.29, 0.12), (74.65, 0.12), (75.41, 0.10)),
    "wrn40_2-wrn16_2": (
        (74.92, 0.28), (75.68, 0.12), (75.34, 0.19), (75.59, 0.22), (76.41, 0.10),
        (75.64, 0.21), (75.96, 0.27), (76.61, 0.01)),
    "resnet56-resnet20": (
        (70.66, 0.24), (71.79, 0.29), (70.77, 0.17), (70.99, 0.20), None,
        None, None, (72.40, 0.20)),
    "resnet32x4-resnet8x4": (
        (73.33, 0.25), (73.14, 0.06), (74.91, 0.20), (74.78, 0.35), None,
        (75.46, 0.25), (76.11, 0.53), (75.96, 0.29)),
    "vgg13-mobilenetv2": (
        (67.37, 0.32), (68.77, 0.05), (68.79, 0.35), (69.49, 0.32), (70.47, 0.12),
        (69.94, 0.05), (69.95, 0.22), (70.84, 0.05)),
    "resnet50-vgg8": (
        (73.81, 0.13), (74.04, 0.25), (74.85, 0.23), (74.95, 0.18), (76.13, 0.16),
        (74.58, 0.27), (75.35, 0.22), (76.20, 0.22)),
    "resnet32x4-shufflenetv2": (
        (74.45, 0.27), (74.64, 0.30), (76.61, 0.18), (76.90, 0.25), None,
        (76.05, 0.09), (76.93, 0.11), (78.51, 0.27)),
}
CLAIMS = (
    "{0}-kd_960 > {0}-kd", "{0}-kd_cutmix > {0}-kd", "{0}-kd_pick > {0}-kd_cutmix",
    "{0}-kd_pick_960 > {0}-kd_pick", "{0}-kd_pick_960 > {0}-crd", "{0}-crd_pick > {0}-crd",
    "{0}-crd_pick_960 > {0}-crd_pick",
)
TABLE = pairs.Table("kd_thrives_on_da, Table 3", "cifar100", 4, 960, ALONE, PUBLISHED, CLAIMS)
WORDS = {  # what an argument may be; the first unless told
    "pair": (*pairs.PAIRS, "all"), "scale": pairs.SCALES, "teacher": ("trained", "converted"),
}


def get_config(arg: str = "") -> ConfigDict:
    chosen = defaults.chosen(arg, WORDS)
    return pairs.study(
        TABLE, "KD and CRD with CutMix, picked CutMix and long runs on CIFAR-100",
        __doc__.split("Command")[0].split("Claim")[1].strip(), chosen["pair"], chosen["scale"],
        trained=chosen["teacher"] == "trained")
