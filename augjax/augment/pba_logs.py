"""The lineages that PBA's authors and role_wise_kd's published, as schedules to be replayed."""

import ast
import json
from typing import Any

from augjax import check
from augjax.augment.maps import PBA_OPS
from augjax.augment.pba_policies import check_schedule, VERSION

EPOCHS = 200  # of both published searches


def schedule_of_log(text: str, epochs: int = EPOCHS) -> dict[str, Any]:
    """The schedule.json of a winner's log, checked.

    A line of the log is what one exploit left: (trial, the one it was copied from, its epoch, that
    one's epoch d, policy before, policy after), a policy being 60 whole numbers, tenths of a
    probability and a level in turn, in the order of maps.PBA_OPS twice. The weights go on from
    d, so the first policy was in use for d_1 epochs, and the next one until d_2. (The trial of a
    line should be the donor of the next; the published log of role-kd breaks this once.)

    Args:
      text: a file of pba/schedules, or a pbt_policy file of role-kd's results.
      epochs: of the whole search.

    Raises ConfigError for anything else. Source: spec P1 and P6.
    """
    try:
        records = [_record(line) for line in text.splitlines() if line.strip()]
        ends = [*(record[3] for record in records), epochs]
        policies = [_policy(records[0][4]), *(_policy(record[5]) for record in records)]
    except (IndexError, KeyError, SyntaxError, TypeError, ValueError) as error:
        raise _refused(repr(error)[:100]) from error
    lengths = [end - begin for begin, end in zip([0, *ends], ends)]
    if min(lengths) < 0:
        raise _refused(f"segments of {lengths} epochs")
    schedule = {
        "version": VERSION, "map": "autoaugment", "ops": list(PBA_OPS), "epochs": epochs,
        "segments": [{"epochs": length, "probabilities": [number / 10 for number in policy[::2]],
                      "levels": policy[1::2]} for length, policy in zip(lengths, policies)],
        "lineage": [record[:4] for record in records],
    }
    check_schedule(schedule)
    return schedule


def _record(line):
    """role-kd's lines are JSON, PBA's Python."""
    return json.loads(line) if line.startswith('["') else ast.literal_eval(line)


def _policy(found):
    policy = found["hp_policy"] if isinstance(found, dict) else found
    check.require(len(policy) == 4 * len(PBA_OPS), "policy of the log",
                  f"{4 * len(PBA_OPS)} numbers", len(policy), "give a published log")
    return policy


def _refused(came: str) -> check.ConfigError:
    return check.ConfigError(check.sentence(
        "log of a PBA search", "lines (trial, donor, epoch, epoch, policy, policy)", came,
        "give a file of pba/schedules or a pbt_policy file of role-kd"))
