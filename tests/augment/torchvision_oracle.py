"""torchvision beside a torch that it was not built for."""

from launch.torchvision_beside_torch import load

__all__ = ["load"]
