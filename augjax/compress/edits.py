"""What is done once to a phase's start: pruning to a target, setting the number of bits."""

from dataclasses import replace

from augjax import check
from augjax.compress.dorefa import FULL, set_bits
from augjax.compress.mask import prune_l1, SCOPES
from augjax.types import Edit, Start


def prune_to(sparsity: float, scope: str = "global") -> Edit:
    """Prunes by |w| until `sparsity` of the weights are gone; the Transform must be named "mask".

    Raises ConfigError for a sparsity outside [0, 1) or an unknown scope, and when it is done for
    one below the present one. Source: spec C2 (`prune_l1`).
    """
    check.require(0 <= sparsity < 1, "sparsity", "a pruned share in [0, 1)", sparsity,
                  "0.6 prunes 60 % of the weights")
    check.one_of("scope of pruning", scope, SCOPES)

    def edit(start: Start) -> Start:
        masks = prune_l1(start.params, start.transform["mask"], sparsity, scope)
        return replace(start, transform={**start.transform, "mask": masks})

    return edit


def quantise_to(bits: int) -> Edit:
    """Sets the bits of the weights; the Transform must be named "dorefa".

    Raises ConfigError for other than 1 to 32. Source: spec C6 (`dorefa`).
    """
    check.require(bits in range(1, FULL + 1), "bits", f"a whole number from 1 to {FULL}", bits,
                  "32 is no quantiser")

    def edit(start: Start) -> Start:
        state = set_bits(start.transform["dorefa"], bits)
        return replace(start, transform={**start.transform, "dorefa": state})

    return edit
