"""Magnitude maps: what a level means for every operation, by name. The name goes with the results.

A new map is one function from (operation, level, sign, height, width) to the value that Pillow
would be handed (`levels.magnitude_map`), and one line of `MAPS`.
"""

import jax
import numpy as np

from augjax import check
from augjax.augment.levels import Draws, float_pattern, magnitude_map, MagnitudeMap, tabulated
from augjax.augment.maps_own import ILDOONET, ILDOONET_SIZED, OUTLIERS
from augjax.augment.maps_pix import PIX
from augjax.augment.maps_tenths import (
    AUTOAUGMENT,
    PBA_OPS,
    TF,
    TF_AUTOAUGMENT,
    TF_MONOTONE,
    TIMM,
    TIMM_INC,
    TIMM_ORIGINAL,
)
from augjax.augment.maps_torchvision import linspace, TORCHVISION, TORCHVISION_AA, TRIVIAL_WIDE

__all__ = [
    "Draws", "MAPS", "MagnitudeMap", "PBA_OPS", "TORCHVISION", "check_level", "float_pattern",
    "linspace", "magnitude_map", "map_named", "tabulated",
]

MAPS: dict[str, MagnitudeMap] = {
    chosen.name: chosen for chosen in (
        TORCHVISION, TORCHVISION_AA, TRIVIAL_WIDE,
        TF, TF_MONOTONE, TF_AUTOAUGMENT, TIMM, TIMM_INC, TIMM_ORIGINAL, AUTOAUGMENT,
        ILDOONET, ILDOONET_SIZED, OUTLIERS, PIX,
    )
}


def map_named(name: str) -> MagnitudeMap:
    """A magnitude map. Raises ConfigError with the nearest names."""
    return MAPS[check.one_of("magnitude map", name, MAPS)]


def check_level(magnitude_map: MagnitudeMap, level: object) -> None:
    """Raises ConfigError where a concrete level lies outside the map's range; tracers pass."""
    if callable(level) or isinstance(level, jax.core.Tracer):
        return
    lowest, highest = magnitude_map.lowest, magnitude_map.highest
    inside = (np.asarray(level) >= lowest) & (np.asarray(level) <= highest)
    check.require(
        bool(np.all(inside)), f"magnitude in map {magnitude_map.name!r}",
        f"{lowest:g} to {highest:g}", level,
        "stay inside the map's range or choose another map",
    )
