"""What a compiled program sends between devices, read from its text; and whether that is a batch.

The text is XLA's (`compiled.as_text()`), which names shapes per device, not what they hold.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
import math
import re

import jax

from augjax import check
from augjax.types import PyTree

KINDS = ("all-reduce", "all-gather", "reduce-scatter", "all-to-all", "ragged-all-to-all",
         "collective-permute", "collective-broadcast")
PARTS = ("all-to-all", "ragged-all-to-all", "collective-permute")  # each device has its own
VIEWS = 16  # no update has more
SHARE = 1 / 8  # of the batch's images: below it lie logits and pooled features, above it maps

Array = tuple[str, tuple[int, ...]]  # dtype as XLA writes it, dimensions

_COMPUTATION = re.compile(r"^(?:ENTRY )?%?([\w.\-]+) (?:\(.*\) -> .*)?\{$")
_COLLECTIVE = re.compile(rf'^\s*(?:ROOT )?%?[\w.\-]+ = ([^%"]*?) ({"|".join(KINDS)})(-start)?\(')
_CALLED = re.compile(
    r"\b(body|condition|calls|to_apply|branch_computations|called_computations|"
    r"true_computation|false_computation)=(\{[^}]*\}|%?[\w.\-]+)")
_TRIPS = re.compile(r'"?known_trip_count"?:\{"?n"?:"?(\d+)')
_ARRAY = re.compile(r"\b([a-z]\w*)\[([\d,]*)\]")
_GROUPS = re.compile(r"replica_groups=(?:\{\{([\d,]+)\}|\[\d+,(\d+)\]|mesh\[(.*?)\] ?\{(.*?)\})")
_AXIS = re.compile(r"'(\w+)'(?:=|:\(\d+\))?(\d*)")
_DIMENSION = re.compile(r" dimensions=\{(\d+)")
_WHERE = re.compile(r'op_name="([^"]*)"')


@dataclass(frozen=True)
class Collective:
    """One instruction that sends between devices."""

    kind: str  # of KINDS
    arrays: tuple[Array, ...]  # whole, as a device of the group has them at the larger end
    devices: int  # of a group
    times: int  # per step: in a loop its rounds, 1 where the compiler does not know them
    where: str  # the operation it was made for, by JAX's name; "" where XLA does not say

    @property
    def bytes(self) -> int:
        """Of its arrays, once."""
        return sum(map(array_bytes, self.arrays))

    @property
    def whole(self) -> int:
        """Bytes of the arrays that take part in a step, all devices together: an all-to-all and
        what hands on move a part of them on every device."""
        parts = self.devices if self.kind in PARTS else 1
        return self.bytes * self.times * parts

    @property
    def sent(self) -> float:
        """Bytes that a device sends in a step, if the group is a ring: (n - 1) / n of the arrays,
        twice for an all-reduce, and all of them where they are handed on or broadcast."""
        share = (self.devices - 1) / self.devices
        if self.kind in ("collective-permute", "collective-broadcast"):
            share = 1.0
        return self.bytes * self.times * share * (2 if self.kind == "all-reduce" else 1)


def collectives(text: str, devices: int) -> tuple[Collective, ...]:
    """The collectives of a compiled program for so many devices, in the order of its text.

    An asynchronous one counts where it starts; one inside a loop counts for every round.
    """
    rounds = _rounds(text)
    found = []
    for computation, line in _lines(text):
        match = _COLLECTIVE.match(line)
        if match and rounds.get(computation, 1):
            types, kind, start = match.groups()
            size = _group(line, devices)
            where = _WHERE.search(line)
            arrays = _arrays(types, kind, bool(start), size, line)
            found.append(Collective(kind, arrays, size, rounds.get(computation, 1),
                                    where[1] if where else ""))
    return tuple(one for one in found if one.devices > 1)


def array_bytes(array: Array) -> int:
    """Bytes of an array; types of less than a byte as whole ones."""
    dtype, shape = array
    bits = re.search(r"\d+", dtype)  # none: pred
    return math.prod(shape) * (max(int(bits[0]) // 8, 1) if bits else 1)


def of_rows(found: Iterable[Collective], state: PyTree, batch_size: int
            ) -> tuple[Collective, ...]:
    """What is left of collectives without the arrays that are shaped as a leaf of `state` (which
    holds whatever networks and optimisers keep; their gradients and statistics have such shapes).

    Shapes are compared without their order and without ones: XLA may transpose what it sends. One
    axis of up to `VIEWS` may come on top: statistics of several views are [views, C]. What
    goes round in parts (gradients do, under FSDP on TPUs) may be a leaf cut along one axis.
    """
    known = {_form(leaf.shape) for leaf in jax.tree.leaves(state)}

    def kept(form, parts):
        forms = [form] + [form[:n] + form[n + 1:] for n, size in enumerate(form)
                          if size < batch_size and size <= VIEWS]
        if parts > 1:
            padded = (1, *form)
            forms += [_form((*padded[:n], size * parts, *padded[n + 1:]))
                      for n, size in enumerate(padded)]
        return any(one in known for one in forms)

    left = []
    for one in found:
        parts = one.devices if one.kind in PARTS else 1
        arrays = tuple(array for array in one.arrays if not kept(_form(array[1]), parts))
        if arrays:
            left.append(Collective(one.kind, arrays, one.devices, one.times, one.where))
    return tuple(left)


def most(batch_size: int, image_shape: tuple[int, ...]) -> float:
    """Bytes of rows that a step may send before it is said to gather its batch."""
    return SHARE * batch_size * math.prod(image_shape)


def check_stays(phase: str, rows: Iterable[Collective], batch_size: int,
                image_shape: tuple[int, ...]) -> None:
    """Raises ConfigError where a step gathers its batch.

    The rule: take all collectives of whatever kind (XLA also gathers by an all-reduce of rows that
    are zero elsewhere, or hands shards round), leave out arrays shaped as a leaf of the state or of
    the frozen networks (`of_rows`: gradients, statistics, what FSDP cuts), and add up the rest
    over a step, all devices' parts together (`Collective.whole`). That must stay below an eighth
    (`SHARE`) of the global batch's images in uint8, one view of each: B H W C / 8. It allows
    scores, labels, logits and pooled features of ImageNet networks, and refuses images and feature
    maps, in one piece or in many. Two limits: an array of rows that is shaped as a leaf, its axes
    in any order, is not seen; and where images are small, as CIFAR's are, pooled features may be an
    eighth of them too.
    """
    rows = tuple(rows)
    total = sum(one.whole for one in rows)
    allowed = most(batch_size, image_shape)
    if total >= allowed:
        largest = max(rows, key=lambda one: one.whole)
        check.require(
            False, f"{phase}: rows that cross devices", f"less than {allowed / 1e6:.3g} MB a step",
            f"{total / 1e6:.3g} MB, the most by {described(largest)}",
            "take the rule per_device for pairs and picks, or a term that compares no rows")


def described(one: Collective) -> str:
    """In words: "all-gather of u8[64,32,32,3] (gather)"."""
    dtype, shape = max(one.arrays, key=array_bytes)
    more = f" and {len(one.arrays) - 1} more" if len(one.arrays) > 1 else ""
    times = f", {one.times} times" if one.times > 1 else ""
    where = one.where.rsplit("/", 1)[-1]
    where = f" ({where if '(' in where else where.rstrip(')')})" if where else ""
    return f"{one.kind} of {dtype}[{','.join(map(str, shape))}]{more}{times}{where}"


def _form(shape: Iterable[int]) -> tuple[int, ...]:
    return tuple(sorted(size for size in shape if size != 1))


def _group(line: str, devices: int) -> int:
    """Devices of a group: of {{0,1},{2,3}}, of [2,2]<=[4], of mesh['a'=2,'b'=2] {'b'}; else all."""
    groups = _GROUPS.search(line)
    if groups is None:
        return devices
    listed, size, axes, named = groups.groups()
    if axes is None:
        return int(size) if size else listed.count(",") + 1
    sizes = dict(_AXIS.findall(axes))
    return math.prod(int(part or sizes[name]) for name, part in _AXIS.findall(named))


def _arrays(types: str, kind: str, start: bool, devices: int, line: str
            ) -> tuple[Array, ...]:
    """Arrays at the larger end. The type of a start is (operands, results, contexts of 4 bytes),
    but that of an all-reduce's start the results alone."""
    arrays = [(dtype, tuple(int(size) for size in sizes.split(",") if size))
              for dtype, sizes in _ARRAY.findall(re.sub(r"\{[^{}]*\}", "", types))]
    if start and kind != "all-reduce":
        while len(arrays) > 2 and arrays[-1] in (("u32", ()), ("s32", ())):
            arrays.pop()
        half = len(arrays) // 2
        ends = arrays[:half], arrays[half:]
        return tuple(max(ends, key=lambda end: sum(map(array_bytes, end))))
    if kind == "reduce-scatter":
        axis = int(_DIMENSION.search(line)[1])
        return tuple((dtype, (*shape[:axis], devices * shape[axis], *shape[axis + 1:]))
                     for dtype, shape in arrays)
    return tuple(arrays)


def _lines(text: str) -> Iterator[tuple[str, str]]:
    """(computation, line)."""
    name = ""
    for line in text.splitlines():
        head = _COMPUTATION.match(line)
        if head:
            name = head[1]
        yield name, line


def _rounds(text: str) -> dict[str, int]:
    """How often a step runs each computation; those of branches all count."""
    callers: dict[str, list[tuple[str, int]]] = {}
    for name, line in _lines(text):
        for role, called in _CALLED.findall(line):
            trips = _TRIPS.search(line) if role == "body" else None
            for one in re.findall(r"[\w.\-]+", called):
                callers.setdefault(one, []).append((name, int(trips[1]) if trips else 1))
    known: dict[str, int] = {}

    def rounds(name: str) -> int:
        if name not in known:
            known[name] = sum(
                times * rounds(caller) for caller, times in callers.get(name, [])) or 1
        return known[name]

    for name in callers:
        rounds(name)
    return known
