"""From a Linen module to a Net: pixels in, Outputs out, resize and normalisation inside."""

from collections.abc import Sequence

from flax import linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from augjax import check
from augjax.models.norm import Mode
from augjax.types import Net, Params, Stats


def from_linen(
    module: nn.Module, image_shape: Sequence[int], mean: Sequence[float], std: Sequence[float]
) -> Net:
    """A Net from a module called as `module(x, mode) -> Outputs`, with a `Mode`.

    The module sees float32 images (pixel / 255 - mean) / std of `image_shape`; rows of another
    height or width are resized to it (linear, antialiased). Training draws dropout, drop-connect
    and shakes from the collection "dropout".

    Args:
      module: its variables are the collections "params" and, if any, "batch_stats".
      image_shape: (H, W, C) that the module sees.
      mean, std: one number per channel, of pixels divided by 255.

    Raises ConfigError where mean or std do not fit the channels.
    """
    image_shape = tuple(image_shape)
    _check_statistics(image_shape, mean, std)
    mean, std = (np.asarray(value, np.float64) for value in (mean, std))
    gain, shift = np.float32(1 / (255 * std)), np.float32(-mean / std)  # [C] float32

    def normalised(image):  # [R, H, W, C] uint8 or float32 in 0..255 -> float32
        check.require(
            image.ndim == 4 and image.shape[-1] == image_shape[-1], "images of a network",
            f"[R, H, W, {image_shape[-1]}]", list(image.shape), "check the data set's channels",
        )
        image = image.astype(jnp.float32)
        if image.shape[1:] != image_shape:
            image = jax.image.resize(image, (image.shape[0], *image_shape), "linear")
        return image * gain + shift

    @jax.jit
    def init(key) -> tuple[Params, Stats]:
        variables = module.init(key, jnp.zeros((1, *image_shape)), Mode())
        return variables["params"], variables.get("batch_stats", {})

    def train(variables, rows, key):
        params, stats = variables
        mode = Mode(views=rows.views)
        outputs, changed = module.apply(
            {"params": params, "batch_stats": stats}, normalised(rows.image), mode,
            rngs={"dropout": key}, mutable=["batch_stats"],
        )
        return outputs, changed.get("batch_stats", {})

    def predict(variables, rows, domain=0):
        params, stats = variables
        return module.apply(
            {"params": params, "batch_stats": stats}, normalised(rows.image), Mode(domain)
        )

    return Net(init, train, predict)


def _check_statistics(image_shape, mean, std):
    channels = image_shape[-1]
    for name, value in (("mean", mean), ("std", std)):
        check.require(
            len(value) == channels, f"{name} of the pixels", f"{channels} numbers, one per channel",
            tuple(value), "give the data set's statistics of pixels / 255",
        )
    check.require(
        min(std) > 0 and max(*mean, *std) <= 1, "mean and std of the pixels",
        "numbers of pixels / 255, with std > 0", (tuple(mean), tuple(std)), "divide them by 255",
    )
