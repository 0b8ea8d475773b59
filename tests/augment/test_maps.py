"""Magnitude maps: their values against the specification, their pixels against Pillow."""

from fractions import Fraction
import math

import jax
import jax.numpy as jnp
import map_oracle
import numpy as np
import pillow_oracle as pillow
import pytest

from augjax import augment, check
from augjax.augment import maps

ENHANCE = ("color", "contrast", "brightness", "sharpness")
GEOMETRY = ("rotate", "shear_x", "shear_y", "translate_x", "translate_y")
PILLOW = [name for name in maps.MAPS if name != "pix"]
NOTHING = ("identity", "autocontrast", "equalize", "invert")


def levels_of(chosen):
    """Every level of a map of whole ones; of the others all whole ones and nine between."""
    whole = list(range(int(chosen.highest) + 1))
    between = [1 / 32, 0.5, 1.75, 4.53125, 5.5, 8.59375, 9.40625, 9.5, 319 / 32]
    return whole if chosen.steps == 1 else sorted(whole + between)


ROUNDED_DOWN = {  # products that are whole on paper; the peer's floats end just below
    ("tf", "solarize_add", 23): 252, ("tf_monotone", "solarize_add", 23): 252,
    ("trivial_wide", "translate_x", 15): 15, ("trivial_wide", "translate_y", 15): 15,
}


# --- values, written anew from spec B3 to B6 -----------------------------------------------------


def specified(chosen, name, m, sign, height, width):
    """What the specification says a level means; None for operations without one."""
    return FAMILIES[chosen](chosen, name, Fraction(m), sign,
                            {"translate_x": width, "translate_y": height})


def tensorflow(chosen, name, m, sign, sides):
    pixels, cut = (250, 100) if chosen == "tf_autoaugment" else (100, 40)
    if name == "solarize_add":
        return m * 11 // 1
    if name == "cutout":
        half = m * cut // 10
        return -half, -half, half, half
    return tenths(name, m, sign, chosen != "tf_monotone", pixels)


def timm(chosen, name, m, sign, sides):
    original = chosen == "timm_original"
    if name == "solarize_add":
        return min(128, m * 11 // 1)
    if name == "posterize" and original:
        return m * 4 // 10 + 4
    pixels = 250 if original else Fraction(45, 100) * sides.get(name, 0)
    return tenths(name, m, sign, chosen != "timm_inc", pixels)


def tenths(name, m, sign, weak, pixels):
    """Columns (i) and (ii): `weak` where they differ, `pixels` of a translation at level 10."""
    tops = {"rotate": 30, "shear_x": Fraction(3, 10), "shear_y": Fraction(3, 10)}
    if name in GEOMETRY:
        return sign * m * Fraction(tops.get(name, pixels)) / 10
    if name == "posterize":
        return min(8, m * 4 // 10) if weak else max(0, 4 - m * 4 // 10)
    if name == "solarize":
        return min(256, m * 256 // 10) if weak else max(0, 256 - m * 256 // 10)
    if name in ENHANCE:
        return m * Fraction(18, 100) + Fraction(1, 10) if weak else max(
            Fraction(1, 10), 1 + sign * m * Fraction(9, 100))
    return None


def torchvision(chosen, name, m, sign, sides):
    wide, last = chosen == "trivial_wide", 9 if chosen == "torchvision_aa" else 30
    shear = Fraction(99 if wide else 30, 100)
    tops = {"rotate": 135 if wide else 30, "shear_x": shear, "shear_y": shear}
    if name in sides:
        top = 32 if wide else Fraction(150, 331) * sides[name]
        return math.trunc(sign * top * m / last)
    if name == "posterize":
        return 8 - round(m / (Fraction(last, 6 if wide else 4)))
    if name == "solarize":
        return 255 - Fraction(255, last) * m
    if name in ENHANCE:
        return 1 + sign * Fraction(99 if wide else 90, 100) * m / last
    return sign * tops[name] * m / last if name in tops else None


def ildoonet(chosen, name, m, sign, sides):
    share = m / 30
    if chosen == "ildoonet_sized":
        share *= Fraction({**sides, "cutout": min(sides.values())}.get(name, 331), 331)
    if name in ENHANCE:
        return Fraction(18, 10) * share + Fraction(1, 10)
    if name == "cutout":
        covered = 40 * share // 1 + 1
        return round(20 * share * 65536), round(20 * share * 65536), covered, covered
    tops = {"rotate": 30, "shear_x": Fraction(3, 10), "shear_y": Fraction(3, 10),
            "translate_x": 100, "translate_y": 100}
    if name in tops:
        return sign * tops[name] * share
    if name == "posterize":
        return 4 * share // 1
    return {"solarize": 256, "add_solarize": 110}.get(name, 0) * share


def autoaugment(chosen, name, m, sign, sides):
    if name == "cutout":
        return -m, -m, m, m  # a side of int(2 m)
    if name == "rotate":
        return sign * (3 * m)
    if name in sides:
        return sign * m
    return tenths(name, m, sign, name in ENHANCE, None)


def outliers(chosen, name, m, sign, sides):
    lost, width, height = m / 10, sides["translate_x"], sides["translate_y"]
    if name in sides:
        return sign * lost * sides[name]
    if name == "cutout":
        return 0, 0, round(lost * width), round(lost * height)
    if m == 10:
        return sign * math.inf
    ratio = Fraction(width, height) if name == "shear_x" else Fraction(height, width)
    return sign * ratio * (2 * lost if m <= 5 else 1 / (2 * (1 - lost)))


FAMILIES = {
    "tf": tensorflow, "tf_monotone": tensorflow, "tf_autoaugment": tensorflow,
    "timm": timm, "timm_inc": timm, "timm_original": timm,
    "torchvision": torchvision, "torchvision_aa": torchvision, "trivial_wide": torchvision,
    "ildoonet": ildoonet, "ildoonet_sized": ildoonet,
    "autoaugment": autoaugment, "outliers": outliers,
}


@pytest.mark.parametrize("size", [(32, 32), (33, 47), (224, 224)], ids=str)
@pytest.mark.parametrize("name", PILLOW)
def test_values_at_every_level(name, size):
    chosen = maps.map_named(name)
    for operation in chosen.ops:
        for level in levels_of(chosen):
            for sign in (-1, 1):
                value = chosen.value(operation, level, float(sign), *size)
                if operation in NOTHING:
                    assert value is None
                    continue
                if name == "outliers" and 9.9 < level < 10 and operation in GEOMETRY:
                    continue  # a slope that would leave int32 is cut
                expected = specified(name, operation, level, sign, *size)
                down = ROUNDED_DOWN.get((name, operation, level))
                expected = expected if down is None else down if expected > 0 else -down
                # torchvision's bins are float32; everything else is a float64 of few operations
                near = 1e-6 if name in ("torchvision", "torchvision_aa", "trivial_wide") else 1e-12
                np.testing.assert_allclose(
                    np.float64(value), np.array(expected, np.float64), near, 1e-13,
                    err_msg=f"{operation} at {level}")


def test_published_values():  # spec B3, B4: numbers that stand there as such
    tf, pba = maps.map_named("tf"), maps.map_named("autoaugment")
    assert [tf.value(name, 28, 1.0, 224, 224) for name in
            ("posterize", "solarize", "solarize_add")] == [8, 256, 308]
    assert [round(tf.value(name, 28, 1.0, 224, 224), 9) for name in
            ("rotate", "shear_x", "translate_x", "color")] == [84, 0.84, 280, 5.14]
    assert tf.value("cutout", 28, 1.0, 224, 224) == (-112, -112, 112, 112)  # 224 x 224
    assert [round(tf.value(name, 15, 1.0, 224, 224), 9) for name in
            ("rotate", "shear_x", "translate_x", "color")] == [45, 0.45, 150, 2.8]
    assert tf.value("cutout", 15, 1.0, 224, 224) == (-60, -60, 60, 60)
    assert tf.value("brightness", 5, 1.0, 32, 32) == 1.0
    bits = [pba.value("posterize", m, 1.0, 32, 32) for m in range(10)]
    assert bits == [4, 4, 4, 3, 3, 2, 2, 2, 1, 1]  # spec P2
    aa = maps.map_named("torchvision_aa")
    assert [aa.value("posterize", m, 1.0, 32, 32) for m in range(10)] == [
        8, 8, 7, 7, 6, 6, 5, 5, 4, 4]  # spec B4
    black = maps.map_named("ildoonet")
    assert black.value("posterize", 0, 1.0, 32, 32) == 0  # spec B3
    assert round(black.value("color", 15, 1.0, 32, 32), 12) == 1.0


# --- pixels --------------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", [(32, 32, 3), (33, 47, 3)], ids=str)
@pytest.mark.parametrize("name", PILLOW)
def test_pillow_at_every_level(name, shape):
    chosen = maps.map_named(name)
    images = pillow.pictures(*shape)[[0, 1, 3]]
    wrong, calls = map_oracle.disagreements(chosen, levels_of(chosen), images)
    assert calls == len(chosen.ops) * len(levels_of(chosen)) * 2 * 3
    assert not wrong, sorted(wrong)


@pytest.mark.parametrize("name", PILLOW)
def test_pillow_at_every_level_on_cifar(name, cifar_dir):
    chosen = maps.map_named(name)
    wrong, _ = map_oracle.disagreements(
        chosen, levels_of(chosen), pillow.cifar(cifar_dir, 3))
    assert not wrong, sorted(wrong)


@pytest.mark.parametrize("name", PILLOW)
def test_pillow_at_imagenet_size(name):
    chosen = maps.map_named(name)
    levels = (3, 9) if chosen.highest < 30 else (9, 28)
    wrong, _ = map_oracle.disagreements(chosen, levels, pillow.pictures(224, 224, 3)[[0, 3]])
    assert not wrong, sorted(wrong)


@pytest.mark.parametrize("name", PILLOW)
def test_level_zero_is_the_identity_where_the_map_says_so(name):
    chosen, images = maps.map_named(name), pillow.pictures(32, 32, 3)
    op, level, sign, picture = map_oracle.calls_of(chosen, (0,), len(images))
    done, _ = map_oracle.by_engine(chosen, op, level, sign, sign, sign, images[picture])
    same = (done == images[picture]).all((1, 2, 3))
    kept = {name for position, name in enumerate(chosen.ops) if same[op == position].all()}
    assert kept == set(chosen.keeps_at_zero)


def test_levels_between_steps_round_half_to_even():
    def rows(name, level):
        chosen = maps.map_named(name)
        op = jnp.full(1, chosen.ops.index("rotate"))
        nothing = jnp.zeros(1, jnp.uint32)
        draws = maps.Draws(nothing, nothing, nothing)
        return chosen.rows(32, 32)(op, jnp.float32([level]), draws)

    np.testing.assert_array_equal(rows("tf", 8.5), rows("tf", 8))
    np.testing.assert_array_equal(rows("timm", 9 + 1 / 64), rows("timm", 9))
    np.testing.assert_array_equal(rows("timm", 9 + 3 / 64), rows("timm", 9 + 2 / 32))
    assert (rows("timm", 9 + 1 / 32) != rows("timm", 9)).any()
    np.testing.assert_array_equal(rows("timm_inc", 11.3), rows("timm_inc", 10))  # traced: the end


# --- cutouts -------------------------------------------------------------------------------------


def boxes(name, level, height, width, count=4000):
    chosen = maps.map_named(name)
    bits = jax.random.bits(jax.random.key(2), (3, count))
    op = jnp.full(count, chosen.ops.index("cutout"))
    return np.asarray(
        chosen.rows(height, width)(op, jnp.full(count, float(level)), maps.Draws(*bits)))[:, :4]


def test_cutout_of_the_outliers_lies_inside():
    for level, (high, wide) in {0: (0, 0), 3: (6, 12), 10: (20, 40)}.items():
        box = boxes("outliers", level, 20, 40)
        assert (box[:, 2] - box[:, 0] == wide).all() and (box[:, 3] - box[:, 1] == high).all()
        assert set(box[:, 0]) == set(range(40 - wide + 1))
        assert set(box[:, 1]) == set(range(20 - high + 1))


def test_the_outliers_leave_what_the_level_says():
    """At level M every operation leaves 1 - M/10 of the pixels, to the resolution of a row."""
    white = np.full((1, 200, 200, 1), 255, np.uint8)
    chosen = maps.map_named("outliers")
    for level in range(11):
        op, levels, sign, _ = map_oracle.calls_of(chosen, (level,), 1)
        done, _ = map_oracle.by_engine(
            chosen, op, levels, sign, sign, sign, white[np.zeros(len(op), int)], size=10)
        left = (done == 255).mean((1, 2, 3))
        np.testing.assert_allclose(left[op < 4], 1 - level / 10, atol=0.006)  # moves
        np.testing.assert_allclose(left[op == 4], 1 - (level / 10) ** 2, atol=1e-6)  # cutout


@pytest.mark.parametrize("name, level, side", [
    ("ildoonet", 0, 0.0), ("ildoonet", 7, 40 * 7 / 30), ("ildoonet", 30, 40.0),
    ("ildoonet_sized", 30, 40 * 24 / 331)])
def test_cutout_of_ildoonet_is_drawn_as_there(name, level, side):
    bits = np.asarray(jax.random.bits(jax.random.key(2), (3, 300)))
    image = pillow.pictures(24, 40, 3)[0]
    drawn = boxes(name, level, 24, 40, 300)
    for (left, top, right, bottom), x, y in zip(drawn, bits[1], bits[2], strict=True):
        expected = map_oracle.ildoonet_cutout(image, x, y, side)
        mine = image.copy()
        mine[max(top, 0):bottom, max(left, 0):right] = 128
        np.testing.assert_array_equal(mine, expected)


# --- dm-pix --------------------------------------------------------------------------------------


def test_the_map_of_pix_grows_from_the_identity():
    """Mean change over signs and smooth pictures: none at level 0, more at every third level."""
    images = pillow.pictures(32, 32, 3)[[3]]
    chosen, change = maps.map_named("pix"), []
    for level in (0, 3, 6, 9):
        op, levels, sign, picture = map_oracle.calls_of(chosen, (level,), 1)
        done, _ = map_oracle.by_engine(
            chosen, op, levels, sign, sign, sign, images[picture], 18, chosen.ops)
        moved = np.abs(done.astype(int) - images[picture]).mean((1, 2, 3))
        change.append([moved[op == position].mean() for position in range(len(chosen.ops))])
    np.testing.assert_array_equal(change[0], 0)
    assert (np.diff(change, axis=0) > 0).all(), change


# --- what a map says about itself, and refusals --------------------------------------------------


@pytest.mark.parametrize("name", maps.MAPS)
def test_a_map_says_what_it_is(name):
    chosen = maps.map_named(name)
    assert chosen.name == name and chosen.lowest == 0 and chosen.size_rule
    assert set(chosen.keeps_at_zero) <= set(chosen.ops) <= set(augment.OPS)
    assert chosen.whole == (chosen.steps == 1)
    with pytest.raises(check.ConfigError, match=f"{name}.*0 to {chosen.highest:g}"):
        augment.randaugment(chosen.highest + 1, map=name)


def test_operation_counts():  # spec B3's last line; B5
    counts = {name: len(chosen.ops) for name, chosen in maps.MAPS.items()}
    assert counts["tf"] == counts["ildoonet"] == 16 and counts["torchvision"] == 14
    assert counts["timm"] == counts["timm_inc"] == counts["autoaugment"] == 15
    assert counts["outliers"] == 5
