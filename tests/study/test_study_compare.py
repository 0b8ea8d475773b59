"""Mean, spread, interval and verdict, against values computed elsewhere."""

import pytest

from augjax import check, study


def test_spread_is_mean_and_sample_standard_deviation():
    """Deviations -1, 0, 1 over n - 1 = 2."""
    assert study.spread([70.0, 71.0, 72.0]) == {"n": 3, "mean": 71.0, "std": 1.0}
    assert study.spread([70.0]) == {"n": 1, "mean": 70.0, "std": None}
    assert study.spread([]) is None


@pytest.mark.parametrize("values, reach", [
    ([1.0, 2.0, 3.0], 4.302653 / 3 ** 0.5),  # t(0.975, 2): any table of Student's t
    ([1.0, 3.0], 12.706205),  # t(0.975, 1) times sqrt(2) / sqrt(2)
    ([1.0, 2.0, 3.0, 4.0, 5.0], 2.776445 * 2.5 ** 0.5 / 5 ** 0.5),  # t(0.975, 4)
])
def test_interval_is_students(values, reach):
    mean = sum(values) / len(values)
    assert study.interval(values) == pytest.approx((mean - reach, mean + reach), abs=1e-5)


def test_one_value_has_no_interval():
    assert study.interval([1.0]) is None


@pytest.mark.parametrize("differences, points, verdict, direction", [
    ([1.0, 1.1, 1.2], 0.0, "met", "as claimed"),  # 1.1 ± 0.25
    ([-1.0, -1.1, -1.2], 0.0, "not met", "against it"),
    ([1.0, 1.1, 1.2], 1.1, "undecided", "equal"),
    ([1.0, 1.1, 1.2], 2.0, "not met", "against it"),
    ([-1.0, -1.1, -1.2], -2.0, "met", "as claimed"),  # within two points
    ([0.1, 2.0, 4.0], 0.0, "undecided", "as claimed"),  # 2.0 ± 4.8
    ([5.0], 0.0, "undecided", "as claimed"),  # one seed decides nothing
    ([0.0, 0.0], 0.0, "not met", "equal"),  # equal is not better
    ([], 0.0, "not measured", "not measured"),
])
def test_verdicts(differences, points, verdict, direction):
    assert study.verdict(differences, points) == verdict
    assert study.direction(differences, points) == direction


def test_an_interval_that_begins_at_the_margin_decides_nothing():
    """Its lowest point does not exceed the margin, the rest does."""
    low, high = study.interval([1.0, 2.0, 3.0])
    assert study.verdict([1.0, 2.0, 3.0], low) == "undecided"
    assert study.verdict([1.0, 2.0, 3.0], high) == "not met"


@pytest.mark.parametrize("text, claim", [
    ("kd > plain", study.Claim("kd", "plain")),
    ("kd-9 > plain_1 - 1.5", study.Claim("kd-9", "plain_1", -1.5)),
    ("kd > plain + 2", study.Claim("kd", "plain", 2.0)),
])
def test_claims_are_read_and_written(text, claim):
    assert study.parse_claim(text) == claim
    assert str(claim) == text


@pytest.mark.parametrize("text", ["kd >= plain", "kd", "kd > plain > none", "kd > plain - x", ""])
def test_other_claims_are_refused(text):
    with pytest.raises(check.ConfigError, match="ROW > ROW"):
        study.parse_claim(text)
