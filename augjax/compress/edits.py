"""What is done once to a phase's start: pruning to a target, setting the number of bits."""

from dataclasses import dataclass, replace

from augjax import check
from augjax.compress.dorefa import FULL, set_bits
from augjax.compress.mask import prune_l1, SCOPES
from augjax.types import Edit, Start


@dataclass(frozen=True)
class Pruning:
    """The edit that `prune_to` makes; its fields tell, before it is done, how sparse a phase is."""

    sparsity: float
    scope: str
    empty_layers: bool

    def __call__(self, start: Start) -> Start:
        masks = prune_l1(start.params, start.transform["mask"], self.sparsity, self.scope,
                         self.empty_layers)
        return replace(start, transform={**start.transform, "mask": masks})


def prune_to(sparsity: float, scope: str = "global", empty_layers: bool = False) -> Pruning:
    """Prunes by |w| until `sparsity` of the weights are gone; the Transform must be named "mask".

    Raises ConfigError for a sparsity outside [0, 1) or an unknown scope, and when it is done for
    a sparsity below the present one or a layer that is left without weights, unless `empty_layers`
    permits that. Source: spec C2 (`prune_l1`).
    """
    check.require(0 <= sparsity < 1, "sparsity", "a pruned share in [0, 1)", sparsity,
                  "0.6 prunes 60 % of the weights")
    check.one_of("scope of pruning", scope, SCOPES)
    return Pruning(sparsity, scope, empty_layers)


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
