"""TFDS folders prepared as tfrecord (TFDS's default), without TensorFlow.

A tfrecord file is a row of records: 8 bytes of length and 4 of its masked CRC-32C, then the
content and 4 bytes of its own, all little-endian.
"""

from collections.abc import Iterator
from pathlib import Path
import struct

import tensorflow_datasets as tfds

from augjax import check
from augjax.prepare.crc32c import crc32c, masked
from augjax.prepare.image_sets import ImageSet, KNOWN, Records, Wanted

_LARGEST = 2**30  # bytes of a record


class Damaged(Exception):
    """A record that is not what was written; `ends` where no later record can be found."""

    def __init__(self, message: str, ends: bool):
        super().__init__(message)
        self.ends = ends


def read_records(path: str) -> Iterator[bytes | Damaged]:
    """Yields each record's content or what is wrong with it; nothing more after a broken length."""
    with open(path, "rb") as file:
        number = offset = 0
        while header := file.read(12):
            where = f"{path}, record {number} at byte {offset}"
            length, check_sum = struct.unpack("<QI", header.ljust(12, b"\0"))
            if len(header) < 12 or masked(crc32c(header[:8])) != check_sum or length > _LARGEST:
                yield Damaged(f"{where}: its length is damaged, and what follows is lost", True)
                return
            content, footer = file.read(length), file.read(4)
            if len(content) < length or len(footer) < 4:
                yield Damaged(f"{where}: {length} bytes were announced and the file ends", True)
                return
            intact = masked(crc32c(content)) == struct.unpack("<I", footer)[0]
            yield content if intact else Damaged(f"{where}: its checksum differs", False)
            number, offset = number + 1, offset + 16 + length


def find(source: Path, dataset: str | None) -> list[Path]:
    """Folders of TFDS metadata: the source, NAME/VERSION and VERSION below it; by name if given."""
    found = [path.parent for pattern in ("", "*/", "*/*/")
             for path in sorted(source.glob(f"{pattern}dataset_info.json"))]
    if dataset is None or len(found) < 2:
        return found
    return [folder for folder in found if dataset in folder.parts[-2:]]


def read_folder(folder: Path) -> ImageSet:
    """The ImageSet of one TFDS folder with an `image` and a `label`; records keep their order.

    Of imagenet2012 the test images, which have no labels, are left out. DataError where it is in
    another format, has other features, or lacks a file.
    """
    try:
        info = tfds.builder_from_directory(folder).info
        form, features = info.file_format.file_suffix, info.features
        label, image = features["label"], features["image"]
        classes = tuple(label.names)
        size = tuple(image.shape[:2])
    except Exception as error:  # whatever TFDS says of a broken folder or of other features
        raise check.DataError(check.sentence(
            str(folder), "TFDS metadata of a set with `image` and `label`",
            f"{type(error).__name__}: {error}", "prepare it again with TFDS",
        )) from error
    fix = "it can be read as it is: pass --data_dir" if form == "array_record" else (
        "prepare it with TFDS's default format")
    check.require(form == "tfrecord", str(folder), "tfrecord files", form, fix, check.DataError)
    known = KNOWN.get(info.name)
    splits = {}
    for name, split in info.splits.items():
        if known is None or name in known.counts:
            paths = [str(path) for path in split.filepaths]
            missing = [Path(path).name for path in paths if not Path(path).is_file()]
            check.require(not missing, str(folder), f"{len(paths)} files of {name}",
                          f"none named {', '.join(missing[:5])}", "copy them there",
                          check.DataError)
            splits[name] = [Records(*pair) for pair in zip(paths, split.shard_lengths, strict=True)]
    wanted = Wanted(image.encoding_format or "png", None if None in size else size)
    return ImageSet(info.name, str(info.version), classes, wanted, splits, features)
