"""Which image comes when: the order of an epoch, and class-stratified choices.

Everything is a function of its arguments, on the host, and rests on Philox's raw bits alone, whose
stream NumPy guarantees, so that the order is the same on every machine, NumPy version and number
of devices, for data on the device and data fed by the host.
"""

import numpy as np

from augjax import check

_CHOICE = 2**63  # Philox's second key word for choices; epochs use their own number


def order(seed: int, epoch: int, size: int) -> np.ndarray:
    """One epoch's order: [size] int32, a permutation of 0..size-1, from Philox(seed, epoch).

    Raises ConfigError for an epoch below 0 and a seed outside 0..2**64 - 1.
    """
    check.require(
        0 <= epoch < _CHOICE, "order", "an epoch from 0 on", epoch, "count epochs from 0"
    )
    return _permutation(seed, epoch, size)


def stratified(labels: np.ndarray, count: int, seed: int = 0) -> np.ndarray:
    """`count` positions, in rising order, that keep the shares of the classes: [count] int32.

    A class of share s gets floor(s count) or one more (largest remainders first), drawn by `seed`.
    Of `labels` [N] of integers. Raises ConfigError for a count outside 0..N or such a seed as in
    `order`.
    """
    size = len(labels)
    check.require(
        0 <= count <= size, "stratified choice", f"a count from 0 to {size}", count,
        "ask for no more images than there are",
    )
    present, sizes = np.unique(labels, return_counts=True)
    quotas = count * sizes
    shares, rests = quotas // size, quotas % size
    shares[np.argsort(-rests, kind="stable")[: count - shares.sum()]] += 1
    drawn = _permutation(seed, _CHOICE, size)
    picked = [drawn[labels[drawn] == label][:share] for label, share in zip(present, shares)]
    return np.sort(np.concatenate(picked)).astype(np.int32)


def _permutation(seed: int, stream: int, size: int) -> np.ndarray:
    check.require(
        0 <= seed < 2**64, "order", "a seed from 0 to 2**64 - 1", seed, "choose such a seed"
    )
    bits = np.random.Philox(key=np.array([seed, stream], np.uint64)).random_raw(size)
    return np.argsort(bits, kind="stable").astype(np.int32)
