"""Parameters in, parameters out: masks that prune."""

from augjax.compress.mask import mask, nonzero, prunable, prune_l1, sparsity

__all__ = ["mask", "nonzero", "prunable", "prune_l1", "sparsity"]
