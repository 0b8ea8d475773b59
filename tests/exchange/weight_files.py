"""Files of weights as others would write them, made without PyTorch: a tree of ours, renamed."""

from pathlib import Path

import jax
import numpy as np
from safetensors.numpy import save_file

from augjax import exchange, models, tree
from augjax.exchange import names

CLASSES, SIZE = 10, 16  # of the digits


def drawn(name="resnet8", classes=CLASSES, size=SIZE, **options):
    """(params, stats) of one of our networks, every number drawn."""
    net = models.build(name, classes, (size, size, 3), (0.5,) * 3, (0.25,) * 3, **options)
    shapes = jax.eval_shape(net.init, jax.random.key(0))
    draw = np.random.Generator(np.random.Philox(3))

    def value(path, leaf):
        low = {"scale": 0.5, "var": 0.5, "kernel": -0.2}.get(path.rsplit("/", 1)[1], -0.3)
        return draw.uniform(low, low + 1 if low > 0 else -low, leaf.shape).astype(np.float32)

    return tuple(tree.map_with_path(value, part) for part in shapes)


def in_torch_names(variables, rules) -> dict[str, np.ndarray]:
    """{their tensor: array in PyTorch's layout} of our (params, stats)."""
    leaves = {**tree.flatten(variables[0]), **tree.flatten(variables[1])}
    found = {}
    for path, name in names.their_names(list(leaves), rules, names.TORCH).items():
        array = leaves[path]
        if array.ndim == 4:  # [k, k, I, O] -> [O, I, k, k]
            array = np.moveaxis(array, (3, 2), (0, 1))
        elif path.endswith("kernel"):
            array = array.T
        found[name] = np.ascontiguousarray(array if path.endswith("kernel") else array.ravel())
    return found


def tensors_of(model="resnet8", source="repdistiller", **options) -> dict[str, np.ndarray]:
    row = exchange.find(source, model)
    return in_torch_names(drawn(row.ours, **options), row.rules)


def written(path: Path, tensors=None) -> Path:
    save_file(tensors or tensors_of(), path)
    return path
