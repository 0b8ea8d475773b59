"""Picks keep the right rows, score as they say, and leave everything else alone."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from augjax import check, method, train
from augjax.train import sharding
from augjax.types import Outputs, Rows, Signals, View
from train.helpers import CLASSES, SHAPE, small

IMAGES = 6
VIEWS = (View("weak"), View("mixed", 3, domain=1), View("other", 2))  # 6 rows of every image
KEY = jax.random.key(1)


def pool(views=VIEWS, images=IMAGES) -> Signals:
    """Rows with distinct pixels; `index` counts them, and a teacher has spoken."""
    count = images * sum(view.rows for view in views)
    image = jax.random.randint(KEY, (count, *SHAPE), 0, 256).astype(jnp.uint8)
    index = jnp.arange(count, dtype=jnp.int32)
    rows = Rows(image, index % CLASSES, index % CLASSES, jnp.ones(count), index, views)
    return Signals(rows, {"teacher": Outputs(jnp.stack([index * 1.0] * CLASSES, -1))})


def by(scores):
    """A criterion that gives row `index` the score scores[index]."""
    return lambda signals: jnp.asarray(scores, jnp.float32)[signals.rows.index]


def picked(pick, signals=None):
    return pick({}, {}, {}, pool() if signals is None else signals, KEY)[0]


def mixed_rows(images=IMAGES) -> np.ndarray:
    """Indices of the rows of view "mixed"."""
    return np.arange(images * 6).reshape(images, 6)[:, 1:4].ravel()


@pytest.mark.parametrize("share", [1 / 3, 2 / 3, 1.0])
def test_top_keeps_the_rows_that_score_highest_over_the_batch(share):
    scores = np.random.default_rng(0).permutation(IMAGES * 6)
    kept = picked(method.top(by(scores), ("mixed",), share)).rows
    count = round(3 * share)
    assert kept.views == (View("weak"), View("other", 2), View("picked", count, 1))
    grouped = np.asarray(kept.index).reshape(IMAGES, 3 + count)
    whole = np.arange(IMAGES * 6).reshape(IMAGES, 6)
    assert np.array_equal(grouped[:, :3], whole[:, [0, 4, 5]])  # passed through, in place
    best = sorted(mixed_rows(), key=lambda row: -scores[row])[: count * IMAGES]
    assert sorted(grouped[:, 3:].ravel()) == sorted(best)


def test_everything_that_belongs_to_a_row_comes_with_it():
    signals = pool()
    kept = picked(method.top(by(-np.arange(IMAGES * 6)), ("mixed",), 1 / 3), signals)
    index = np.asarray(kept.rows.index)
    assert np.array_equal(kept.rows.image, np.asarray(signals.rows.image)[index])
    assert np.array_equal(kept.rows.label, index % CLASSES)
    assert np.array_equal(kept.outputs["teacher"].logits[:, 0], index)


def test_ties_go_to_the_lower_row():
    kept = picked(method.top(by(np.zeros(IMAGES * 6)), ("mixed",), 1 / 3)).rows
    assert np.array_equal(kept.index.reshape(IMAGES, 4)[:, 3], mixed_rows()[:IMAGES])


def test_a_share_of_one_keeps_the_pool_as_it_is():
    """`top` of everything puts the rows where they were."""
    signals = pool((View("weak"), View("mixed", 2)))
    kept = picked(method.top(by(np.arange(IMAGES * 3)), ("mixed",), 1.0, name="mixed"), signals)
    assert kept.rows.views == signals.rows.views
    for part in ("rows", "outputs"):
        jax.tree.map(
            np.testing.assert_array_equal, getattr(kept, part), getattr(signals, part))


def test_keep_all_is_the_identity():
    signals = pool()
    assert picked(method.keep_all(), signals) is signals


def test_half_of_the_mixed_images_beside_all_weak_ones():
    """kd_thrives_on_da's reading of a pool of one batch: a group then holds two images."""
    views = (View("weak"), View("mixed"), View("other", 2))
    scores = np.random.default_rng(1).permutation(32)
    kept = picked(method.top(by(scores), ("mixed",), 0.5), pool(views, images=8)).rows
    assert kept.views == (View("weak", 2), View("other", 4), View("picked", 1))
    assert kept.groups == 4
    whole, grouped = np.arange(32).reshape(8, 4), np.asarray(kept.index).reshape(4, 7)
    assert np.array_equal(grouped[:, :2].ravel(), whole[:, 0])
    assert np.array_equal(grouped[:, 2:6].ravel(), whole[:, 2:].ravel())
    best = sorted(whole[:, 1], key=lambda row: -scores[row])[:4]
    assert np.array_equal(grouped[:, 6], np.sort(best))
    signals = Signals(kept).only(("weak",))
    assert np.array_equal(signals.rows.index, whole[:, 0])  # a term still finds its view


def test_half_of_a_batch_of_one_view():
    scores = np.array([5, 0, 7, 1, 6, 2, 4, 3])
    kept = picked(method.top(by(scores), ("only",), 0.5), pool((View("only"),), images=8)).rows
    assert kept.views == (View("picked"),) and kept.index.tolist() == [0, 2, 4, 6]


def test_a_pool_that_is_not_there_is_refused_with_the_nearest():
    with pytest.raises(check.ConfigError, match="pick.views.*Did you mean 'mixed'"):
        picked(method.top(by([0]), ("mixd",), 0.5))


def test_a_pool_of_two_domains_is_refused():
    """The rows kept are one view, and a view has one BatchNorm set."""
    with pytest.raises(check.ConfigError, match="pick.views.*one domain"):
        picked(method.top(by(np.zeros(36)), ("weak", "mixed"), 0.5))


@pytest.mark.parametrize("share", [0.0, 1.5, -1])
def test_a_share_outside_its_range_is_refused(share):
    with pytest.raises(check.ConfigError, match="pick.share"):
        method.top(by([0]), ("mixed",), share)


def test_an_unknown_way_of_scoring_is_refused_with_the_nearest():
    with pytest.raises(check.ConfigError, match="Did you mean 'eval'"):
        method.top(by([0]), ("mixed",), 0.5, scoring="evall")


def test_shares_that_leave_a_group_short_are_refused():
    with pytest.raises(check.ConfigError, match="pick.share.*9 of 18 rows.*multiple or a fraction"):
        picked(method.top(by(np.zeros(36)), ("mixed",), 0.5))


def test_the_ratio_is_the_mean_of_the_kept_over_that_of_the_pool():
    scores = np.random.default_rng(3).uniform(1, 5, 36).astype(np.float32)
    kept = picked(method.top(by(scores), ("mixed",), 1 / 3))
    own = scores[mixed_rows()]
    assert float(kept.notes["pick_ratio"]) == pytest.approx(np.sort(own)[-6:].mean() / own.mean())
    assert float(picked(method.top(by(0 * scores), ("mixed",), 1 / 3)).notes["pick_ratio"]) == 1


@pytest.mark.parametrize("devices", [1, 2])
def test_each_device_may_choose_from_its_own_rows(devices):
    scores = np.random.default_rng(4).permutation(36)
    pick = method.top(by(scores), ("mixed",), 1 / 3, rule="per_device")
    mesh = train.make_mesh(jax.devices()[:devices])
    with jax.set_mesh(mesh):
        cut = jax.device_put(pool(), sharding.over_data(mesh))
        compiled = jax.jit(lambda signals: picked(pick, signals)).lower(cut).compile()
        assert "all-gather" not in compiled.as_text()  # no row travels
        kept = np.asarray(compiled(cut).rows.index).reshape(IMAGES, 4)[:, 3]
    halves = np.split(mixed_rows(), devices)
    best = [sorted(half, key=lambda row: -scores[row])[: IMAGES // devices] for half in halves]
    assert sorted(kept) == sorted(np.concatenate(best))


def test_a_device_must_have_a_whole_number_to_keep():
    with jax.set_mesh(train.make_mesh(jax.devices()[:4])):
        with pytest.raises(check.ConfigError, match="each of 4 devices"):
            picked(method.top(by(np.zeros(36)), ("mixed",), 1 / 3, rule="per_device"))


# --- the best candidate of every image -----------------------------------------------------------


def test_best_keeps_one_candidate_of_every_image():
    scores = np.random.default_rng(5).permutation(36)
    signals = pool()
    kept = picked(method.best(by(scores), "mixed"), signals)
    assert kept.rows.views == (View("weak"), View("other", 2), View("mixed", 1, 1))
    own = mixed_rows().reshape(IMAGES, 3)
    chosen = own[np.arange(IMAGES), scores[own].argmax(1)]
    index = np.asarray(kept.rows.index).reshape(IMAGES, 4)
    assert np.array_equal(index[:, 3], chosen)
    assert np.array_equal(kept.rows.image, np.asarray(signals.rows.image)[index.ravel()])
    assert np.array_equal(kept.outputs["teacher"].logits[:, 0], index.ravel())


def test_best_takes_the_first_of_equals_and_leaves_a_single_candidate_alone():
    kept = picked(method.best(by(np.zeros(36)), "mixed")).rows
    assert np.array_equal(kept.index.reshape(IMAGES, 4)[:, 3], mixed_rows()[::3])
    signals = pool((View("weak"), View("mixed")))
    alone = picked(method.best(by(np.arange(36)), "mixed"), signals)
    jax.tree.map(np.testing.assert_array_equal, alone, signals)


# --- how the learners look at the pool -----------------------------------------------------------

NET = small(8, domains=2)
PARAMS, FRESH = NET.init(jax.random.key(0))
DRAWN = jax.random.uniform(KEY, (2, 8))  # every domain and channel has a history of its own
STATS = jax.tree.map(lambda leaf: leaf + DRAWN, FRESH)
BRIGHT = lambda signals: signals.outputs["student"].logits[:, 0]  # noqa: E731


def look(scoring):
    pick = method.top(BRIGHT, ("mixed",), 1 / 3, scoring=scoring)
    return pick({"student": NET}, {"student": PARAMS}, {"student": STATS}, pool(), KEY)


def test_statistics_are_kept_only_where_the_pick_says_so():
    scored = pool().only(("mixed",)).rows
    seen = NET.train((PARAMS, STATS), scored, jax.random.fold_in(KEY, 0))[1]
    expected = {"train_discard": STATS, "train_keep": seen, "eval": STATS}
    for scoring, stats in expected.items():
        jax.tree.map(np.testing.assert_array_equal, look(scoring)[1]["student"], stats)
    assert not np.array_equal(seen["norm"]["mean"], STATS["norm"]["mean"])
    assert np.array_equal(seen["norm"]["mean"][0], STATS["norm"]["mean"][0])  # mixed is domain 1


@pytest.mark.parametrize("scoring", ["train_discard", "train_keep", "eval"])
def test_the_best_rows_are_those_of_the_mode(scoring):
    scored = pool().only(("mixed",)).rows
    if scoring == "eval":
        outputs = NET.predict((PARAMS, STATS), scored, 1)
    else:
        outputs, _ = NET.train((PARAMS, STATS), scored, KEY)
    best = mixed_rows()[np.argsort(-np.asarray(outputs.logits[:, 0]), kind="stable")[:IMAGES]]
    kept = look(scoring)[0].rows.index.reshape(IMAGES, 4)[:, 3]
    assert np.array_equal(np.sort(kept), np.sort(best))


def test_the_modes_do_not_agree_here():
    """Otherwise the test above could not tell them apart."""
    kept = [look(scoring)[0].rows.index.tolist() for scoring in ("train_discard", "eval")]
    assert kept[0] != kept[1]


def test_the_learners_own_words_about_the_pool_are_forgotten():
    """They run again, with gradient, on the rows that were kept."""
    signals, _ = look("train_discard")
    assert set(signals.outputs) == {"teacher"}


def test_no_gradient_flows_through_the_choice():
    def total(params):
        pick = method.top(BRIGHT, ("mixed",), 1 / 3, scoring="train_keep")
        signals, stats = pick(
            {"student": NET}, {"student": params}, {"student": STATS}, pool(), KEY)
        leaves = [*jax.tree.leaves(stats), signals.rows.lam, signals.outputs["teacher"].logits]
        return sum(leaf.sum() for leaf in leaves)

    gradient = jax.grad(total)(PARAMS)
    assert all(not np.any(leaf) for leaf in jax.tree.leaves(gradient))


def test_views_of_several_names_can_be_one_pool():
    scores = np.random.default_rng(2).permutation(36)
    kept = picked(method.top(by(scores), ("weak", "other"), 2 / 3)).rows
    assert kept.views == (View("mixed", 3, domain=1), View("picked", 2))
    candidates = np.setdiff1d(np.arange(36), mixed_rows())
    best = sorted(candidates, key=lambda row: -scores[row])[:12]
    assert sorted(kept.index.reshape(6, 5)[:, 3:].ravel().tolist()) == sorted(best)
