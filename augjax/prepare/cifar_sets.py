"""From a published CIFAR archive to a TFDS folder of array_record files.

Pixels are kept exactly (PNG), records stand in the archive's order, ids are those of TFDS. The
whole takes seconds, so that a killed command leaves nothing and begins anew.
"""

from collections.abc import Iterator, Mapping
import hashlib
import io
from pathlib import Path
import shutil
import tempfile

import numpy as np
from PIL import Image
import tensorflow_datasets as tfds
from tensorflow_datasets.proto import tf_example_pb2
import tqdm

from augjax import check
from augjax.prepare import target_folder
from augjax.prepare.archives import Archive, CLASSES, Split
from augjax.prepare.image_sets import KNOWN, require_counts
from augjax.prepare.shard_files import file_name, write_records
from augjax.data.records import open_split

_URL = "https://www.cs.toronto.edu/~kriz/cifar.html"


def target_of(archive: Archive, data_dir: Path) -> Path:
    """The folder that `tfds.builder(name)` finds."""
    return data_dir / archive.dataset / KNOWN[archive.dataset].version


def require_whole_archive(source: Path, archive: Archive, counts: Mapping[str, int]) -> None:
    """Raises DataError unless every class has its share of {split: images}."""
    for split, count in counts.items():
        for feature, values in archive.splits[split].labels.items():
            sizes = np.bincount(values, minlength=CLASSES[archive.dataset][feature])
            require_counts(f"{source}, {split}, {feature}", sizes, archive.names[feature], count,
                           "fetch the archive again")


def write(target: Path, archive: Archive) -> None:
    """Writes beside the target, reads everything back, and only then gives it its name.

    Raises OSError or RuntimeError where there is no room, and leaves nothing then.
    """
    needed = sum(split.images.nbytes for split in archive.splits.values())
    free = shutil.disk_usage(target.parent).free
    if free < needed:
        raise OSError(f"{free >> 20} MiB free where {needed >> 20} MiB may be needed")
    partial = Path(tempfile.mkdtemp(prefix=f".{target.name}.partial-", dir=target.parent))
    try:
        partial.chmod(0o755)  # mkdtemp makes folders that only their owner may enter
        shards = []
        for name, split in archive.splits.items():
            path = partial / file_name(archive.dataset, name, 0, 1)
            shards.append(write_records(path, name, _records(archive.dataset, name, split)))
        target_folder.describe(
            partial, archive.dataset, target.name, _features(archive), shards, homepage=_URL,
            description=f"{archive.dataset}, pixels as published (PNG), by augjax's launch.prepare",
        )
        verify(partial, archive, f"{archive.dataset} read back")
        target_folder.finish(partial, target, {"source": _digest(archive)}, shards)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def _records(dataset: str, name: str, split: Split) -> Iterator[bytes]:
    for index in tqdm.trange(len(split.images), desc=f"{dataset} {name}", unit="image"):
        labels = {feature: int(values[index]) for feature, values in split.labels.items()}
        yield _record(f"{name}_{index:05d}", split.images[index], labels)


def _record(name: str, image: np.ndarray, labels: Mapping[str, int]) -> bytes:
    example = tf_example_pb2.Example()
    feature = example.features.feature
    encoded = io.BytesIO()
    Image.fromarray(image).save(encoded, "PNG")
    feature["id"].bytes_list.value.append(name.encode())
    feature["image"].bytes_list.value.append(encoded.getvalue())
    for key, label in labels.items():
        feature[key].int64_list.value.append(label)
    return example.SerializeToString(deterministic=True)


def _features(archive: Archive) -> tfds.features.FeaturesDict:
    labels = {key: tfds.features.ClassLabel(names=names) for key, names in archive.names.items()}
    image = tfds.features.Image(shape=(32, 32, 3))
    return tfds.features.FeaturesDict({"id": tfds.features.Text(), "image": image, **labels})


def _digest(archive: Archive) -> str:
    result = hashlib.sha256()
    for split in archive.splits.values():
        result.update(split.images)
        for values in split.labels.values():
            result.update(np.ascontiguousarray(values))
    return result.hexdigest()


def verify(folder: Path, archive: Archive, what: str) -> None:
    """Raises DataError unless the folder holds the archive's images, labels and class names."""
    for name, split in archive.splits.items():
        found = open_split(folder, name)
        same = (
            found.class_names == archive.names["label"]
            and all(np.array_equal(found.reader.labels(feature), values)
                    for feature, values in split.labels.items())
            and np.array_equal(found.reader.read(found.positions), split.images)
        )
        check.require(
            same, what, f"the {len(split.images)} {name} images and labels of the source",
            "other ones", "move it away or choose another --data_dir", check.DataError,
        )
