"""Networks: Flax Linen modules behind types.Net."""

from augjax.models.layers import Build, FULL_PRECISION
from augjax.models.net import from_linen
from augjax.models.norm import BatchNorm, Mode
from augjax.models.table import Model
from augjax.models.zoo import build, MODELS

__all__ = ["BatchNorm", "Build", "FULL_PRECISION", "MODELS", "Mode", "Model", "build", "from_linen"]
