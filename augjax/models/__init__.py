"""Networks: Flax Linen modules behind types.Net."""

from augjax.models.net import from_linen
from augjax.models.norm import BatchNorm
from augjax.models.resnet import ResNet, resnet
from augjax.models.zoo import MODELS, build

__all__ = ["BatchNorm", "MODELS", "ResNet", "build", "from_linen", "resnet"]
