"""How a function of whole batches meets `vmap` and meshes: one batch, pieces of it on devices."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax.sharding import AxisType, PartitionSpec as P

Images = Callable[..., jax.Array]


def over_data(function: Images) -> Images:
    """Runs a function of [B, ...] arrays, image by image independent, on each device's own images.

    Left to the compiler, a loop or a gather over a sharded batch collects the whole batch on every
    device. Where there is no mesh axis "data" to cut along, or B does not divide, nothing is cut.
    """

    def run(*arrays):
        mesh = jax.sharding.get_abstract_mesh()
        types = dict(zip(mesh.axis_names, mesh.axis_types, strict=True))
        devices = mesh.shape.get("data", 1)
        cut = devices > 1 and types["data"] != AxisType.Manual and arrays[0].shape[0] % devices == 0
        if not cut:
            return function(*arrays)
        return jax.shard_map(
            function, in_specs=P("data"), out_specs=P("data"), axis_names={"data"}, check_vma=False
        )(*arrays)

    return run


def one_batch(function: Images) -> Images:
    """Under `vmap`, joins the mapped axis to the batch: [N, B, ...] is seen as [B * N, ...].

    Mapped as it is, a loop with a branch per image would do every branch to every image. Images
    come first, so that a batch that is cut over devices stays where it is.
    """

    @jax.custom_batching.custom_vmap
    def run(*arrays):
        return function(*arrays)

    @run.def_vmap
    def _(size, mapped, *arrays):
        def join(array, has_axis):
            array = jnp.moveaxis(array, 0, 1) if has_axis else array[:, None]
            array = jnp.broadcast_to(array, (array.shape[0], size, *array.shape[2:]))
            return array.reshape(-1, *array.shape[2:])

        result = run(*[join(array, has) for array, has in zip(arrays, mapped, strict=True)])
        return jnp.moveaxis(result.reshape(-1, size, *result.shape[1:]), 1, 0), True

    return run
