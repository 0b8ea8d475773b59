"""The embedded data set: 1,797 real 8x8 scans of digits that come with scikit-learn."""

import numpy as np

from augjax import check
from augjax.data.epochs import stratified
from augjax.data.source import Dataset, from_arrays

TEST_IMAGES = 360  # of 1,797; 1,437 remain to learn from
SPLIT_SEED = 0


def digits(image_size: int = 16, channels: int = 3) -> Dataset:
    """Handwritten digits [image_size, image_size, channels], 1,437 to train and 360 to test.

    A scan's values v in 0..16 become round(v * 255 / 16); every pixel is repeated (nearest
    neighbour, no smoothing) and all channels are equal. The split is `stratified` by class with
    seed 0, the same for every size. The same people wrote images of both parts.

    Raises ConfigError for a size that is no multiple of 8, and for channels other than 1 or 3.
    """
    check.require(
        image_size >= 8 and image_size % 8 == 0, "digits", "an image size that is a multiple of 8",
        image_size, "choose 8, 16, 24 or 32: pixels are repeated, not interpolated",
    )
    check.require(
        channels in (1, 3), "digits", "1 or 3 channels", channels, "choose 3 for colour policies"
    )
    from sklearn.datasets import load_digits  # a second of import time that only this set costs

    scans = load_digits()
    grey = np.round(scans.images * 255 / 16).astype(np.uint8)  # [N, 8, 8]
    times = image_size // 8
    images = np.repeat(grey.repeat(times, axis=1).repeat(times, axis=2)[..., None], channels, -1)
    test = np.zeros(len(images), bool)
    test[stratified(scans.target, TEST_IMAGES, SPLIT_SEED)] = True
    names = tuple(map(str, range(10)))
    return Dataset(
        name="digits",
        class_names=names,
        image_shape=images.shape[1:],
        train=from_arrays("digits train", images[~test], scans.target[~test], names),
        test=from_arrays("digits test", images[test], scans.target[test], names),
    )
