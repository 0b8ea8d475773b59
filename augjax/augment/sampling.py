"""A few RandAugment settings drawn once, before training: A2-Aug's candidates."""

from itertools import product

import numpy as np

from augjax import check

SPACES = {  # (num_layers, magnitude on torchvision's scale)
    "1-3x1-30": tuple(product(range(1, 4), map(float, range(1, 31)))),
    "10x10": tuple(product(range(1, 11), map(float, range(3, 31, 3)))),
}


def sample_augmentations(count: int, seed: int, space: str = "1-3x1-30"
                         ) -> tuple[tuple[int, float], ...]:
    """`count` different (num_layers, magnitude) of a space, in the order drawn.

    Drawn on the host from Philox(seed), the same on every machine; more of them begin with the
    fewer. The spaces are 1 to 3 operations at magnitudes 1 to 30, or 1 to 10 at 3, 6, ..., 30 of
    torchvision's map.

    Raises ConfigError for an unknown space or more settings than it has.
    Source: a2_aug sections 3 and 5 (whose space is RandAugment's, "10^2"); spec A5.
    """
    settings = SPACES[check.one_of("space of augmentations", space, SPACES)]
    check.require(1 <= count <= len(settings), "count of augmentations",
                  f"1 to {len(settings)}, as many as the space {space!r} has", count, "draw fewer")
    check.require(0 <= seed < 2**64, "seed of augmentations", "0 to 2**64 - 1", seed, "choose such")
    bits = np.random.Philox(key=np.array([seed, 0], np.uint64)).random_raw(len(settings))
    return tuple(settings[place] for place in np.argsort(bits, kind="stable")[:count])
