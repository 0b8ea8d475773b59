"""Images of any size: boxes, pixels against torchvision's, and what they depend on."""

import io
import math

import numpy as np
from PIL import Image, JpegImagePlugin
import pytest

from augjax import check, data
from augjax.data import cropped
from augjax.data.cropped import Cut, evaluation_crop, training_crop
from augjax.data.random_resized_crop import (
    AREA, ASPECT, crop_bits, efficientnet_box, random_box, resnet_boxes,
)
from launch.benchmarks.input import photographs
from launch.torchvision_beside_torch import load

BILINEAR, BICUBIC = Image.Resampling.BILINEAR, Image.Resampling.BICUBIC


def a_picture(height=120, width=160):
    """A piece of a photograph, grain added, so that no pixel can be guessed from the next."""
    picture = Image.open(io.BytesIO(photographs(1)[0].encoded)).resize((width, height))
    grain = np.random.default_rng(0).integers(-20, 20, (height, width, 3))
    return Image.fromarray(np.clip(np.asarray(picture) + grain, 0, 255).astype(np.uint8))


def encoded(picture, kind="JPEG", **options):
    file = io.BytesIO()
    picture.save(file, kind, **({"quality": 90} if kind == "JPEG" else {}), **options)
    return file.getvalue()


def random_boxes(count, height, width):
    return np.array([random_box(crop_bits(0, 0, index), height, width) for index in range(count)])


# --- boxes ---------------------------------------------------------------------------------------


def test_boxes_lie_inside_and_keep_area_and_aspect():
    top, left, tall, wide = random_boxes(3000, 375, 500).T
    assert (top >= 0).all() and (left >= 0).all()
    assert (top + tall <= 375).all() and (left + wide <= 500).all()
    share, aspect = tall * wide / (375 * 500), wide / tall
    assert share.min() > 0.078 and share.max() > 0.95
    assert aspect.min() > 0.74 and aspect.max() < 1.35


def test_a_crop_is_a_function_of_seed_epoch_and_index():
    content, cut = encoded(a_picture()), Cut(32)
    one = training_crop(content, cut, 1, 2, 3)
    assert one.shape == (32, 32, 3) and one.dtype == np.uint8
    np.testing.assert_array_equal(one, training_crop(content, cut, 1, 2, 3))
    for other in ((2, 2, 3), (1, 3, 3), (1, 2, 4)):
        assert (one != training_crop(content, cut, *other)).any()


def test_bits_are_no_epochs_order():
    assert crop_bits(3, 5, 0)[0] != np.random.Philox(
        key=np.array([3, 5], np.uint64)).random_raw(1)[0]


@pytest.mark.parametrize("height, width, box", [
    (10, 400, (0, 193, 10, 13)), (400, 10, (193, 0, 13, 10)), (1, 1, (0, 0, 1, 1))])
def test_an_image_too_long_gives_its_centre(height, width, box):
    assert random_box(np.full(22, 2**64 - 1, np.uint64), height, width) == box


@pytest.mark.parametrize("height, width", [(375, 500), (500, 375), (256, 256), (300, 301)])
def test_evaluation_boxes(height, width):
    (_, _, tall, wide), (top, left, side, _) = resnet_boxes(height, width, 224)
    assert min(tall, wide) == 256 and side == 224
    assert max(tall, wide) == int(256 * max(height, width) / min(height, width))
    assert abs(2 * top + 224 - tall) <= 1 and abs(2 * left + 224 - wide) <= 1
    top, left, side, _ = efficientnet_box(height, width, 224)
    assert side == math.floor(224 / 256 * min(height, width))
    assert 0 <= 2 * top + side - height <= 1 and 0 <= 2 * left + side - width <= 1


def test_the_efficientnet_crop_grows_with_its_own_resolution():
    """R / (R + round(R / 7)) of the short side (spec B1): 380 pixels leave 54 around them."""
    assert efficientnet_box(434, 500, 380)[2] in (379, 380)  # in TensorFlow's float32


def test_wrong_numbers_are_refused():
    with pytest.raises(check.ConfigError, match="from 0 on"):
        crop_bits(-1, 0, 0)
    with pytest.raises(check.DataError, match="one pixel"):
        random_box(np.zeros(22, np.uint64), 0, 4)
    source = data.from_arrays("toy", np.zeros((2, 4, 4, 3), np.uint8), [0, 1], "ab")
    with pytest.raises(check.ConfigError, match="data.crop.*'efficientnet', 'resnet', got 'resnt'"):
        cropped.cut_to(source, Cut(32, "resnt"))


# --- pixels --------------------------------------------------------------------------------------


@pytest.mark.parametrize("options", [
    {"subsampling": 0}, {"subsampling": 1}, {"subsampling": 2}, {"progressive": True},
    {"restart_marker_blocks": 3}, {"exif": b"Exif\0\0" + bytes(300)}, {"comment": b"\xff\xc0" * 20},
])
@pytest.mark.parametrize("mode", ["RGB", "L", "CMYK"])
def test_rows_that_are_not_decoded_change_nothing(mode, options):
    content = encoded(a_picture(123, 157).convert(mode), **options)
    assert (cropped.baseline_height(content) is None) == ("progressive" in options)
    whole = Image.open(io.BytesIO(content)).convert("RGB")
    for index in range(20):
        top, left, tall, wide = random_box(crop_bits(0, 0, index), 123, 157)
        piece = whole.crop((left, top, left + wide, top + tall))
        np.testing.assert_array_equal(
            training_crop(content, Cut(64), 0, 0, index),
            np.asarray(piece.resize((64, 64), BILINEAR)))


@pytest.mark.parametrize(
    "mode, kind", [("L", "PNG"), ("RGBA", "PNG"), ("P", "PNG"), ("RGB", "BMP")])
def test_other_kinds_of_image_become_rgb(mode, kind):
    content = encoded(a_picture().convert(mode), kind)
    assert training_crop(content, Cut(8), 0, 0, 0).shape == (8, 8, 3)
    assert evaluation_crop(content, Cut(8)).shape == (8, 8, 3)


def test_evaluation_resizes_and_cuts_or_cuts_and_resizes():
    content = encoded(a_picture(100, 150), "PNG")
    picture = a_picture(100, 150)
    whole = np.asarray(picture.resize((48, 32), BILINEAR))
    np.testing.assert_array_equal(evaluation_crop(content, Cut(28)), whole[2:30, 10:38])
    piece = picture.crop((32, 7, 119, 94)).resize((28, 28), BICUBIC)  # 28 / 32 of 100
    np.testing.assert_array_equal(
        evaluation_crop(content, Cut(28, "efficientnet")), np.asarray(piece))


@pytest.mark.parametrize("rule", cropped.RULES)
def test_draft_is_near_and_decodes_less(rule, monkeypatch):
    drafts, draft = [], JpegImagePlugin.JpegImageFile.draft
    content = encoded(Image.open(io.BytesIO(photographs(1)[0].encoded)).resize((1000, 800)))
    exact, fast = Cut(48, rule), Cut(48, rule, draft=True)
    monkeypatch.setattr(JpegImagePlugin.JpegImageFile, "draft", lambda self, mode, size: (
        draft(self, mode, size), drafts.append(self.width))[0])
    for index in range(10):
        one, other = (
            training_crop(content, cut, 0, 0, index).astype(int) for cut in (exact, fast))
        assert np.abs(one - other).mean() < 3
    one, other = (evaluation_crop(content, cut).astype(int) for cut in (exact, fast))
    assert np.abs(one - other).mean() < 3 and (one != other).any()
    assert 8 <= len(drafts) <= 11 and set(drafts) <= {125, 250, 500}
    content = encoded(a_picture())  # whose boxes are all too small for it
    np.testing.assert_array_equal(
        training_crop(content, Cut(64, rule, draft=True), 0, 0, 1),
        training_crop(content, Cut(64, rule), 0, 0, 1))


# --- torchvision's own ---------------------------------------------------------------------------


@pytest.fixture(scope="module")
def transforms():
    return load("torchvision.transforms")


@pytest.mark.parity
@pytest.mark.parametrize("height, width", [(375, 500), (64, 64), (100, 300), (300, 90)])
def test_random_boxes_are_distributed_as_torchvisions(transforms, height, width):
    ours = random_boxes(2000, height, width)
    picture = Image.new("RGB", (width, height))
    theirs = np.array([
        transforms.RandomResizedCrop.get_params(picture, list(AREA), list(ASPECT))
        for _ in range(2000)
    ])
    for column in range(4):
        one, other = ours[:, column], theirs[:, column]
        values = np.union1d(one, other)
        rank = [np.searchsorted(np.sort(side), values, "right") / 2000 for side in (one, other)]
        # Kolmogorov-Smirnov at 1 in a million: sqrt(ln(2 / 1e-6) / 2 * 2 / 2000)
        assert np.abs(rank[0] - rank[1]).max() < 0.086


@pytest.mark.parity
@pytest.mark.parametrize("height, width", [(375, 500), (500, 375), (333, 257), (240, 240)])
def test_evaluation_pixels_are_torchvisions(transforms, height, width):
    content = encoded(a_picture(height, width))
    picture = Image.open(io.BytesIO(content)).convert("RGB")
    theirs = transforms.CenterCrop(224)(transforms.Resize(256)(picture))
    np.testing.assert_array_equal(evaluation_crop(content, Cut(224)), np.asarray(theirs))


@pytest.mark.parity
@pytest.mark.parametrize(
    "rule, interpolation", [("resnet", "BILINEAR"), ("efficientnet", "BICUBIC")])
def test_training_pixels_are_torchvisions_for_the_same_box(transforms, rule, interpolation):
    content = encoded(a_picture(200, 300))
    picture = Image.open(io.BytesIO(content)).convert("RGB")
    for index in range(5):
        box = random_box(crop_bits(0, 0, index), 200, 300)
        theirs = transforms.functional.resized_crop(
            picture, *box, [64, 64], transforms.InterpolationMode[interpolation])
        np.testing.assert_array_equal(
            training_crop(content, Cut(64, rule), 0, 0, index), np.asarray(theirs))
