"""CRC-32C, which tfrecord files carry, at NumPy's speed.

The polynomial is Castagnoli's, reflected: 0x82F63B78 (RFC 3720, appendix B.4, has check values).
A CRC is linear over GF(2), so lanes of a record are folded side by side and then joined in pairs.
"""

import functools

import numpy as np

_LANE = 16  # bytes; longer lanes are slower, for images of 100 kB as for records of 350 B


def crc32c(data: bytes) -> int:
    """The CRC-32C of some bytes, 0..2**32 - 1."""
    table = _zeros(1)[0]
    if len(data) < _LANE:
        state = 0xFFFFFFFF
        for byte in data:
            state = int(table[(state ^ byte) & 255]) ^ state >> 8
        return state ^ 0xFFFFFFFF
    lanes = 1 << max(0, (len(data) - 1) // _LANE).bit_length()
    padded = np.zeros(lanes * _LANE, np.uint8)  # zeros in front leave a state of zero as it is
    start = len(padded) - len(data)
    padded[start:] = np.frombuffer(data, np.uint8)
    padded[start : start + 4] ^= 255  # the same as starting with all bits set
    state = np.zeros(lanes, np.uint32)
    for column in np.ascontiguousarray(padded.reshape(lanes, _LANE).T):
        state = table[(state ^ column) & 255] ^ state >> 8
    length = _LANE
    while len(state) > 1:
        state = _advance(_zeros(length), state[0::2]) ^ state[1::2]
        length *= 2
    return int(state[0]) ^ 0xFFFFFFFF


def masked(crc: int) -> int:
    """A CRC as tfrecord stores it: turned right by 15 bits, plus a constant."""
    return ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF


def _advance(tables: np.ndarray, state: np.ndarray) -> np.ndarray:
    """[n] states after the zero bytes that [4, 256] `tables` stand for."""
    result = tables[0][state & 255]
    for byte in (1, 2, 3):
        result = result ^ tables[byte][state >> 8 * byte & 255]
    return result


@functools.lru_cache(maxsize=32)
def _zeros(count: int) -> np.ndarray:
    """[4, 256] uint32: what each byte of a state becomes after `count` (a power of 2) zeros."""
    if count > 1:
        half = _zeros(count // 2)
        return np.stack([_advance(half, row) for row in half])
    states = np.arange(256, dtype=np.uint32) << 8 * np.arange(4, dtype=np.uint32)[:, None]
    one = np.arange(256, dtype=np.uint32)
    for _ in range(8):
        one = one >> 1 ^ (one & 1) * np.uint32(0x82F63B78)
    return one[states & 255] ^ states >> 8
