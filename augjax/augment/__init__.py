"""Images in, images out: operations, engine, policies, crops, views. On uint8 and exact.

Two exceptions: dm-pix's operations (map "pix") compute in floats, and mixup gives float32.
"""

from augjax.augment import maps, matrices, ops
from augjax.augment.bases import BASES
from augjax.augment.crops import flip, Layer, pad_crop, pad_crop_pba
from augjax.augment.engine import apply, per_image, products, Program, select
from augjax.augment.erasing import (
    cutout_square,
    Erasing,
    ErasingPolicy,
    mean_fill,
    random_erasing,
    random_noise_erasing,
    with_erasing,
)
from augjax.augment.maps import MagnitudeMap, MAPS
from augjax.augment.mixing import (
    beta_mixing,
    cutmix,
    mix_batch,
    Mixing,
    Mixture,
    mixup,
    per_device,
    whole_batch,
)
from augjax.augment.ops import OPS
from augjax.augment.pba_logs import parse_schedule, schedule_of_log, schedule_of_policies
from augjax.augment.pba_policies import check_schedule, pba, PopulationPolicy, replay
from augjax.augment.policies import apply_policy, augment, draw, image_keys, Policy
from augjax.augment.random_policies import (
    outliers,
    RandAugment,
    randaugment,
    ranged_randaugment,
    RangedRandAugment,
    trivial_augment,
)
from augjax.augment.sampling import sample_augmentations
from augjax.augment.table_policies import autoaugment, sub_policies, SubPolicies
from augjax.augment.views import make, Mixed, pipeline, plain, Views

__all__ = [
    "BASES", "Erasing", "ErasingPolicy", "Layer", "MAPS", "MagnitudeMap", "Mixed", "Mixing",
    "Mixture", "OPS", "Policy", "PopulationPolicy", "Program", "RandAugment", "RangedRandAugment",
    "SubPolicies", "Views", "apply", "apply_policy", "augment", "autoaugment", "beta_mixing",
    "check_schedule", "cutmix", "cutout_square", "draw", "flip", "image_keys", "make", "maps",
    "matrices", "mean_fill", "mix_batch", "mixup", "ops", "outliers", "pad_crop", "pad_crop_pba",
    "parse_schedule", "pba", "per_device", "per_image", "pipeline", "plain", "products",
    "randaugment", "random_erasing", "random_noise_erasing", "ranged_randaugment", "replay",
    "sample_augmentations", "schedule_of_log", "schedule_of_policies", "select",
    "sub_policies", "trivial_augment", "whole_batch", "with_erasing",
]
