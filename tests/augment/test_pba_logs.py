"""Published lineages become schedules: spec P6's fixtures, and what is no log."""

from pathlib import Path

import numpy as np
import pytest

from augjax import augment, builders, check, defaults
from augjax.types import Clock

LOGS = Path(__file__).resolve().parents[3] / "shared/data/pba"
NONE, SOME = [0] * 60, [10, 3] + [0] * 58


def line(trial, donor, epoch, policies=(NONE, SOME)):
    return f"['{trial}', '{donor}', {epoch + 1}, {epoch}, {policies[0]}, {policies[1]}]"


def test_a_lineage_becomes_segments():
    half = [5, 9] + [0] * 58
    made = augment.schedule_of_log("\n".join([
        line(9, 8, 12), "", line(7, 9, 30, (SOME, half)), line(1, 7, 30, (half, NONE))]))
    assert [segment["epochs"] for segment in made["segments"]] == [12, 18, 0, 170]
    assert [segment["probabilities"][0] for segment in made["segments"]] == [0, 1.0, 0.5, 0]
    assert made["segments"][1]["levels"][0] == 3 and made["lineage"][0] == ["9", "8", 13, 12]
    assert augment.replay(made, 100)


@pytest.mark.parametrize("text", [
    "", "nonsense", line(9, 8, 32) + "\n" + line(7, 9, 30), line(9, 8, 300),
    line(9, 8, 12, (NONE, NONE[:59])), "['9', '8', 11]",
])
def test_what_is_no_lineage_is_refused(text):
    with pytest.raises(check.ConfigError, match="log"):
        augment.schedule_of_log(text)


def test_a_policy_says_how_long_the_search_of_its_log_was(tmp_path):
    """What followed epoch 40 of the search begins at its place in a phase of 100 epochs."""
    path, epochs = tmp_path / "log.txt", np.arange(100)
    path.write_text(line(9, 8, 40))

    def begins(**options):
        block = defaults.policy("replay", schedule=str(path), **options)
        pictures = builders.Pictures("cifar10", 10, (32, 32, 3))
        policy = builders.build_policy("here", block, 100, pictures)
        return int(np.argmax(policy.probabilities(Clock(epochs, epochs, epochs / 100))[:, 0] > 0))

    assert (begins(), begins(searched_epochs=200), begins(searched_epochs=160)) == (20, 20, 25)
    with pytest.raises(check.ConfigError, match="rise from 0 to 30"):
        begins(searched_epochs=30)


PUBLISHED = {
    "rcifar10_16_wrn.txt": (
        (12, 22, 20, 20, 1, 6, 3, 27, 6, 21, 6, 9, 7, 17, 6, 12, 5),
        (0, 3.3, 5.5, 6.3, 7.9, 9.8, 12.5, 13.1, 13.6, 14.0, 14.2, 14.0, 14.0, 15.1, 16.5, 15.8,
         14.9)),
    "role_kd_resnet18_2bit_student_0.txt": (
        (21, 3, 3, 3, 6, 12, 9, 3, 72, 39, 29),
        (0, 5.4, 5.8, 9.2, 12.3, 12.9, 5.1, 5.4, 8.7, 9.1, 9.5)),
}


@pytest.mark.parametrize("name", PUBLISHED)
def test_the_published_logs_have_the_specs_lengths_and_sums(name):
    if not LOGS.is_dir():
        pytest.skip(f"published logs not found at {LOGS}")
    segments = augment.schedule_of_log((LOGS / name).read_text())["segments"]
    lengths, sums = PUBLISHED[name]
    assert tuple(segment["epochs"] for segment in segments) == lengths
    assert [sum(segment["probabilities"]) for segment in segments] == pytest.approx(sums)
    assert np.max([segment["levels"] for segment in segments]) <= 9
