"""Small collections of real JPEGs as ImageNet, Tiny-ImageNet, trees and tfrecords have them."""

import functools
import io
from pathlib import Path
import struct
import tarfile
import zipfile

import numpy as np
from PIL import Image
from sklearn.datasets import load_digits, load_sample_images
import tensorflow_datasets as tfds
from tensorflow_datasets.proto import tf_example_pb2

from augjax.prepare import prepare, target_folder
from augjax.prepare.crc32c import crc32c, masked
from augjax.prepare.image_layouts import synsets


@functools.cache
def photo(kind: int = 0) -> np.ndarray:
    """[427, 640, 3] uint8: scikit-learn's china.jpg or flower.jpg."""
    return load_sample_images().images[kind]


@functools.cache
def digits() -> np.ndarray:
    return np.round(load_digits().images * 255 / 16).astype(np.uint8)


def crop(number: int, height: int = 64, width: int = 64) -> np.ndarray:
    """A piece of a photograph, another one for each number."""
    top, left = number * 7 % (427 - height), number * 13 % (640 - width)
    return photo(number % 2)[top : top + height, left : left + width]


def encoded(pixels: np.ndarray, form: str = "JPEG", mode: str | None = None) -> bytes:
    image, buffer = Image.fromarray(pixels), io.BytesIO()
    (image.convert(mode) if mode else image).save(buffer, form)
    return buffer.getvalue()


@functools.cache
def scan(number: int) -> bytes:
    """A digit's scan of 8 x 8 as an RGB JPEG of 350 bytes; there are 20 different ones."""
    return encoded(np.repeat(digits()[number % 20][..., None], 3, -1))


def write_tree(root: Path, files: dict[str, bytes]) -> Path:
    """The files below `root`; a path that ends in / is a folder."""
    for path, content in files.items():
        folder = root / path if path.endswith("/") else (root / path).parent
        folder.mkdir(parents=True, exist_ok=True)
        if not path.endswith("/"):
            (root / path).write_bytes(content)
    return root


def write_zip(path: Path, files: dict[str, bytes]) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return path


def make(root: Path, sets: str = "sets", **options) -> Path:
    """Flowers of root/in, at most four to a shard."""
    return prepare(root / "in", root / sets, "flowers", shard_images=4, **options)


def contents(folder: Path) -> dict[str, object]:
    """{file: what is in it}, but the times of the source's files, which tests may write anew."""
    found = {path.name: path.read_bytes() for path in folder.iterdir()}
    if target_folder.CHECKSUMS in found:
        found[target_folder.CHECKSUMS] = target_folder.summary(folder) | {"times": None}
    return found


def tar_of(files: dict[str, bytes], links: dict[str, tuple[bytes, str]] | None = None) -> bytes:
    """A tar of the files, folders (that end in /) and {path: (tarfile's type, target)}."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            if name.endswith("/"):
                member.type = tarfile.DIRTYPE
            archive.addfile(member, io.BytesIO(content))
        for name, (kind, target) in (links or {}).items():
            member = tarfile.TarInfo(name)
            member.type, member.linkname = kind, target
            archive.addfile(member)
    return buffer.getvalue()


def tiny_files(annotated: bool = True, classes: int = 20) -> dict[str, bytes]:
    """Two training images and one validation image a class, of 64 x 64, some of them grey."""
    wnids = [f"n{k:05d}" for k in reversed(range(classes))]
    files, lines = {"wnids.txt": "\n".join(wnids).encode(), "words.txt": b"n1\tone"}, []
    for k, wnid in enumerate(wnids):
        for number in (0, 1):
            content = tile(2 * k + number)
            files[f"train/{wnid}/images/{wnid}_{number}.JPEG"] = content
        files[f"train/{wnid}/{wnid}_boxes.txt"] = b"0 1 2 3"
        place = "val/images" if annotated else f"val/{wnid}"
        files[f"{place}/val_{k}.JPEG"] = tile(k + 1)
        lines.append(f"val_{k}.JPEG\t{wnid}\t0\t32\t44\t62")
    files["test/images/test_0.JPEG"] = tile(3)
    if annotated:
        files["val/val_annotations.txt"] = "\n".join(lines).encode()
    return files


@functools.cache
def tile(number: int) -> bytes:
    """One of 16 JPEGs of 64 x 64, of which the tenth is grey."""
    number %= 16
    return encoded(crop(number), mode="L" if number == 10 else None)


@functools.cache
def validation_names() -> tuple[str, ...]:
    """For each of ImageNet's synsets, in order, its first validation image in TFDS's list."""
    path = Path(tfds.__file__).parent / "datasets/imagenet2012/validation_labels.txt"
    first = {}
    for number, synset in enumerate(path.read_text().split(), 1):
        first.setdefault(synset, f"ILSVRC2012_val_{number:08d}.JPEG")
    return tuple(first[synset] for synset in synsets())


def imagenet_files(flat: bool) -> dict[str, bytes]:
    """An image of each class in train and in val, where they lie `flat` or in class folders."""
    files = {}
    for k, (synset, name) in enumerate(zip(synsets(), validation_names())):
        files[f"train/{synset}/{synset}_{k}.JPEG"] = scan(k)
        files[f"val/{name}" if flat else f"val/{synset}/{name}"] = scan(k + 1)
    return files


def imagenet_tars(folder: Path) -> Path:
    """The same images as ImageNet's two tars."""
    classes = {f"{synset}.tar": tar_of({f"{synset}_{k}.JPEG": scan(k)})
               for k, synset in enumerate(synsets())}
    images = {name: scan(k + 1) for k, name in enumerate(validation_names())}
    return write_tree(folder, {"ILSVRC2012_img_train.tar": tar_of(classes),
                               "ILSVRC2012_img_val.tar": tar_of(images)})


def flower_files(images: int = 6, form: str = "JPEG") -> dict[str, bytes]:
    """A tree of three classes with photographs of several sizes; `images` a class in train."""
    ending, files = {"JPEG": "jpg", "PNG": "png"}[form], {}
    for k, name in enumerate(("aster", "iris", "rose")):
        for number in range(images + 2):
            split = "train" if number < images else "val"
            pixels = crop(10 * k + number, 40 + 3 * number, 60 - 4 * k)
            files[f"{split}/{name}/{number}.{ending}"] = encoded(pixels, form)
    return files


def tfrecord(contents: list[bytes]) -> bytes:
    """A tfrecord file's bytes."""
    parts = []
    for content in contents:
        length = struct.pack("<Q", len(content))
        parts += [length, struct.pack("<I", masked(crc32c(length))), content,
                  struct.pack("<I", masked(crc32c(content)))]
    return b"".join(parts)


def example(label: int, image: bytes, **texts: str) -> bytes:
    message = tf_example_pb2.Example()
    feature = message.features.feature
    feature["image"].bytes_list.value.append(image)
    feature["label"].int64_list.value.append(label)
    for key, text in texts.items():
        feature[key].bytes_list.value.append(text.encode())
    return message.SerializeToString()


def tfds_folder(
    folder: Path, features: dict, shards: dict[str, list[list[bytes]]], suffix: str = "tfrecord"
) -> Path:
    """FOLDER/NAME/VERSION as TFDS leaves it, of {split: examples of each file}."""
    folder.mkdir(parents=True)
    name, infos = folder.parent.name, []
    for split, files in shards.items():
        for number, contents in enumerate(files):
            path = folder / f"{name}-{split}.{suffix}-{number:05d}-of-{len(files):05d}"
            path.write_bytes(tfrecord(contents))
        template = tfds.core.ShardedFileTemplate(
            data_dir=folder, dataset_name=name, filetype_suffix=suffix, split=split
        )
        infos.append(tfds.core.SplitInfo(
            name=split, shard_lengths=[len(contents) for contents in files],
            num_bytes=sum(map(len, sum(files, []))), filename_template=template,
        ))
    tfds.folder_dataset.write_metadata(
        data_dir=folder, features=tfds.features.FeaturesDict(features), split_infos=infos,
        version=folder.name, check_data=False,
    )
    return folder
