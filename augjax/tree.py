"""Trees by path: "stem/conv/kernel" instead of nested dictionaries, and rules that name leaves."""

from collections.abc import Callable, Mapping
from fnmatch import fnmatchcase
import hashlib
from typing import Any

import jax
import numpy as np

PyTree = Any


def path_of(keys: tuple) -> str:
    """JAX's key path as "a/b/c"."""
    def name(key):  # of a dictionary, a record or a tuple
        return getattr(key, "key", getattr(key, "name", getattr(key, "idx", key)))

    return "/".join(str(name(key)) for key in keys)


def flatten(tree: PyTree) -> dict[str, Any]:
    """{path: leaf}, in JAX's (sorted) order."""
    return {path_of(keys): leaf for keys, leaf in jax.tree_util.tree_leaves_with_path(tree)}


def map_with_path(function: Callable[..., Any], tree: PyTree, *rest: PyTree) -> PyTree:
    """Like `jax.tree.map`, with the path as the first argument."""
    return jax.tree_util.tree_map_with_path(
        lambda keys, *leaves: function(path_of(keys), *leaves), tree, *rest
    )


def matches(path: str, patterns: tuple[str, ...]) -> bool:
    """Whether a path fits one of the glob patterns; "*" also crosses "/"."""
    return any(fnmatchcase(path, pattern) for pattern in patterns)


def without(tree: Mapping, patterns: tuple[str, ...], path: str = "") -> dict:
    """Nested dictionaries without the leaves that fit a pattern, nor what then is empty."""
    kept = {}
    for name, part in tree.items():
        here = f"{path}{name}"
        if isinstance(part, Mapping):
            part = without(part, patterns, f"{here}/")
            if part:
                kept[name] = part
        elif not matches(here, patterns):
            kept[name] = part
    return kept


def digest(tree: Mapping) -> str:
    """SHA-256 over sorted path, dtype, shape and bytes of every leaf (DESIGN section 8)."""
    sha = hashlib.sha256()
    for path, leaf in sorted(flatten(tree).items()):
        array = np.asarray(leaf)
        sha.update(f"{path} {array.dtype} {array.shape}\n".encode())
        sha.update(np.ascontiguousarray(array).tobytes())
    return sha.hexdigest()


def count(tree: PyTree) -> int:
    """Numbers in all leaves together."""
    return sum(int(np.prod(leaf.shape)) for leaf in jax.tree.leaves(tree))
