"""The picture of a schedule: the numbers behind it, and that it is drawn."""

import numpy as np
from PIL import Image
import pytest

from augjax import augment, check, search
from augjax.search import curves


def a_schedule(policies, donor_epochs, epochs=20):
    return augment.schedule_of_policies(policies, donor_epochs, epochs)


NOTHING = ([0] * 30, [0] * 30)
SOME = ([10, *[0] * 14, 5, 1, *[0] * 13], [9, *[3] * 14, 4, *[3] * 14])  # rotate twice, translate


def pixels(path):
    return np.asarray(Image.open(path).convert("RGB")).reshape(-1, 3)



def test_both_entries_of_an_operation_count():
    edges, probabilities, levels = curves._by_operation(
        a_schedule((NOTHING, SOME, NOTHING), (4, 4), 20))
    assert edges.tolist() == [0, 4, 20]  # a segment of no epochs leaves no trace
    assert probabilities.shape == levels.shape == (15, 2)
    edges, probabilities, levels = curves._by_operation(a_schedule((NOTHING, SOME), (4,)))
    assert probabilities[:, 0].tolist() == [0] * 15
    assert probabilities[:3, 1].tolist() == [1.5, 0.1, 0]
    assert levels[:3, 1].tolist() == pytest.approx([(9 + 0.5 * 4) / 1.5, 3, 0])


def test_a_level_that_is_never_done_does_not_count():
    once = ([10, *[0] * 29], [2, *[0] * 14, 9, *[0] * 14])  # the second rotate's 9 is never done
    assert curves._by_operation(a_schedule((once,), ()))[2][0].tolist() == [2]


def test_a_picture_shows_what_is_done(tmp_path):
    drawn = search.plot_schedule(a_schedule((NOTHING, SOME), (4,)), tmp_path / "new" / "it.png")
    assert drawn == tmp_path / "new" / "it.png" and drawn.read_bytes()[:4] == b"\x89PNG"
    blue = (31, 119, 180)  # rotate's area
    assert np.all(pixels(drawn) == blue, -1).mean() > 0.1
    empty = search.plot_schedule(a_schedule((NOTHING,), ()), tmp_path / "empty.png")
    assert 0 < np.all(pixels(empty) == blue, -1).mean() < 0.002  # in the legend alone


def test_a_wrong_schedule_is_refused(tmp_path):
    with pytest.raises(check.ConfigError, match="schedule"):
        search.plot_schedule({"version": 1}, tmp_path / "it.png")
    assert not list(tmp_path.iterdir())
