"""From a published CIFAR archive to a TFDS folder of array_record files, without TensorFlow.

The folder is what `tfds.builder`, `tfds.data_source` and `augjax.data.tfds_images` read. Pixels are
kept exactly (PNG), records stand in the archive's order, ids are those of TFDS. It appears under
its name only when it is complete and has been read back.
"""

from collections.abc import Mapping
import contextlib
import io
import os
from pathlib import Path
import shutil
import tempfile

from array_record.python.array_record_module import ArrayRecordWriter
import numpy as np
from PIL import Image
import tensorflow_datasets as tfds
from tensorflow_datasets.proto import tf_example_pb2
import tqdm

from augjax import check
from augjax.data.archives import CLASSES, Archive, Split, read_archive
from augjax.data.records import open_split

VERSION = "3.0.2"  # TFDS's version of both data sets, so that `tfds.builder(name)` finds them
COUNTS = {"train": 50_000, "test": 10_000}
_URL = "https://www.cs.toronto.edu/~kriz/cifar.html"


def prepare(
    source: str | Path,
    data_dir: str | Path,
    dataset: str | None = None,
    counts: Mapping[str, int] = COUNTS,
) -> Path:
    """Writes data_dir/NAME/3.0.2 from the CIFAR archive or folder `source`; returns that folder.

    `dataset` says which of "cifar10" and "cifar100" where the source holds both. A folder that
    already holds the same images and labels is left alone; any other is refused. Raises DataError
    (and leaves nothing half-made) where the archive is broken, a class has not counts / K images,
    or the disk is full.
    """
    source, data_dir = Path(source).expanduser(), Path(data_dir).expanduser()
    if dataset is not None:
        check.one_of("--dataset", dataset, CLASSES)
    archive = read_archive(source, dataset)
    _require_counts(source, archive, counts)
    target = data_dir / archive.dataset / VERSION
    if target.exists():
        _verify(target, archive, f"{target} exists and its content")
        return target
    made = [path for path in (target.parent, *target.parent.parents) if not path.exists()]
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        _write_folder(target, archive)
    except (OSError, RuntimeError) as error:  # array_record raises RuntimeError when a disk is full
        raise check.DataError(check.sentence(
            str(target), "a place to write", error, "free space there or choose another --data_dir"
        )) from error
    finally:
        for path in made:
            with contextlib.suppress(OSError):  # not empty: it holds what was asked for
                path.rmdir()
    return target


def _require_counts(source: Path, archive: Archive, counts: Mapping[str, int]) -> None:
    for split, count in counts.items():
        part = archive.splits[split]
        check.require(
            len(part.images) == count, f"{source}, {split}", f"{count} images", len(part.images),
            "fetch the archive again", check.DataError,
        )
        for feature, values in part.labels.items():
            classes = CLASSES[archive.dataset][feature]
            sizes = np.bincount(values, minlength=classes)
            check.require(
                np.all(sizes * classes == count), f"{source}, {split}",
                f"{count // classes} images for each {feature}", sizes.tolist(),
                "fetch the archive again", check.DataError,
            )


def _write_folder(target: Path, archive: Archive) -> None:
    """Writes beside the target, reads everything back, and only then gives it its name."""
    needed = sum(split.images.nbytes for split in archive.splits.values())
    free = shutil.disk_usage(target.parent).free
    if free < needed:
        raise OSError(f"{free >> 20} MiB free where {needed >> 20} MiB may be needed")
    partial = Path(tempfile.mkdtemp(prefix=f".{VERSION}.partial-", dir=target.parent))
    try:
        partial.chmod(0o755)  # mkdtemp makes folders that only their owner may enter
        infos = [_write_split(partial, archive.dataset, name, split)
                 for name, split in archive.splits.items()]
        tfds.folder_dataset.write_metadata(
            data_dir=partial,
            features=_features(archive),
            split_infos=infos,
            version=VERSION,
            check_data=False,  # tfds checks with TensorFlow; `_verify` does more
            description=f"{archive.dataset}, pixels as published (PNG), by augjax's launch.prepare",
            supervised_keys=("image", "label"),
            homepage=_URL,
        )
        _verify(partial, archive, f"{archive.dataset} read back")
        for path in partial.iterdir():
            with open(path, "rb") as file:
                os.fsync(file.fileno())
        partial.rename(target)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def _write_split(folder: Path, dataset: str, name: str, split: Split) -> tfds.core.SplitInfo:
    template = tfds.core.ShardedFileTemplate(
        data_dir=folder, dataset_name=dataset, filetype_suffix="array_record", split=name
    )
    path = folder / f"{dataset}-{name}.array_record-00000-of-00001"
    writer, written = ArrayRecordWriter(str(path), "group_size:1"), 0
    try:
        for index in tqdm.trange(len(split.images), desc=f"{dataset} {name}", unit="image"):
            labels = {feature: int(values[index]) for feature, values in split.labels.items()}
            record = _record(f"{name}_{index:05d}", split.images[index], labels)
            writer.write(record)
            written += len(record)
    finally:
        writer.close()  # raises where the disk was full
    return tfds.core.SplitInfo(
        name=name, shard_lengths=[len(split.images)], num_bytes=written, filename_template=template
    )


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


def _verify(folder: Path, archive: Archive, what: str) -> None:
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
