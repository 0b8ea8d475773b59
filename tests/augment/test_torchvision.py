"""torchvision's own RandAugment, operation by operation, against ours."""

import sys

import numpy as np
import pillow_oracle as pillow
import pytest
from torchvision_oracle import load

from augjax.augment import maps

pytestmark = pytest.mark.parity

NAMES = {  # ours: theirs
    "identity": "Identity", "shear_x": "ShearX", "shear_y": "ShearY", "translate_x": "TranslateX",
    "translate_y": "TranslateY", "rotate": "Rotate", "brightness": "Brightness", "color": "Color",
    "contrast": "Contrast", "sharpness": "Sharpness", "posterize": "Posterize",
    "solarize": "Solarize", "autocontrast": "AutoContrast", "equalize": "Equalize",
}


@pytest.fixture(scope="module")
def theirs():
    """Its module of automatic augmentation."""
    return load("torchvision.transforms.autoaugment")


def test_same_operations(theirs):
    space = theirs.RandAugment()._augmentation_space(31, (32, 32))
    assert {NAMES[name] for name in maps.TORCHVISION.ops} == set(space)


@pytest.mark.parametrize(
    "stop, start", [(0.3, 0), (0.9, 0), (0.99, 0), (30, 0), (0, 255), (150 / 331 * 47, 0)])
def test_same_bins(theirs, stop, start):
    torch = sys.modules["torch"]
    np.testing.assert_array_equal(
        maps.linspace(start, stop, 31), torch.linspace(start, stop, 31).numpy())


@pytest.mark.parametrize("shape", [(32, 32, 3), (33, 47, 3), (224, 224, 3)], ids=str)
@pytest.mark.parametrize("name", maps.TORCHVISION.ops)
def test_same_pixels_at_every_level(theirs, name, shape):
    from test_operations import every_level

    large = shape[0] > 100
    levels = (3, 17) if large else range(31)
    images = pillow.pictures(*shape)[[0, 1, 3] if large else slice(None)]
    ours = every_level(name, images, levels)
    magnitudes, signed = theirs.RandAugment()._augmentation_space(31, shape[:2])[NAMES[name]]
    mode = theirs.InterpolationMode.NEAREST
    # spec B2 moves the window, torchvision the picture: its + is our -, and both signs are drawn.
    mirrored = -1.0 if name.startswith("translate") else 1.0
    for position, level in enumerate(levels):
        magnitude = float(magnitudes[level].item()) if magnitudes.ndim else 0.0
        for negative in (0, 1):
            sign = mirrored * (-1.0 if negative else 1.0) if signed else 1.0
            expected = [
                np.asarray(theirs._apply_op(
                    pillow.as_pillow(image), NAMES[name], sign * magnitude, mode, [128] * 3))
                for image in images
            ]
            np.testing.assert_array_equal(
                ours[position, negative], np.stack(expected), err_msg=f"level {level}")
