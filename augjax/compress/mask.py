"""Unstructured pruning by magnitude: a mask that lives beside the weights.

The weights stay as they are; `mask` shows the network w where the mask is True and 0 elsewhere,
so a pruned weight gets no gradient and an edit of the mask edits nothing else.
"""

from collections.abc import Mapping, Sequence

import jax
import jax.numpy as jnp
import numpy as np

from augjax import check, tree
from augjax.types import Params, Transform

Masks = dict[str, jax.Array]  # {"student/stem/kernel": bool, shape of the weight}

SCOPES = ("global", "per_layer")


def mask(nets: Sequence[str] = ("student",)) -> Transform:
    """Keeps the weights whose mask is True and zeroes the others, in the networks named.

    State: {path: bool of the weight's shape} for every prunable leaf, True right after `init`
    (the identity). `params` is {net: params}; other networks pass through untouched.

    Raises ConfigError if a network is missing or has nothing to prune, or if the masks do not fit
    the weights. Source: spec C2 (the parametrisation of torch.nn.utils.prune).
    """

    def init(params: Mapping[str, Params]) -> Masks:
        return {
            path: jnp.ones(leaf.shape, bool) for path, leaf in prunable(params, nets).items()
        }

    def apply(params: Mapping[str, Params], masks: Masks) -> Mapping[str, Params]:
        _require_fit(tree.flatten(params), masks)

        def masked(path, leaf):
            if path not in masks:
                return leaf
            return jnp.where(masks[path], leaf, jnp.zeros((), leaf.dtype))

        return tree.map_with_path(masked, params)

    return Transform(init, apply)


def prunable(params: Mapping[str, Params], nets: Sequence[str]) -> dict[str, jax.Array]:
    """{path: leaf} of the convolution and linear weights: leaves named "kernel" of 2 axes or more.

    Biases and BatchNorm are excluded. Raises ConfigError if a network is missing or has none.
    Source: spec C1.
    """
    found = {}
    for net in nets:
        check.one_of("network to mask", net, params)
        weights = {
            path: leaf
            for path, leaf in tree.flatten({net: params[net]}).items()
            if path.split("/")[-1] == "kernel" and leaf.ndim >= 2
        }
        check.require(
            bool(weights), f"prunable weights of {net!r}",
            'leaves named "kernel" with 2 axes or more', "none", "name the layers' weights so",
        )
        found |= weights
    return found


def prune_l1(
    params: Mapping[str, Params], masks: Masks, sparsity: float, scope: str = "global",
    empty_layers: bool = False,
) -> Masks:
    """Masks in which `sparsity` of the weights are pruned: the present ones and the smallest |w|.

    A host function, for a phase's start: the ranking runs in NumPy. Counts are those of PyTorch:
    round(sparsity x size), half to even, pruned in all; weights pruned already stay so and do not
    compete. In PyTorch's words that is the amount (p_b - p_a) / (1 - p_a) of what remains, p_a
    being the pruned share that is really there (with the nominal one, roundings add up over a
    ladder and a layer can end a weight away from its direct pruning). Equal magnitudes: the
    lower flat index is pruned first (paths in sorted order, each in C order); PyTorch leaves
    that open.

    Args:
      params: {net: params}; leaves without a mask are not looked at.
      masks: {path: bool}, the state of `mask`; kept as they are.
      sparsity: pruned share in [0, 1) of all masked weights, not below the present one.
      scope: "global" ranks all weights together; "per_layer" each leaf alone, so each leaf
        reaches `sparsity`.
      empty_layers: permission to prune the last weight of a layer, which a global ranking may do.

    Raises ConfigError for a sparsity outside [0, 1) or below the present one (with "per_layer":
    of any leaf), an unknown scope, masks that do not fit the weights, a layer that becomes empty
    without permission, or a network that does so with it.
    Source: spec C2, torch.nn.utils.prune.l1_unstructured and global_unstructured.
    """
    check.require(
        0 <= sparsity < 1, "sparsity", "a pruned share in [0, 1)", sparsity,
        "0.6 prunes 60 % of the weights",
    )
    check.one_of("scope of pruning", scope, SCOPES)
    weights = tree.flatten(params)
    _require_fit(weights, masks)
    paths = sorted(masks)
    kept = {path: np.asarray(masks[path]) for path in paths}
    scores = {path: np.abs(np.asarray(weights[path], np.float32)) for path in paths}  # |w|
    alone = [(f"sparsity of {path}", [path]) for path in paths]
    for what, ranked in alone if scope == "per_layer" else [("sparsity of all layers", paths)]:
        flat = _without_smallest(_joined(scores, ranked), _joined(kept, ranked), sparsity, what)
        ends = np.cumsum([kept[path].size for path in ranked])
        for path, part in zip(ranked, np.split(flat, ends[:-1])):
            kept[path] = part.reshape(kept[path].shape)
    _require_left(masks, kept, sparsity, empty_layers)
    # `&` keeps the old mask's placement, so that the compiled update fits the new mask too.
    return {path: masks[path] & jnp.asarray(kept[path]) for path in masks}


def sparsity(masks: Masks) -> dict[str, float]:
    """{"total": pruned share of all masked weights, path: pruned share of that leaf}."""
    pruned = {path: value.size - int(value.sum()) for path, value in masks.items()}
    shares = {path: pruned[path] / masks[path].size for path in masks}
    return {"total": sum(pruned.values()) / sum(value.size for value in masks.values()), **shares}


def nonzero(params: Mapping[str, Params], masks: Masks) -> int:
    """Numbers left in `params` ({net: params}), biases and BatchNorm included, after masking.

    Raises ConfigError where masks do not fit the weights.
    """
    _require_fit(tree.flatten(params), masks)
    return tree.count(params) - sum(value.size - int(value.sum()) for value in masks.values())


def _joined(leaves, paths):
    """One flat copy [N] of the leaves named, in that order."""
    return np.concatenate([leaves[path].ravel() for path in paths])


def _require_left(masks, kept, sparsity, empty_layers):
    """Refuses the masks `kept` that leave nothing, and without permission, a layer that is new."""
    check.require(any(part.any() for part in kept.values()), "pruning", "weights that are left",
                  f"none at sparsity {sparsity}", "prune less")
    emptied = [path for path, part in kept.items() if np.any(masks[path]) and not part.any()]
    check.require(
        empty_layers or not emptied, "pruning", "weights that are left in every layer",
        f"none in {', '.join(emptied)} at sparsity {sparsity}",
        'prune less, choose scope="per_layer", or permit it with empty_layers=True')


def _without_smallest(scores, kept, sparsity, what):
    """`kept` [N] bool with round(sparsity N) False entries: the lowest `scores` of those kept."""
    pruned = kept.size - int(kept.sum())
    wanted = round(sparsity * kept.size) - pruned
    check.require(
        wanted >= 0, what,
        f"at least the present {pruned / kept.size}", sparsity,
        "pruned weights do not come back; start from fresh masks for less",
    )
    if wanted == 0:
        return kept
    competing = scores[kept]
    limit = np.partition(competing, wanted - 1)[wanted - 1]
    out = competing < limit
    ties = np.flatnonzero(competing == limit)  # ascending, so lower flat indices first
    out[ties[: wanted - int(out.sum())]] = True
    kept[kept] = ~out
    return kept


def _require_fit(weights, masks):
    for path, value in masks.items():
        check.one_of("mask", path, weights)
        check.require(
            weights[path].shape == value.shape, f"mask of {path}", f"shape {weights[path].shape}",
            value.shape, "make the masks from these parameters",
        )
