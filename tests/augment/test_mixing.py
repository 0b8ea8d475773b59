"""mixup, CutMix and mixed views: who is mixed with whom, how much, and what the rows say of it."""

from collections import Counter
import math

import jax
import jax.numpy as jnp
from jax.sharding import AxisType, NamedSharding, PartitionSpec as P
import numpy as np
import pytest

from augjax import augment, check, losses, schedule
from augjax.augment import mixing
from augjax.types import Batch, Clock, View

WEAK = augment.pipeline(augment.pad_crop(4), augment.flip)
NUMBERS = augment.beta_mixing()


def a_batch(size=16):
    pixels = np.random.default_rng(0).integers(0, 256, (size, 32, 32, 3), np.uint8)
    places = jnp.arange(size, dtype=jnp.int32)
    return Batch(jnp.asarray(pixels), places % 10, places + 100)


def on_devices(count, function, batch, *rest):
    """What `function(batch, *rest)` gives with the batch cut over `count` devices, and its HLO."""
    mesh = jax.make_mesh((count,), ("data",), axis_types=(AxisType.Auto,),
                         devices=jax.devices()[:count])
    placed = jax.device_put(batch, NamedSharding(mesh, P("data")))
    with jax.set_mesh(mesh):
        done = jax.jit(function).lower(placed, *rest).compile()
        return done(placed, *rest), done.as_text()


# --- the draws -----------------------------------------------------------------------------------


@pytest.mark.parametrize("batch", [2, 3, 5, 64])
def test_no_image_is_its_own_partner(batch):
    draw = jax.jit(jax.vmap(lambda key: mixing.derangement(key, batch)))
    found = np.asarray(draw(jax.random.split(jax.random.key(0), 50)))
    assert (found != np.arange(batch)).all()
    np.testing.assert_array_equal(np.sort(found, 1), np.tile(np.arange(batch), (50, 1)))


def test_every_derangement_is_equally_likely():
    draw = jax.jit(jax.vmap(lambda key: mixing.derangement(key, 4)))
    found = Counter(map(tuple, np.asarray(draw(jax.random.split(jax.random.key(1), 9000)))))
    assert len(found) == 9  # of four images
    statistic = sum((count - 1000) ** 2 / 1000 for count in found.values())
    assert statistic < 40  # chi-square, 8 degrees of freedom: 1 in 300,000


def test_a_batch_of_one_is_left():
    image = a_batch(1).image
    mixture = augment.mix_batch(jax.random.key(0), NUMBERS, augment.mixup, image)
    np.testing.assert_array_equal(mixture.image, image)
    assert mixture.partner.tolist() == [0]


@pytest.mark.parametrize("alpha", [1.0, 0.2, 8.0])
def test_lam_is_beta_distributed(alpha):
    draw = jax.jit(jax.vmap(mixing.draw_lam, (0, None)))
    lam = np.asarray(draw(jax.random.split(jax.random.key(0), 4000), augment.beta_mixing(alpha)))
    deviation = 0.5 / np.sqrt(2 * alpha + 1)
    assert abs(lam.mean() - 0.5) < 5 * deviation / np.sqrt(4000)  # 1 in 1.7 million
    assert abs(lam.std() / deviation - 1) < 0.06
    np.testing.assert_array_equal(lam * 65536, np.round(lam * 65536))


def test_probability_says_how_many_batches_are_mixed():
    draw = jax.jit(jax.vmap(mixing.draw_lam, (0, None)))
    keys = jax.random.split(jax.random.key(0), 4000)
    whole = np.asarray(draw(keys, augment.beta_mixing(1.0, 0.3))) == 1.0
    assert abs(whole.mean() - 0.7) < 5 * np.sqrt(0.21 / 4000)
    assert (np.asarray(draw(keys, augment.beta_mixing(1.0, 0.0))) == 1.0).all()


# --- what is done to a pair ----------------------------------------------------------------------


def test_the_box_of_the_specification():
    box, lam = jax.jit(mixing.cutmix_box, static_argnums=(3, 4))(0.3, 5, 30, 32, 32)
    assert box.tolist() == [0, 17, 18, 32] and float(lam) == 0.736328125  # spec B10


@pytest.mark.parametrize("height, width", [(32, 32), (33, 47), (224, 224)])
def test_boxes_are_those_of_the_published_rule(height, width):
    random = np.random.default_rng(0)
    box_of = jax.jit(jax.vmap(lambda *a: mixing.cutmix_box(*a, height, width)))
    shares = random.integers(0, 65537, 500) / 65536
    x, y = random.integers(0, width, 500), random.integers(0, height, 500)
    boxes, lams = box_of(jnp.float32(shares), jnp.asarray(x), jnp.asarray(y))
    for share, cx, cy, box, lam in zip(shares, x, y, boxes.tolist(), lams.tolist(), strict=True):
        ratio = np.sqrt(1.0 - share)  # clovaai/CutMix-PyTorch, rand_bbox
        w, h = int(width * ratio), int(height * ratio)
        expected = [np.clip(cx - w // 2, 0, width), np.clip(cy - h // 2, 0, height),
                    np.clip(cx + w // 2, 0, width), np.clip(cy + h // 2, 0, height)]
        assert box == expected
        area = (box[2] - box[0]) * (box[3] - box[1])
        assert lam == pytest.approx(1 - area / (height * width), abs=1e-7)


def test_cutmix_pastes_one_box_for_all_and_counts_it():
    images = a_batch(12).image
    mix = jax.jit(lambda key: augment.mix_batch(key, NUMBERS, augment.cutmix, images))
    for seed in range(8):
        mixed, partner, lam = mix(jax.random.key(seed))
        assert mixed.dtype == jnp.uint8
        own, other = np.asarray(mixed == images), np.asarray(mixed == images[partner])
        pasted = ~own.all((0, 3))  # [H, W]: where any image changed
        assert own[:, ~pasted].all() and other[:, pasted].all()
        assert float(lam) == 1 - pasted.mean()  # noise: no pixel is equal in all twelve
        rows, columns = np.flatnonzero(pasted.any(1)), np.flatnonzero(pasted.any(0))
        assert pasted.sum() == len(rows) * len(columns)


def test_mixup_is_exact_and_linear_in_pixels_and_labels():
    batch = a_batch(12)
    labels = np.eye(10)[np.asarray(batch.label)]
    mixed, partner, lam = jax.jit(
        lambda key: augment.mix_batch(key, NUMBERS, augment.mixup, batch.image))(jax.random.key(3))
    assert mixed.dtype == jnp.float32
    pixels, lam = np.asarray(batch.image, np.float64), float(lam)
    np.testing.assert_array_equal(mixed, lam * pixels + (1 - lam) * pixels[partner])
    logits = jax.random.normal(jax.random.key(0), (12, 10))
    soft = lam * labels + (1 - lam) * labels[np.asarray(partner)]
    ours = losses.cross_entropy_rows(
        logits, batch.label, batch.label[partner], jnp.full(12, lam))
    np.testing.assert_allclose(ours, -(soft * jax.nn.log_softmax(logits)).sum(-1), rtol=1e-5)


@pytest.mark.parametrize("mix", [augment.mixup, augment.cutmix])
def test_nothing_mixed_is_the_image(mix):
    images = a_batch().image
    off = augment.beta_mixing(1.0, 0.0)
    mixed, _, lam = augment.mix_batch(jax.random.key(0), off, mix, images)
    np.testing.assert_array_equal(mixed, images)
    assert float(lam) == 1.0


# --- devices -------------------------------------------------------------------------------------


@pytest.mark.parametrize("mix", [augment.mixup, augment.cutmix])
def test_pairs_over_the_batch_do_not_depend_on_the_devices(mix):
    batch, key = a_batch(), jax.random.key(4)
    views = augment.make({"weak": WEAK, "mixed": augment.Mixed("weak", mix)}, rows={"mixed": 2})

    def see(batch, key):
        return views(key, batch, {"mixed": NUMBERS})

    expected = jax.jit(see)(batch, key)
    for count in (1, 2, 8):
        rows, text = on_devices(count, see, batch, key)
        jax.tree.map(np.testing.assert_array_equal, rows, expected)
        inner, _, _ = text.partition("\nENTRY ")  # XLA's CPU may wait forever on talk in a loop
        assert " while(" in text and " all-" not in inner


def test_pairs_per_device_stay_and_are_the_same_rule_on_one():
    batch, key = a_batch(), jax.random.key(4)

    def see(pairs):
        views = augment.make({"weak": WEAK, "mixed": augment.Mixed("weak", augment.cutmix, pairs)})
        return lambda batch, key: views(key, batch, {"mixed": NUMBERS})

    expected = jax.jit(see(augment.whole_batch))(batch, key)
    one, _ = on_devices(1, see(augment.per_device), batch, key)
    jax.tree.map(np.testing.assert_array_equal, one, expected)
    four, text = on_devices(4, see(augment.per_device), batch, key)
    mixed = np.asarray(four.mix_label).reshape(16, 2)[:, 1]
    own = np.asarray(batch.label)
    for device in range(4):
        run = slice(4 * device, 4 * device + 4)
        assert sorted(mixed[run]) == sorted(own[run])
    moved = [line for line in text.splitlines() if any(word in line for word in (
        "all-gather", "all-to-all", "collective-permute", "all-reduce"))]
    assert not moved
    np.testing.assert_array_equal(four.lam, expected.lam)


def test_a_batch_that_devices_cannot_share_is_refused():
    mesh = jax.make_mesh((8,), ("data",), axis_types=(AxisType.Auto,))
    with jax.set_mesh(mesh), pytest.raises(check.ConfigError, match="of 8 devices, got 12"):
        mixing.draw_partners(jax.random.key(0), 12, augment.per_device)


# --- mixed views ---------------------------------------------------------------------------------


def pool(rows=2, **more):
    sources = {"mixed": augment.Mixed("weak", augment.cutmix), "weak": WEAK}
    return augment.make(sources, rows={"mixed": rows, **more})


def test_the_pool_of_cutmix_pick_mixes_the_weak_view_twice():
    batch, key = a_batch(), jax.random.key(5)
    rows = jax.jit(pool())(key, batch, {"mixed": NUMBERS})
    assert rows.views == (View("mixed", 2), View("weak")) and rows.image.dtype == jnp.uint8
    image = np.asarray(rows.image).reshape(16, 3, 32, 32, 3)
    lam, other = (np.asarray(x).reshape(16, 3) for x in (rows.lam, rows.mix_label))
    assert len(set(lam[:, 0])) == len(set(lam[:, 1])) == 1 and lam[0, 0] != lam[0, 1]
    assert (lam[:, 2] == 1).all() and (other[:, 2] == batch.label).all()
    for run in (0, 1):
        mixture = jax.jit(augment.mix_batch, static_argnums=2)(
            jax.random.fold_in(key, run), NUMBERS, augment.cutmix, jnp.asarray(image[:, 2]))
        np.testing.assert_array_equal(image[:, run], mixture.image)
        np.testing.assert_array_equal(other[:, run], batch.label[mixture.partner])


def test_a_view_of_no_rows_is_mixed_but_not_shown():
    batch, key = a_batch(), jax.random.key(5)
    shown = jax.jit(pool())(key, batch, {"mixed": NUMBERS})
    hidden = jax.jit(pool(weak=0))(key, batch, {"mixed": NUMBERS})
    assert hidden.views == (View("mixed", 2),) and hidden.groups == 16
    mixed = np.asarray(shown.image).reshape(16, 3, 32, 32, 3)[:, :2]
    np.testing.assert_array_equal(hidden.image, mixed.reshape(-1, 32, 32, 3))


def test_mixup_makes_all_rows_float_and_changes_no_other_pixel():
    batch, key = a_batch(), jax.random.key(6)
    views = augment.make({"weak": WEAK, "mixed": augment.Mixed("weak", augment.mixup)})
    rows = jax.jit(views)(key, batch, {"mixed": NUMBERS})
    alone = jax.jit(augment.make({"weak": WEAK}))(key, batch, {})
    assert rows.image.dtype == jnp.float32
    np.testing.assert_array_equal(rows.image[::2], alone.image)


def test_rows_are_mixed_with_rows_in_turn():
    views = augment.make(
        {"weak": WEAK, "mixed": augment.Mixed("weak", augment.cutmix)},
        rows={"weak": 2, "mixed": 3})
    rows = jax.jit(views)(jax.random.key(0), a_batch(), {"mixed": augment.beta_mixing(1.0, 0.0)})
    image = np.asarray(rows.image).reshape(16, 5, 32, 32, 3)
    for mixed, weak in ((2, 0), (3, 1), (4, 0)):
        np.testing.assert_array_equal(image[:, mixed], image[:, weak])


def test_numbers_are_traced_and_may_be_schedules():
    traces = []

    @jax.jit
    def lam_of(numbers):
        traces.append(1)
        return mixing.draw_lam(jax.random.key(0), numbers)

    for alpha, probability in ((1.0, 1.0), (0.3, 0.5), (2, 0)):
        lam_of(augment.beta_mixing(alpha, probability))
    assert len(traces) == 1
    moving = augment.beta_mixing(probability=schedule.linear(1.0, 0.0))
    assert float(moving.probability(Clock(5, 0.5, 0.5))) == 0.5


def test_what_cannot_be_mixed_is_refused():
    weak, mixed = WEAK, augment.Mixed("weak", augment.cutmix)
    with pytest.raises(check.ConfigError, match="'mixed' is mixed from: .*'weak', got 'wake'"):
        augment.make({"weak": weak, "mixed": augment.Mixed("wake", augment.cutmix)})
    with pytest.raises(check.ConfigError, match="expected one of 'weak', got 'mixed'"):
        augment.make({"weak": weak, "mixed": mixed, "again": augment.Mixed("mixed", augment.mixup)})
    with pytest.raises(check.ConfigError, match="not all 0"):
        augment.make({"weak": weak}, rows={"weak": 0})
    with pytest.raises(check.ConfigError, match="augment.beta_mixing"):
        augment.make({"weak": weak, "mixed": mixed})(jax.random.key(0), a_batch(2), {})
    with pytest.raises(check.ConfigError, match="above 0, got 0"):
        augment.beta_mixing(0.0)
    for alpha in (math.inf, math.nan, 1e39):  # the last is infinite in float32
        with pytest.raises(check.ConfigError, match="a finite number above 0, got"):
            augment.beta_mixing(alpha)
    with pytest.raises(check.ConfigError, match=r"in \[0, 1\], got 1.5"):
        augment.beta_mixing(1.0, 1.5)
