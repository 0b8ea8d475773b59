"""From exploits to the winner's schedule: spec P6's rule, and the published lineages by it."""

import ast
import json
from pathlib import Path

import numpy as np
import pytest

from augjax import augment, check, search
from augjax.search import Exploit, Policy
from augjax.types import Clock

LOGS = Path(__file__).resolve().parents[3] / "shared/data/pba"


def policy(number):
    return Policy((number,) * 30, (number,) * 30)


def log(*steps):
    """Exploits of (target, donor, donor's epoch), with policies 0, 1, 2, ... in turn."""
    return tuple(Exploit(target, donor, epoch, epoch, policy(number), policy(number + 1))
                 for number, (target, donor, epoch) in enumerate(steps))


def lengths(schedule):
    return [segment["epochs"] for segment in schedule["segments"]]


def test_a_lineage_becomes_segments():
    made = search.schedule_of_lineage(log((9, 8, 12), (7, 9, 30), (1, 7, 30)), policy(3), 40)
    assert lengths(made) == [12, 18, 0, 10]
    assert [segment["levels"][29] for segment in made["segments"]] == [0, 1, 2, 3]
    assert [segment["probabilities"][0] for segment in made["segments"]] == [0, 0.1, 0.2, 0.3]
    assert made["lineage"] == [[9, 8, 12, 12], [7, 9, 30, 30], [1, 7, 30, 30]]
    assert made["epochs"] == 40 and made["ops"] == list(augment.maps.PBA_OPS)
    assert augment.parse_schedule(json.dumps(made)) == made


def test_who_never_exploited_has_one_segment():
    made = search.schedule_of_lineage((), policy(4), 9)
    assert lengths(made) == [9] and made["lineage"] == []
    assert made["segments"][0]["probabilities"] == [0.4] * 30


def test_map_and_operations_are_kept():
    two = Policy((1, 2, 3, 4), (5, 6, 7, 8))
    made = search.schedule_of_lineage((), two, 9, "tf", ("rotate", "color"))
    assert (made["map"], made["ops"]) == ("tf", ["rotate", "color"])
    with pytest.raises(check.ConfigError, match=r"\[4\] numbers"):
        search.schedule_of_lineage((), policy(1), 9, "tf", ("rotate", "color"))


def test_the_donors_epochs_count():  # the weights go on from there, not from the target's
    one = Exploit(3, 2, 35, 34, policy(0), policy(1))
    assert lengths(search.schedule_of_lineage((one,), policy(1), 50)) == [34, 16]


@pytest.mark.parametrize("steps, last, epochs, says", [
    (((9, 8, 12), (7, 6, 30)), 2, 40, "exploit 1: expected donor 9 .*got donor 6"),
    (((9, 8, 32), (7, 9, 30)), 2, 40, r"segments of \[32, -2, 10\]"),
    (((9, 8, 12),), 1, 11, r"segments of \[12, -1\]"),
    (((9, 8, 12),), 0, 40, "an end with the last policy"),
])
def test_what_is_no_lineage_of_one_member_is_refused(steps, last, epochs, says):
    with pytest.raises(check.ConfigError, match=says):
        search.schedule_of_lineage(log(*steps), policy(last), epochs)


def test_policies_follow_from_each_other():
    one, two = log((9, 8, 12), (7, 9, 30))
    other = Exploit(7, 9, 30, 30, policy(5), two.after)
    with pytest.raises(check.ConfigError, match="donor 9, the policy is another"):
        search.schedule_of_lineage((one, other), two.after, 40)


@pytest.fixture(scope="module")
def searched():
    """A search of 6 members over 60 epochs: [decisions] policies before, donors, and its end."""
    policies, logs, past = search.start_policies(6), ((),) * 6, []
    for decision in range(19):
        scores = np.random.default_rng(decision).random(6)
        made = search.decide(policies, logs, scores, 3 * decision + 3, 5, decision)
        past.append((policies, made.donors))
        policies, logs = made.policies, made.logs
    return past, policies, logs


def test_a_log_is_what_the_weights_went_through(searched):
    """Followed backwards through the donors: the policy of every epoch is the schedule's."""
    past, policies, logs = searched
    for last in range(6):
        member, epochs = last, [policies[last]] * 3
        for before, donors in reversed(past):
            member = donors[member]
            epochs = [before[member]] * 3 + epochs
        made = search.schedule_of_lineage(logs[last], policies[last], 60)
        told = [search.Policy(tuple(round(10 * value) for value in segment["probabilities"]),
                              tuple(segment["levels"]))
                for segment in made["segments"] for _ in range(segment["epochs"])]
        assert told == epochs


def test_a_donor_without_a_log_wipes_the_targets(searched):
    """Where role-kd's published log went wrong: it kept the past of weights that are gone."""
    mine = log((1, 0, 3), (1, 0, 6))
    made = search.decide(
        (policy(0), policy(2)), ((), mine), [0.9, 0.1], 9, 0, 0)
    assert made.donors.tolist() == [0, 0] and made.logs[0] == ()
    assert [(one.epoch, one.before) for one in made.logs[1]] == [(9, policy(0))]


# --- the published ones --------------------------------------------------------------------------


def published(name):
    """The exploits of a published log."""
    if not LOGS.is_dir():
        pytest.skip(f"published logs not found at {LOGS}")

    def read(found):
        numbers = found["hp_policy"] if isinstance(found, dict) else found
        return Policy(tuple(numbers[::2]), tuple(numbers[1::2]))

    lines = (LOGS / name).read_text().splitlines()
    records = [json.loads(line) if line.startswith('["') else ast.literal_eval(line)
               for line in lines if line.strip()]
    return tuple(Exploit(int(target), int(donor), epoch, donor_epoch, read(before), read(after))
                 for target, donor, epoch, donor_epoch, before, after in records)


def test_pbas_lineage_by_the_searchs_rule():  # spec P6's fixture, T = 200
    exploits = published("rcifar10_16_wrn.txt")
    made = search.schedule_of_lineage(exploits, exploits[-1].after, 200)
    assert lengths(made) == [12, 22, 20, 20, 1, 6, 3, 27, 6, 21, 6, 9, 7, 17, 6, 12, 5]
    assert [sum(segment["probabilities"]) for segment in made["segments"]] == pytest.approx(
        [0, 3.3, 5.5, 6.3, 7.9, 9.8, 12.5, 13.1, 13.6, 14.0, 14.2, 14.0, 14.0, 15.1, 16.5, 15.8,
         14.9])
    read = augment.schedule_of_log((LOGS / "rcifar10_16_wrn.txt").read_text())
    assert made["segments"] == read["segments"]


def test_role_kds_lineage_is_broken_and_says_so():
    """Read as published its lengths are the fixture's; as a lineage it does not hold together."""
    exploits = published("role_kd_resnet18_2bit_student_0.txt")
    read = augment.schedule_of_log((LOGS / "role_kd_resnet18_2bit_student_0.txt").read_text())
    assert lengths(read) == [21, 3, 3, 3, 6, 12, 9, 3, 72, 39, 29]
    assert [sum(segment["probabilities"]) for segment in read["segments"]] == pytest.approx(
        [0, 5.4, 5.8, 9.2, 12.3, 12.9, 5.1, 5.4, 8.7, 9.1, 9.5])
    with pytest.raises(check.ConfigError, match="exploit 5: expected donor 8 .* got donor 2"):
        search.schedule_of_lineage(exploits, exploits[-1].after, 200)
    # what its weights went through: nothing was done before epoch 57 (the paper: about epoch 50)
    true = search.schedule_of_lineage(exploits[6:], exploits[-1].after, 200)
    assert lengths(true) == [57, 3, 72, 39, 29]
    assert sum(true["segments"][0]["probabilities"]) == 0


def test_a_schedule_stretches_to_other_epochs():
    made = search.schedule_of_lineage(log((9, 8, 5), (7, 9, 11)), policy(2), 20)
    levels = augment.replay(made, 30).levels  # 5, 6, 9 times 1.5: 7, 9, the rest
    at = [levels(Clock(0, np.float32(epoch), 0))[0] for epoch in (0, 6, 7, 15, 16, 29)]
    assert at == [0, 0, 1, 1, 2, 2]
