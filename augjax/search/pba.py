"""Population based augmentation, what the host decides: explore, exploit, lineage, winner.

Everything is a pure function on whole numbers; what is random is drawn from Philox's raw stream by
(search's seed, purpose, decision, member), so a resumed search repeats itself without any kept
state and no member's draws depend on another's. Source: Ho et al. 2019; spec P1, P3, P4, P6.

One deviation from the published searches, for determinism (spec P4): all members train to the same
epoch, then all are ranked once; so the epochs of a target and its donor are equal.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
import math
from typing import Any

import numpy as np

from augjax import augment, check
from augjax.augment.maps import PBA_OPS

ENTRIES = 30  # two of every operation
TENTHS, LEVEL = 10, 9  # the highest numbers
RESAMPLE, STEP = 0.2, 3  # P3: the chance of a fresh number; else a step of 0..3
QUANTILE = 0.25  # P4
MOST = 10_000  # members

Scores = Sequence[float] | np.ndarray  # [P], the higher the better

_SEARCHES = 2  # last counter word of Philox; epochs' orders use 0, random crops 1
_EXPLOIT, _EXPLORE = 0, 1  # purposes


@dataclass(frozen=True)
class Policy:
    """A policy in whole numbers, entries as `augment.pba` orders them."""

    probabilities: tuple[int, ...]  # [E] tenths, 0..10
    levels: tuple[int, ...]  # [E] 0..9


@dataclass(frozen=True)
class Exploit:
    """Member `target` took over the donor's weights and a changed form of its policy."""

    target: int
    donor: int
    epoch: int  # of the target; the epochs trained so far
    donor_epoch: int
    before: Policy  # the donor's
    after: Policy  # the target's from here on


Log = tuple[Exploit, ...]  # what a member's weights went through, oldest first


@dataclass(frozen=True)
class Decision:
    """What follows from an interval's scores; member i goes on from member donors[i]."""

    donors: np.ndarray  # [P] int64
    policies: tuple[Policy, ...]  # [P]
    logs: tuple[Log, ...]  # [P]


def check_population(size: int) -> None:
    """Raises ConfigError for fewer members than an exploit needs, or more than any host holds."""
    check.require(
        isinstance(size, int) and size >= 2, "population of a search", "at least 2 members", size,
        "PBA has 16; one member alone is a plain training run",
    )
    check.require(size <= MOST, "population of a search", f"at most {MOST:,} members", size,
                  "PBA has 16")


def check_quantile(quantile: float) -> None:
    """Raises ConfigError for a share of members that cannot both follow and be followed."""
    check.require(0 < quantile <= 0.5, "quantile of exploit", "above 0 and at most 0.5", quantile,
                  "PBA's is 0.25")


def start_policies(size: int, entries: int = ENTRIES) -> tuple[Policy, ...]:
    """What every member begins with: no operation is ever done. Source: spec P1."""
    check_population(size)
    return (Policy((0,) * entries, (0,) * entries),) * size


def knobs(policies: Sequence[Policy]) -> tuple[np.ndarray, np.ndarray]:
    """([P, E] float32 probabilities, [P, E] float32 levels): a row is what `augment.pba` takes."""
    probabilities = np.array([policy.probabilities for policy in policies])
    levels = np.array([policy.levels for policy in policies])
    return np.float32(probabilities / 10), np.float32(levels)


# --- decisions -----------------------------------------------------------------------------------


def explore(generator: np.random.BitGenerator, policy: Policy) -> Policy:
    """A changed policy: every one of its numbers by itself. Takes 6 E words of the raw stream.

    With a chance of 0.2 a number is drawn afresh, uniformly from its range; else it moves by a
    step of 0..3, down or up with equal chances, and stops at the ends of its range. Source: P3.
    """
    numbers = np.array([policy.probabilities, policy.levels])  # [2, E]
    highest = np.array([[TENTHS], [LEVEL]])
    chance, amount, side = generator.random_raw(3 * numbers.size).reshape(3, *numbers.shape)
    fresh = (chance >> np.uint64(11)) * 2.0**-53 < RESAMPLE
    drawn = (amount % (highest + 1).astype(np.uint64)).astype(np.int64)
    step = (amount % np.uint64(STEP + 1)).astype(np.int64)
    down = side % np.uint64(2) == 0
    moved = np.clip(np.where(down, numbers - step, numbers + step), 0, highest)
    probabilities, levels = np.where(fresh, drawn, moved).tolist()
    return Policy(tuple(probabilities), tuple(levels))


def exploit(
    scores: Scores, generator: np.random.BitGenerator, quantile: float = QUANTILE
) -> np.ndarray:
    """[P] scores, the higher the better -> [P] int64, whom each member goes on from: most, itself.

    The lowest q = ceil(quantile P) members, at most half of all, each take one of the highest q,
    drawn uniformly. Of equal scores the lower member ranks higher, as with `winner`; a score that
    is no number ranks lowest and is followed by nobody: if fewer than q have a number, those. A
    member alone goes on, as all do without any number. Word i of the raw stream is member i's.
    Source: spec P4, its synchronous form.
    """
    check_quantile(quantile)
    ranked = _ranked(scores)
    size = len(ranked)
    donors = np.arange(size)
    moving = min(math.ceil(quantile * size), size // 2)  # q
    able = min(moving, int(np.sum(~np.isnan(np.asarray(scores, float)))))
    if able:
        lowest = ranked[-moving:]
        words = generator.random_raw(size)
        donors[lowest] = ranked[(words[lowest] % np.uint64(able)).astype(np.int64)]
    return donors


def decide(
    policies: Sequence[Policy],
    logs: Sequence[Log],
    scores: Scores,
    epoch: int,
    seed: int,
    decision: int,
    quantile: float = QUANTILE,
) -> Decision:
    """What a population does after an interval; a function of its arguments alone.

    policies, logs, scores    [P] of every member
    epoch                     the epochs that all members have trained
    seed, decision            the search's seed and how many decisions it took before this one

    A target gets the donor's policy explored, and the donor's log with this exploit at its end in
    place of its own. The others keep theirs. Raises ConfigError for a population that is too small,
    and unless every member has a log and a score. Source: spec P4, P6.
    """
    check_population(len(policies))
    check.require(
        len(policies) == len(logs) == len(scores), "decision of a search",
        f"a log and a score for each of {len(policies)} members",
        f"{len(logs)} logs and {len(scores)} scores", "give those of all members",
    )
    donors = exploit(scores, _stream(seed, _EXPLOIT, decision), quantile)
    new_policies, new_logs = list(policies), list(logs)
    for target, donor in enumerate(donors.tolist()):
        if donor != target:
            after = explore(_stream(seed, _EXPLORE, decision, target), policies[donor])
            new = Exploit(target, donor, epoch, epoch, policies[donor], after)
            new_policies[target], new_logs[target] = after, (*logs[donor], new)
    return Decision(donors, tuple(new_policies), tuple(new_logs))


def winner(scores: Scores) -> int:
    """The member with the highest final score; of equal ones the lowest. Raises NumericsError."""
    check.require(
        not np.isnan(np.asarray(scores, float)).all(), "scores of a search", "a number", "none",
        "train with a lower learning rate", check.NumericsError,
    )
    return int(_ranked(scores)[0])


def _ranked(scores):
    """[P] members, best first."""
    values = np.asarray(scores, float)
    return np.lexsort((np.arange(len(values)), -values, np.isnan(values)))


def _stream(seed, purpose, decision, member=0):
    check.require(
        0 <= seed < 2**64 and decision >= 0, "search",
        "a seed from 0 to 2**64 - 1 and a decision from 0 on", (seed, decision), "count from 0",
    )
    return np.random.Philox(key=np.array([seed, decision], np.uint64),
                            counter=np.array([0, member, purpose, _SEARCHES], np.uint64))


# --- lineage -------------------------------------------------------------------------------------


def schedule_of_lineage(
    log: Log,
    last_policy: Policy,
    epochs: int,
    map: str = "autoaugment",
    ops: tuple[str, ...] = PBA_OPS,
) -> dict[str, Any]:
    """The schedule.json of a member: what its weights went through, for `augment.replay`.

    log            the member's; empty if it never exploited: one segment
    last_policy    the member's at the end
    epochs         of the whole search

    Raises ConfigError for a log whose exploits do not follow from each other. Source: spec P6.
    """
    for number, (one, following) in enumerate(zip(log, log[1:])):
        check.require(
            one.target == following.donor and one.after == following.before,
            f"log of a search: exploit {number + 1}",
            f"donor {one.target} with the policy it got before",
            f"donor {following.donor}" + ", the policy is another" * (
                one.after != following.before),
            "give the log of one member as `decide` left it",
        )
    check.require(
        not log or log[-1].after == last_policy, "log of a search", "an end with the last policy",
        "another policy", "give log and policy of the same member",
    )
    policies = [*(one.before for one in log[:1]), *(one.after for one in log)] or [last_policy]
    return augment.schedule_of_policies(
        [(policy.probabilities, policy.levels) for policy in policies],
        [one.donor_epoch for one in log], epochs,
        [(one.target, one.donor, one.epoch, one.donor_epoch) for one in log], map, ops,
    )


# --- the file that a search is resumed from ------------------------------------------------------


def to_json(policies: Sequence[Policy], logs: Sequence[Log]) -> dict[str, Any]:
    """Policies and logs of all members as plain data that JSON keeps, for `from_json`."""
    return {"policies": [_plain(policy) for policy in policies],
            "logs": [[{**vars(one), "before": _plain(one.before), "after": _plain(one.after)}
                      for one in log] for log in logs]}


def _plain(policy):
    return {"probabilities": list(policy.probabilities), "levels": list(policy.levels)}


def from_json(found: Mapping[str, Any]) -> tuple[tuple[Policy, ...], tuple[Log, ...]]:
    """(policies [P], logs [P]) of `to_json`. Raises CheckpointError for anything else."""
    try:
        policies = tuple(_policy_of(block) for block in found["policies"])
        logs = tuple(tuple(
            Exploit(**{**one, "before": _policy_of(one["before"]),
                       "after": _policy_of(one["after"])}) for one in log)
            for log in found["logs"])
    except (AttributeError, KeyError, TypeError) as error:
        raise check.CheckpointError(check.sentence(
            "state of a search", "policies and logs", repr(error)[:100],
            "resume from what `to_json` wrote")) from error
    check.require(
        len(policies) == len(logs), "state of a search", "a log for every policy",
        f"{len(policies)} policies and {len(logs)} logs", "resume from what `to_json` wrote",
        check.CheckpointError,
    )
    return policies, logs


def _policy_of(block):
    policy = Policy(**{field: tuple(numbers) for field, numbers in block.items()})
    for field, highest in (("probabilities", TENTHS), ("levels", LEVEL)):
        numbers = getattr(policy, field)
        check.require(
            all(isinstance(number, int) and 0 <= number <= highest for number in numbers),
            f"state of a search: {field}", f"whole numbers from 0 to {highest}", list(numbers),
            "resume from what `to_json` wrote", check.CheckpointError,
        )
    return policy
