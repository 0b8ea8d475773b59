"""Images from a TFDS folder of array_record files, without TensorFlow."""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
import functools
import io
import json
from pathlib import Path
import re
import threading

from array_record.python.array_record_module import ArrayRecordReader
import numpy as np
from PIL import Image
import tensorflow_datasets as tfds
from tensorflow_datasets.proto import tf_example_pb2

from augjax import check
from augjax.data.source import Dataset, Source, read_only, require_labels

ARCHIVES = {"cifar10": "cifar-10-python.tar.gz", "cifar100": "cifar-100-python.tar.gz"}
_CHUNK = 500  # records per read
_THREADS = 2
_AGAIN = "prepare the data again from an intact archive"


def tfds_images(name: str, data_dir: str | Path) -> Dataset:
    """The TFDS data set `name` under `data_dir`, prepared as array_record with train and test.

    Its features need an `image` of fixed shape and uint8, and a `label`; others are ignored.
    Raises DataError where it is missing, in another format, or not what its metadata say.
    """
    folder = prepared_folder(name, data_dir)
    sources = {split: open_split(folder, split) for split in ("train", "test")}
    train = sources["train"]
    return Dataset(
        name=name, class_names=train.class_names, image_shape=train.image_shape, **sources
    )


def prepared_folder(name: str, data_dir: str | Path) -> Path:
    """The newest data_dir/name/version that is array_record; DataError says what is there."""
    root = Path(data_dir).expanduser()
    found = {}
    for path in (root / name).glob("*/dataset_info.json"):
        if re.fullmatch(r"\d+\.\d+\.\d+", path.parent.name):
            found[path.parent] = _file_format(path)
    ready = [folder for folder, kind in found.items() if kind == "array_record"]
    if ready:
        return max(ready, key=lambda folder: tuple(map(int, folder.name.split("."))))
    if found:
        got = ", ".join(f"{folder} as {kind}" for folder, kind in sorted(found.items()))
    else:
        place = root / name if (root / name).is_dir() else root
        got = f"{place}, {_contents(place)}"
    source = ARCHIVES.get(name, "PATH")
    raise check.DataError(check.sentence(
        name, f"a prepared data set of array_record files in {root / name}/VERSION", got,
        f"run `python -m launch.prepare --source={source} --data_dir={root}`",
    ))


def open_split(folder: Path, split: str) -> Source:
    """One split of a prepared folder; a folder that has not changed is opened once per process."""
    files = []
    for path in sorted(folder.iterdir()):
        stat = path.stat()
        files.append((path.name, stat.st_size, stat.st_mtime_ns))
    return _open(folder.resolve(), split, tuple(files))


@functools.lru_cache(maxsize=4)
def _open(folder: Path, split: str, files: tuple) -> Source:
    del files  # part of the cache's key: changed files are opened anew
    name = f"{folder.parent.name} {split}"
    try:
        info = tfds.builder_from_directory(folder).info
        features, splits = info.features, info.splits
    except Exception as error:  # whatever TFDS says of a broken folder
        raise check.DataError(check.sentence(
            str(folder), "metadata that TFDS can read", f"{type(error).__name__}: {error}", _AGAIN
        )) from error
    check.require(
        split in splits, name, f"a split {split!r}", sorted(splits), _AGAIN, check.DataError
    )
    _require_features(name, features)
    reader = Records(folder, split, tuple(features["image"].shape))
    labels = reader.labels()
    classes = features["label"].num_classes
    require_labels(name, labels, classes)
    return Source(
        name=name,
        class_names=tuple(features["label"].names or map(str, range(classes))),
        image_shape=reader.image_shape,
        labels=read_only(labels),
        reader=reader,
        positions=read_only(np.arange(len(labels), dtype=np.int32)),
    )


class Records:
    """A `source.Reader` of one split's records; pickled without the pixels it keeps."""

    def __init__(self, folder: Path, split: str, image_shape: tuple[int, int, int]):
        self.folder, self.split, self.image_shape = folder, split, image_shape
        self.name = f"{folder.parent.name} {split}"
        self._connect()

    def _connect(self) -> None:
        builder = tfds.builder_from_directory(self.folder)
        _require_whole(builder.info.splits[self.split])
        self._raw = builder.as_data_source(
            self.split, deserialize_method=tfds.decode.DeserializeMethod.RAW_BYTES
        )
        self._lock = threading.Lock()
        self._kept = self._known = None

    def __getstate__(self) -> tuple:
        return self.folder, self.split, self.image_shape, self.name

    def __setstate__(self, state: tuple) -> None:
        self.folder, self.split, self.image_shape, self.name = state
        self._connect()

    def labels(self, feature: str = "label") -> np.ndarray:
        """[N] int32, read from all records without decoding an image."""
        labels = np.empty(len(self._raw), np.int64)
        for chunk in _chunks(np.arange(len(labels))):
            for position, example in zip(chunk, self._examples(chunk)):
                values = example.features.feature[feature].int64_list.value
                if len(values) != 1:
                    raise self._error(position, example, f"one {feature}", len(values))
                labels[position] = values[0]
        return labels.astype(np.int32)

    def read(self, positions: np.ndarray) -> np.ndarray:
        """[n] int -> [n, H, W, C] uint8; DataError names the record that does not decode."""
        if self._known is not None and self._known[positions].all():
            return self._kept[positions]
        images = np.empty((len(positions), *self.image_shape), np.uint8)
        examples = self._examples(positions)
        for image, position, example in zip(images, positions, examples):
            image[...] = self._decode(position, example)
        return images

    def keep(self, positions: np.ndarray) -> np.ndarray:
        """The same pixels; what was kept before is not decoded again, the rest by two threads."""
        with self._lock:
            if self._known is None:
                self._kept = np.zeros((len(self._raw), *self.image_shape), np.uint8)
                self._known = np.zeros(len(self._raw), bool)
            missing = positions[~self._known[positions]]

            def decode(chunk):
                self._kept[chunk] = self.read(chunk)
                self._known[chunk] = True

            with ThreadPoolExecutor(_THREADS) as pool:
                list(pool.map(decode, _chunks(missing)))
        if np.array_equal(positions, np.arange(len(self._raw))):
            return read_only(self._kept)
        return self._kept[positions]

    def _examples(self, positions: np.ndarray) -> list[tf_example_pb2.Example]:
        try:
            raw = self._raw.__getitems__([int(position) for position in positions])
        except Exception as error:  # array_record raises many kinds
            raise check.DataError(check.sentence(
                f"{self.name} in {self.folder}", "readable records", error, _AGAIN
            )) from error
        examples = []
        for position, record in zip(positions, raw, strict=True):
            try:
                examples.append(tf_example_pb2.Example.FromString(record))
            except Exception as error:  # protobuf's DecodeError has no stable home
                raise self._error(position, None, "a tf.Example", "other bytes") from error
        return examples

    def _decode(self, position: int, example: tf_example_pb2.Example) -> np.ndarray:
        shape = list(self.image_shape)
        encoded = example.features.feature["image"].bytes_list.value
        try:
            pixels = np.asarray(Image.open(io.BytesIO(encoded[0])))
        except (OSError, SyntaxError, ValueError, IndexError) as error:
            raise self._error(position, example, f"an image {shape}", error) from error
        pixels = pixels[..., None] if pixels.ndim == 2 else pixels
        if pixels.shape != self.image_shape or pixels.dtype != np.uint8:
            got = f"{list(pixels.shape)} of {pixels.dtype}"
            raise self._error(position, example, f"an image {shape} of uint8", got)
        return pixels

    def _error(self, position, example, expected, got) -> check.DataError:
        ids = example.features.feature["id"].bytes_list.value if example else ()
        called = f" (id {ids[0].decode(errors='replace')})" if ids else ""
        what = f"{self.name} record {position}{called} in {self.folder}"
        return check.DataError(check.sentence(what, expected, got, _AGAIN))


def _chunks(positions: np.ndarray) -> list[np.ndarray]:
    return [positions[start : start + _CHUNK] for start in range(0, len(positions), _CHUNK)]


def _require_whole(info) -> None:
    """Raises DataError unless every shard holds as many records as the metadata say."""
    for part in info.file_instructions:
        try:
            count = ArrayRecordReader(part.filename).num_records()
        except Exception as error:  # array_record raises many kinds
            raise check.DataError(check.sentence(
                part.filename, f"{part.examples_in_shard} records", error, _AGAIN
            )) from error
        check.require(
            count == part.examples_in_shard, part.filename, f"{part.examples_in_shard} records",
            f"{count}, so the file is cut off or not this data set's", _AGAIN, check.DataError,
        )


def _require_features(name: str, features) -> None:
    known = dict(features.items()) if isinstance(features, tfds.features.FeaturesDict) else {}
    image, label = known.get("image"), known.get("label")
    fits = (
        isinstance(image, tfds.features.Image) and isinstance(label, tfds.features.ClassLabel)
        and None not in image.shape and image.np_dtype == np.uint8
    )
    check.require(
        fits, name, "features `image` (uint8, of fixed shape) and `label`", features,
        "prepare it with launch.prepare", check.DataError,
    )


def _file_format(path: Path) -> str:
    try:
        return str(json.loads(path.read_text()).get("fileFormat", "tfrecord"))
    except (OSError, ValueError, AttributeError) as error:
        raise check.DataError(check.sentence(
            str(path), "TFDS metadata", error, _AGAIN
        )) from error


def _contents(place: Path) -> str:
    if not place.is_dir():
        return "which is not a folder" if place.exists() else "which does not exist"
    names: Sequence[str] = sorted(path.name for path in place.iterdir())
    more = f" and {len(names) - 8} more" if len(names) > 8 else ""
    return f"which holds {', '.join(names[:8])}{more}" if names else "which is empty"
