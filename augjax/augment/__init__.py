"""Images in, images out: operations, engine, policies, crops, views. All on uint8, all exact."""

from augjax.augment import maps, matrices, ops
from augjax.augment.crops import Layer, flip, pad_crop
from augjax.augment.engine import Program, apply, per_image, select
from augjax.augment.maps import MAPS, MagnitudeMap
from augjax.augment.ops import OPS
from augjax.augment.policies import (
    Policy, RandAugment, apply_policy, augment, draw, image_keys, randaugment,
)
from augjax.augment.views import Views, make, pipeline, plain

__all__ = [
    "Layer", "MAPS", "MagnitudeMap", "OPS", "Policy", "Program", "RandAugment", "Views", "apply",
    "apply_policy", "augment", "draw", "flip", "image_keys", "make", "maps", "matrices", "ops",
    "pad_crop", "per_image", "pipeline", "plain", "randaugment", "select",
]
