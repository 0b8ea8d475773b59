"""The networks by name."""

from collections.abc import Sequence
import inspect
from typing import Any

import jax.numpy as jnp

from augjax import check
from augjax.models.alexnet import ALEXNETS
from augjax.models.efficientnet import EFFICIENTNETS
from augjax.models.layers import Build, Hook
from augjax.models.mobilenetv2 import MOBILENETS_V2
from augjax.models.net import from_linen, of_scales, of_views
from augjax.models.preresnet import PRERESNETS
from augjax.models.pyramidnet import PYRAMIDNETS
from augjax.models.resnet import RESNETS
from augjax.models.resnet_imagenet import IMAGENET_RESNETS
from augjax.models.shake_shake import SHAKE_SHAKES
from augjax.models.shufflenetv2 import SHUFFLENETS_V2
from augjax.models.table import Model
from augjax.models.vgg import VGGS
from augjax.models.wide_resnet import WIDE_RESNETS
from augjax.models.wide_resnet_tf import WIDE_RESNETS_TF
from augjax.types import Net

MODELS: dict[str, Model] = {
    **RESNETS,
    **IMAGENET_RESNETS,
    **PRERESNETS,
    **ALEXNETS,
    **PYRAMIDNETS,
    **SHAKE_SHAKES,
    **WIDE_RESNETS,
    **WIDE_RESNETS_TF,
    **VGGS,
    **MOBILENETS_V2,
    **SHUFFLENETS_V2,
    **EFFICIENTNETS,
}


def build(
    name: str,
    classes: int,
    image_shape: Sequence[int],
    mean: Sequence[float],
    std: Sequence[float],
    domains: int = 1,
    bn_per_view: bool = False,
    bn_images: int | None = None,
    dtype: Any = jnp.float32,
    remat: bool = False,
    activation: Hook | None = None,
    scales: Sequence[int] = (),
    views: Sequence[str] = (),
    **options: Any,
) -> Net:
    """The network called `name` behind a Net.

    Args:
      name: a row of MODELS.
      classes: at least 2.
      image_shape: (H, W, C) that the network sees; rows of another size are resized to it.
      mean, std: per channel, of pixels divided by 255.
      domains, bn_per_view, bn_images: see `BatchNorm`.
      dtype: type of the convolutions; parameters, statistics, head and logits stay float32.
      remat: blocks are computed again in the backward pass, which needs less memory.
      activation: quantises what the layers read, see `Build.hooked`.
      scales: pixels a side for the rows of each BatchNorm set, in place of image_shape's; none: all
        rows have that.
      views: those whose rows it sees in training, none being all (`of_views`).
      options: the family's own, such as a ResNet's `extra_blocks`.

    Raises ConfigError, with the nearest names if there is no such network or option.
    """
    model = MODELS[check.one_of("model", name, MODELS)]
    check.require(classes >= 2, "classes", "at least 2", classes, "give the data set's class count")
    check.require(domains >= 1, "domains", "at least 1", domains, "use 1 for plain BatchNorm")
    check.require(len(scales) in (0, domains), "scales",
                  f"none, or one for each of {domains} BatchNorm sets", tuple(scales),
                  "set model.domains to their number")
    shapes = [(side, side, image_shape[-1]) for side in scales] or [image_shape]
    for shape in shapes:
        check.require(
            len(shape) == 3 and min(shape[:2]) >= model.smallest, f"image_shape of {name}",
            f"(H, W, C) with H and W of at least {model.smallest}", tuple(shape),
            "enlarge the images or choose another model",
        )
    known = dict(inspect.signature(model.make).parameters)
    known.pop("build", None)
    for option, value in options.items():
        check.one_of(f"option of model {name}", option, known)
        check.typed(f"option {option} of model {name}", value, known[option].annotation)
    how = Build(classes, domains, bn_per_view, bn_images, dtype, remat, activation)
    module = model.make(how, **options)
    nets = [from_linen(module, shape, mean, std) for shape in shapes]
    net = of_scales(nets) if scales else nets[0]
    return of_views(net, tuple(views)) if views else net
