"""Lineages as schedules to be replayed: the rule, and the files they come in.

Published logs are PBA's authors' and role_wise_kd's; `search` writes its own schedule.json by the
same rule.
"""

import ast
from collections.abc import Sequence
import json
from typing import Any

from augjax import check
from augjax.augment.maps import PBA_OPS
from augjax.augment.pba_policies import check_schedule, VERSION

EPOCHS = 200  # of the searches on CIFAR; PBA's on SVHN had 160 (pba/scripts/search.sh)


def schedule_of_policies(
    policies: Sequence[tuple[Sequence[int], Sequence[int]]],
    donor_epochs: Sequence[int],
    epochs: int,
    lineage: Sequence[Sequence[Any]] = (),
    map: str = "autoaugment",
    ops: tuple[str, ...] = PBA_OPS,
) -> dict[str, Any]:
    """The schedule.json of what the weights of a search's winner went through, checked.

    policies        [S] pairs (probabilities [E] in tenths, levels [E]) of whole numbers, in turn
    donor_epochs    [S - 1] the epoch of the donor when it was copied and the next policy began
    epochs          of the whole search
    lineage         (trial, donor, its epoch, the donor's) of every exploit, kept as it is

    Weights go on from where the donor's stood, so a policy lasts from one donor's epoch to the
    next one's, the last to the end; a trial that never exploited has one policy. Raises
    ConfigError. Source: spec P6.
    """
    marks = [0, *donor_epochs, epochs]
    lengths = [end - begin for begin, end in zip(marks, marks[1:])]
    check.require(
        len(lengths) == len(policies) and min(lengths) >= 0, "log of a search",
        f"{len(policies)} policies whose donors' epochs rise from 0 to {epochs}",
        f"segments of {lengths} epochs", "give a winner's log and the epochs of its whole search",
    )
    schedule = {
        "version": VERSION, "map": map, "ops": list(ops), "epochs": epochs,
        "segments": [{"epochs": length, "probabilities": [number / 10 for number in probabilities],
                      "levels": list(levels)}
                     for length, (probabilities, levels) in zip(lengths, policies)],
        "lineage": [list(record) for record in lineage],
    }
    check_schedule(schedule)
    return schedule


def parse_schedule(text: str, searched_epochs: int = EPOCHS) -> dict[str, Any]:
    """The schedule in the text of a schedule.json or a published log, checked.

    A log, which does not carry it, takes the length of its search from `searched_epochs`: 200 on
    CIFAR, 160 on SVHN. Raises ConfigError.
    """
    if text.startswith("["):
        return schedule_of_log(text, searched_epochs)
    try:
        schedule = json.loads(text)
    except json.JSONDecodeError as error:
        raise check.ConfigError(check.sentence(
            "schedule", "JSON", f"{error.msg} in line {error.lineno}",
            "give the schedule.json that a search wrote")) from error
    check_schedule(schedule)
    return schedule


def schedule_of_log(text: str, epochs: int = EPOCHS) -> dict[str, Any]:
    """The schedule.json of a winner's log, checked.

    A line of the log is what one exploit left: (trial, the one it was copied from, its epoch, that
    one's epoch, policy before, policy after), a policy being 60 whole numbers, tenths of a
    probability and a level in turn, in the order of maps.PBA_OPS twice.

    The trial of a line should be the donor of the next. role-kd's published log breaks this twice:
    trial 8 was copied from trial 2 at epoch 48 and again at 57, where trial 2 still did no
    operation, but the lines above are an older past of trial 8. Read as it is published.

    Args:
      text: a file of pba/schedules, or a pbt_policy file of role-kd's results.
      epochs: of the whole search, which a log does not carry.

    Raises ConfigError for anything else. Source: spec P1 and P6.
    """
    try:
        records = [_record(line) for line in text.splitlines() if line.strip()]
        policies = [_policy(records[0][4]), *(_policy(record[5]) for record in records)]
        donor_epochs = [int(record[3]) for record in records]
    except (IndexError, KeyError, SyntaxError, TypeError, ValueError) as error:
        raise _refused(repr(error)[:100]) from error
    return schedule_of_policies(
        policies, donor_epochs, epochs, [record[:4] for record in records])


def _record(line):
    """role-kd's lines are JSON, PBA's Python."""
    return json.loads(line) if line.startswith('["') else ast.literal_eval(line)


def _policy(found):
    """(probabilities [30] in tenths, levels [30])."""
    policy = found["hp_policy"] if isinstance(found, dict) else found
    check.require(len(policy) == 4 * len(PBA_OPS), "policy of the log",
                  f"{4 * len(PBA_OPS)} numbers", len(policy), "give a published log")
    return policy[::2], policy[1::2]


def _refused(came: str) -> check.ConfigError:
    return check.ConfigError(check.sentence(
        "log of a PBA search", "lines (trial, donor, epoch, epoch, policy, policy)", came,
        "give a file of pba/schedules or a pbt_policy file of role-kd"))
