"""From a Linen module to a Net: pixels in, Outputs out, resize and normalisation inside."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
import functools

from flax import linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from augjax import check
from augjax.models.norm import Mode
from augjax.types import Net, Outputs, Params, Rows, Stats, take_views, View


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

    def init(key) -> tuple[Params, Stats]:
        return _init(module, image_shape, key)

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


def of_scales(nets: Sequence[Net]) -> Net:
    """One network that sees images of several sizes: nets[i] are its rows of BatchNorm set i.

    The nets differ in nothing but the size to which they resize. Every set is a pass of its own, so
    maps have no common shape: what is said of all rows are logits and pooled features.
    Source: Wang et al. 2020 (RS-Nets); spec A6.
    """

    def train(variables, rows, key):
        params, stats = variables
        said = {}
        for domain in dict.fromkeys(view.domain for view in rows.views):
            names = tuple(view.name for view in rows.views if view.domain == domain)
            of_size = _sized(nets, domain)
            outputs, stats = of_size.train(  # moves the statistics of this set alone
                (params, stats), _only(rows, names), jax.random.fold_in(key, domain))
            said[names] = replace(outputs, features={})
        return _together(said, rows.views), stats

    def predict(variables, rows, domain=0):
        return _sized(nets, domain).predict(variables, rows, domain)

    return Net(nets[0].init, train, predict)


def of_views(net: Net, names: tuple[str, ...]) -> Net:
    """The same network, which in training sees rows of the named views alone; of others it says 0.

    Raises ConfigError at trace time for a view that is not there.
    """

    def train(variables, rows, key):
        for name in names:
            check.one_of("view of a model", name, [view.name for view in rows.views])
        outputs, stats = net.train(variables, _only(rows, names), key)
        return _together({names: outputs}, rows.views), stats

    return net._replace(train=train)


def _sized(nets, domain):
    check.require(
        isinstance(domain, int) and domain < len(nets), "BatchNorm set of a network with scales",
        f"0 to {len(nets) - 1}, one for each scale, not traced", domain,
        "change the domain of the view, or add a scale")
    return nets[domain]


def _only(rows: Rows, names: tuple[str, ...]) -> Rows:
    kept = tuple(view for view in rows.views if view.name in names)
    return replace(take_views(rows, rows.views, names), views=kept)


def _together(said: Mapping[tuple[str, ...], Outputs], views: tuple[View, ...]) -> Outputs:
    """Outputs of all rows, [R, ...], from those of some views each; zeros where none are."""
    names = [view.name for view in views for _ in range(view.rows)]  # of a group's columns

    def together(*parts):
        columns = {}
        for own, part in zip(said, parts):
            mine = [column for column, name in enumerate(names) if name in own]
            apart = part.reshape(-1, len(mine), *part.shape[1:])
            columns |= {column: apart[:, place] for place, column in enumerate(mine)}
        nothing = jnp.zeros_like(next(iter(columns.values())))
        stacked = jnp.stack([columns.get(place, nothing) for place in range(len(names))], axis=1)
        return stacked.reshape(-1, *stacked.shape[2:])

    return jax.tree.map(together, *said.values())


@functools.partial(jax.jit, static_argnums=(0, 1))
def _init(module, image_shape, key):
    """Compiled once for equal modules, however many Nets are made of them."""
    variables = module.init(key, jnp.zeros((1, *image_shape)), Mode())
    return variables["params"], variables.get("batch_stats", {})


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
