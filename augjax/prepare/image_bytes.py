"""One encoded image on its way into a data set: decoded once, encoded anew where it must be."""

from collections.abc import Mapping
import io

from PIL import Image
from tensorflow_datasets.proto import tf_example_pb2

from augjax.data.cropped import opened
from augjax.prepare.image_sets import Wanted

QUALITY = 95  # of JPEGs that have to be encoded again
_FORMATS = {"jpeg": ("JPEG", "MPO"), "png": ("PNG",)}  # MPO is a JPEG with further pictures behind


def fitted(encoded: bytes, wanted: Wanted) -> tuple[bytes, str]:
    """The bytes to store, and why they are other ones ("" where they are `encoded` itself).

    An RGB image in the wanted format whose short side is not above `wanted.short_side` stays as it
    is. Any other is decoded to RGB (alpha is dropped, of several frames the first is taken),
    scaled down by antialiased bicubic interpolation, and stored as JPEG of quality 95 or as PNG.
    Raises what Pillow raises where it does not decode, ValueError for another size or 16 bits.
    """
    image = opened(encoded)
    kind = f"{image.format} in {image.mode}"
    if wanted.size and image.size != wanted.size[::-1]:
        raise ValueError(f"it is {image.height} x {image.width}, not {wanted.size}")
    scale = (wanted.short_side or min(image.size)) / min(image.size)
    if image.format in _FORMATS[wanted.encoding] and image.mode == "RGB" and scale >= 1:
        require_decoding(image)
        return encoded, ""
    if image.mode[0] in "IF":
        raise ValueError(f"it is {kind}, not of 8 bits")
    rgb = image.convert("RGB")
    if scale < 1:
        width, height = (round(side * scale) for side in image.size)
        rgb = rgb.resize((width, height), Image.Resampling.BICUBIC)
    buffer = io.BytesIO()
    rgb.save(buffer, wanted.encoding, quality=QUALITY)
    return buffer.getvalue(), "scaled down" if scale < 1 else kind


def require_decoding(image: Image.Image) -> None:
    """Decodes all of an opened image; of a JPEG at an eighth of its size, which reads every bit."""
    image.draft(None, (1, 1))
    image.load()


def example(name: str, encoded: bytes, label: int) -> bytes:
    """A serialised tf.Example of `image_sets.of_images`'s features."""
    message = tf_example_pb2.Example()
    feature = message.features.feature
    feature["file_name"].bytes_list.value.append(name.encode(errors="surrogateescape"))
    feature["image"].bytes_list.value.append(encoded)
    feature["label"].int64_list.value.append(label)
    return message.SerializeToString(deterministic=True)


def refitted(content: bytes, wanted: Wanted) -> tuple[bytes, int, str]:
    """(content, label, why it changed) of a tf.Example that TFDS wrote; `content` itself unless
    its image is scaled down. Raises as `fitted`, and ValueError without one image and one label."""
    message = tf_example_pb2.Example.FromString(content)
    feature: Mapping = message.features.feature
    images, labels = feature["image"].bytes_list.value, feature["label"].int64_list.value
    if len(images) != 1 or len(labels) != 1:
        raise ValueError(f"it has {len(images)} images and {len(labels)} labels")
    image = opened(images[0])
    if wanted.size and image.size != wanted.size[::-1]:
        raise ValueError(f"it is {image.height} x {image.width}, not {wanted.size}")
    if wanted.short_side is None or min(image.size) <= wanted.short_side:
        require_decoding(image)
        return content, labels[0], ""
    images[0], why = fitted(images[0], wanted)
    return message.SerializeToString(deterministic=True), labels[0], why
