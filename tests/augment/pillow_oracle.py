"""Pillow's own answers, and the pictures they are asked about."""

import io
import math

from array_record.python.array_record_module import ArrayRecordReader
import numpy as np
from PIL import Image, ImageEnhance, ImageOps
from tensorflow_datasets.proto import tf_example_pb2

from augjax.augment.maps import linspace

ENHANCERS = {
    "color": ImageEnhance.Color, "contrast": ImageEnhance.Contrast,
    "brightness": ImageEnhance.Brightness, "sharpness": ImageEnhance.Sharpness,
}


def as_pillow(image):
    return Image.fromarray(image[..., 0] if image.shape[-1] == 1 else image)


def as_array(picture, channels):
    return np.asarray(picture).reshape(picture.height, picture.width, channels)


def _transformed(picture, numbers, fill):
    return picture.transform(
        picture.size, Image.Transform.AFFINE, numbers, Image.Resampling.NEAREST, fillcolor=fill
    )


def one_operation(name, image, value=None, fill=128):
    """Pillow's result for one uint8 [H, W, C]; `value` in the operation's own unit (spec B2)."""
    channels = image.shape[-1]
    picture = as_pillow(image)
    fill = fill if channels == 1 else tuple(int(v) for v in np.broadcast_to(fill, (3,)))
    match name:
        case "identity":
            result = picture
        case "autocontrast" | "equalize" | "invert":
            result = getattr(ImageOps, name)(picture)
        case "posterize" | "solarize":
            result = getattr(ImageOps, name)(picture, value)
        case "solarize_add":
            table = [min(255, v + value) if v < 128 else v for v in range(256)] * channels
            result = picture.point(table)
        case "color" | "contrast" | "brightness" | "sharpness":
            result = ENHANCERS[name](picture).enhance(value)
        case "rotate":
            result = picture.rotate(value, Image.Resampling.NEAREST, fillcolor=fill)
        case "shear_x":
            result = _transformed(picture, (1, value, 0, 0, 1, 0), fill)
        case "shear_y":
            result = _transformed(picture, (1, 0, 0, value, 1, 0), fill)
        case "translate_x":
            result = _transformed(picture, (1, 0, value, 0, 1, 0), fill)
        case "translate_y":
            result = _transformed(picture, (1, 0, 0, 0, 1, value), fill)
    return as_array(result, channels)


def torchvision_value(name, level, negative, height, width):
    """What torchvision's RandAugment hands to Pillow at a level (spec B3 iii)."""
    sign = -1.0 if negative else 1.0
    tops = {
        "rotate": 30.0, "shear_x": 0.3, "shear_y": 0.3,
        "translate_x": 150.0 / 331.0 * width, "translate_y": 150.0 / 331.0 * height,
    }
    if name in ("identity", "autocontrast", "equalize"):
        return None
    if name == "posterize":
        return 8 - round(level / 7.5)
    if name == "solarize":
        return 255 - 8.5 * level
    if name in ENHANCERS:
        return 1.0 + sign * float(linspace(0.0, 0.9, 31)[level])
    bin_of = float(linspace(0.0, tops[name], 31)[level])
    return math.trunc(sign * bin_of) if name.startswith("translate") else sign * bin_of


def pictures(height, width, channels, seed=0):
    """[7, H, W, C] uint8: noise, low contrast twice, smooth, sparse, constant, two-valued."""
    rng = np.random.default_rng(seed)
    shape = (height, width, channels)
    y, x, c = np.meshgrid(*map(np.arange, shape), indexing="ij")
    return np.stack([
        rng.integers(0, 256, shape),
        rng.integers(100, 131, shape),
        rng.integers(0, 9, shape) * np.array([1, 3, 29])[:channels],
        (3 * x + 2 * y + 60 * c + rng.integers(-4, 5, shape)) % 256,
        np.where(rng.random(shape) < 0.03, rng.integers(0, 256, shape), 200),
        np.full(shape, 77),
        np.where(rng.random(shape) < 0.5, 255, 0),
    ]).astype(np.uint8)


def cifar(folder, count):
    """[count, 32, 32, 3] uint8, the first images of the JPEG copy's test split."""
    path = next((folder / "cifar10").glob("*/cifar10-test.array_record-*"))
    reader = ArrayRecordReader(str(path))
    records = reader.read(list(range(count)))
    reader.close()
    images = []
    for record in records:
        example = tf_example_pb2.Example.FromString(record)
        data = example.features.feature["image"].bytes_list.value[0]
        images.append(np.asarray(Image.open(io.BytesIO(data)).convert("RGB")))
    return np.stack(images)
