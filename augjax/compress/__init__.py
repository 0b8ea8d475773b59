"""Parameters in, parameters out: masks that prune, quantisers of few bits."""

from augjax.compress.dorefa import dorefa, quantise_activations, set_bits, within_mask
from augjax.compress.edits import prune_to, Pruning, quantise_to
from augjax.compress.mask import mask, nonzero, prunable, prune_l1, sparsity

__all__ = [
    "dorefa", "mask", "nonzero", "prunable", "prune_l1", "prune_to", "Pruning",
    "quantise_activations", "quantise_to", "set_bits", "sparsity", "within_mask",
]
