"""One mesh, two axes: "population" and "data". The batch lies over "data"; so may parameters."""

import math
from typing import Any

import jax
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec as P
import numpy as np

from augjax import check

PyTree = Any


def make_mesh(devices: list | None = None, members: int = 1) -> Mesh:
    """All devices of all processes (or those given): as many of them along "population" as divide
    a population of `members` evenly, the rest along "data"."""
    devices = jax.devices() if devices is None else devices
    along = math.gcd(members, len(devices))
    return jax.make_mesh(
        (along, len(devices) // along), ("population", "data"), axis_types=(AxisType.Auto,) * 2,
        devices=devices)


def replicated(mesh: Mesh) -> NamedSharding:
    return NamedSharding(mesh, P())


def over_data(mesh: Mesh) -> NamedSharding:
    """The leading axis is cut over the devices."""
    return NamedSharding(mesh, P("data"))


def state_shardings(mesh: Mesh, state: PyTree, fsdp: bool) -> PyTree:
    """A sharding for every leaf: replicated, or cut along its largest axis that divides (FSDP)."""
    count = mesh.shape["data"]

    def shard(leaf):
        axes = [axis for axis, size in enumerate(leaf.shape) if size >= count and size % count == 0]
        if not fsdp or not axes:
            return replicated(mesh)
        largest = max(axes, key=lambda axis: leaf.shape[axis])
        return NamedSharding(mesh, P(*[None] * largest, "data"))

    return jax.tree.map(shard, state)


def gathered(tree: PyTree, mesh: Mesh) -> PyTree:
    """Inside a program: the same arrays, whole on every device.

    So weights that are kept in parts (FSDP) come to where they are used. Left to choose, XLA cuts
    depthwise convolutions by channels instead and sends the maps of every batch around.
    """
    return jax.lax.with_sharding_constraint(tree, replicated(mesh))


def place(array: np.ndarray, sharding: NamedSharding) -> jax.Array:
    """Puts a host array, the same in every process, on the mesh."""
    return jax.make_array_from_callback(array.shape, sharding, lambda index: array[index])


def check_divisible(what: str, size: int, mesh: Mesh) -> None:
    """Raises ConfigError when `size` rows cannot lie evenly over the devices."""
    count = mesh.shape["data"]
    check.require(
        size % count == 0, what, f"a multiple of the {count} devices", size,
        f"use {max(size // count, 1) * count} or {(size // count + 1) * count}, or other devices",
    )
