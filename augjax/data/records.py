"""Images from a TFDS folder of array_record files, without TensorFlow."""

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
import functools
from pathlib import Path
import threading

from array_record.python.array_record_module import ArrayRecordReader
import numpy as np
import tensorflow_datasets as tfds
from tensorflow_datasets.proto import tf_example_pb2
import tqdm

from augjax import check
from augjax.data import stored_labels
from augjax.data.cropped import Cut, cut_to, opened
from augjax.data.prepared import AGAIN, metadata, prepared_folder
from augjax.data.source import Dataset, Source, read_only, require_labels

_CHUNK = 500  # records per read
_MANY = 400  # chunks, whose reading is worth a progress bar
_THREADS = 2


def tfds_images(
    name: str, data_dir: str | Path, cut: Cut | None = None, test: str = "test"
) -> Dataset:
    """The TFDS data set `name` under `data_dir`, prepared as array_record.

    `test` names the split that is tested on. The features need an `image` of uint8 and a `label`;
    others are ignored. Images of any size need a `cut`, those of one size take none.
    Raises DataError where it is missing, in another format, or not what its metadata say.
    """
    folder = prepared_folder(name, data_dir)
    sources = {"train": open_split(folder, "train"), "test": open_split(folder, test)}
    if None in sources["train"].image_shape:
        check.require(cut is not None, f"{name}, whose images are of any size", "an image_size",
                      "none", "set data.image_size to the pixels a side that are cut out of them")
        sources = {split: cut_to(source, cut) for split, source in sources.items()}
    else:
        size = list(sources["train"].image_shape[:2])
        check.require(
            cut is None or size == [cut.size] * 2, name, f"image_size={size[0]} or none",
            cut and cut.size, "leave it out: a network resizes what it is given",
        )
    train = sources["train"]
    return Dataset(
        name=name, class_names=train.class_names, image_shape=train.image_shape, **sources
    )


def open_split(folder: Path, split: str) -> Source:
    """One split of a prepared folder; a folder that has not changed is opened once per process."""
    files = []
    for path in sorted(folder.iterdir()):
        if not stored_labels.is_one(path):  # written when a split is opened first
            stat = path.stat()
            files.append((path.name, stat.st_size, stat.st_mtime_ns))
    return _open(folder.resolve(), split, tuple(files))


@functools.lru_cache(maxsize=4)
def _open(folder: Path, split: str, files: tuple) -> Source:
    name, info = f"{folder.parent.name} {split}", metadata(folder)
    features, splits = info.features, info.splits
    check.require(
        split in splits, name, f"a split {split!r}", sorted(splits), AGAIN, check.DataError
    )
    _require_features(name, features)
    reader = Records(folder, split, tuple(features["image"].shape))
    own = tuple(file for file in files if f"-{split}.array_record" in file[0])
    labels = stored_labels.read(folder, split, own, len(reader), reader.labels)
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
    """A `source.Reader` of one split's records; pickled without the pixels it keeps.

    Images of any size have None for height and width in `image_shape`; they are read by `each`.
    """

    def __init__(self, folder: Path, split: str, image_shape: tuple[int, int, int]):
        self.folder, self.split, self.image_shape = folder, split, image_shape
        self.name = f"{folder.parent.name} {split}"
        self._connect()

    def _connect(self) -> None:
        builder = tfds.builder_from_directory(self.folder)
        self._parts = builder.info.splits[self.split].file_instructions
        _require_whole(self._parts)
        self._raw = builder.as_data_source(
            self.split, deserialize_method=tfds.decode.DeserializeMethod.RAW_BYTES
        )
        self._lock = threading.Lock()
        self._kept = self._known = None

    def __len__(self) -> int:
        return len(self._raw)

    def __getstate__(self) -> tuple:
        return self.folder, self.split, self.image_shape, self.name

    def __setstate__(self, state: tuple) -> None:
        self.folder, self.split, self.image_shape, self.name = state
        self._connect()

    def labels(self, feature: str = "label") -> np.ndarray:
        """[N] int32, read from all records without decoding an image."""
        labels = np.empty(len(self), np.int64)
        chunks = _chunks(np.arange(len(labels)))
        for chunk in tqdm.tqdm(chunks, f"{self.name}: reading the {feature}s once",
                               disable=None if len(chunks) > _MANY else True):
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

    def each(self, positions: np.ndarray, decode: Callable[[int, bytes], np.ndarray]
             ) -> list[np.ndarray | check.DataError]:
        """What `decode(place, encoded)` makes of every image, or the DataError that names it."""
        def attempt(place, position, example):
            if isinstance(example, check.DataError):
                return example
            try:
                return decode(place, example.features.feature["image"].bytes_list.value[0])
            except MemoryError:
                raise
            except Exception as error:  # Pillow and its decoders raise many kinds
                what = f"{type(error).__name__}: {error}"
                return self._error(position, example, "an image", what)

        found = self._examples_or_errors(positions)
        return [attempt(place, *pair) for place, pair in enumerate(zip(positions, found))]

    def _examples(self, positions: np.ndarray) -> list[tf_example_pb2.Example]:
        found = self._examples_or_errors(positions)
        for example in found:
            if isinstance(example, check.DataError):
                raise example
        return found

    def _examples_or_errors(self, positions):
        """The Example of each record, or the DataError that names it."""
        try:
            raw = self._raw.__getitems__([int(position) for position in positions])
        except Exception as error:  # array_record raises many kinds
            if len(positions) == 1:
                return [self._error(positions[0], None, "a readable record", error)]
            return [self._examples_or_errors(positions[place : place + 1])[0]  # to find the bad one
                    for place in range(len(positions))]
        return [self._example(*pair) for pair in zip(positions, raw, strict=True)]

    def _example(self, position, record):
        try:
            return tf_example_pb2.Example.FromString(record)
        except Exception:  # protobuf's DecodeError has no stable home
            return self._error(position, None, "a tf.Example", "other bytes")

    def _decode(self, position: int, example: tf_example_pb2.Example) -> np.ndarray:
        shape = list(self.image_shape)
        encoded = example.features.feature["image"].bytes_list.value
        try:
            pixels = np.asarray(opened(encoded[0]))
        except (OSError, SyntaxError, ValueError, IndexError) as error:
            raise self._error(position, example, f"an image {shape}", error) from error
        pixels = pixels[..., None] if pixels.ndim == 2 else pixels
        if pixels.shape != self.image_shape or pixels.dtype != np.uint8:
            got = f"{list(pixels.shape)} of {pixels.dtype}"
            raise self._error(position, example, f"an image {shape} of uint8", got)
        return pixels

    def _error(self, position, example, expected, got) -> check.DataError:
        called = ""
        for key in ("id", "file_name") if example else ():
            for value in example.features.feature[key].bytes_list.value:
                called = f" ({key.replace('_', ' ')} {value.decode(errors='replace')})"
        ends = np.cumsum([part.examples_in_shard for part in self._parts])
        file = self._parts[np.searchsorted(ends, position, "right")].filename
        what = f"{self.name} record {position}{called} in {file}"
        return check.DataError(check.sentence(what, expected, got, AGAIN))


def _chunks(positions: np.ndarray) -> list[np.ndarray]:
    return [positions[start : start + _CHUNK] for start in range(0, len(positions), _CHUNK)]


def _require_whole(parts: Sequence) -> None:
    """Raises DataError unless every shard holds as many records as the metadata say."""
    for part in parts:
        try:
            count = ArrayRecordReader(part.filename).num_records()
        except Exception as error:  # array_record raises many kinds
            raise check.DataError(check.sentence(
                part.filename, f"{part.examples_in_shard} records", error, AGAIN
            )) from error
        check.require(
            count == part.examples_in_shard, part.filename, f"{part.examples_in_shard} records",
            f"{count}, so the file is cut off or not this data set's", AGAIN, check.DataError,
        )


def _require_features(name: str, features) -> None:
    known = dict(features.items()) if isinstance(features, tfds.features.FeaturesDict) else {}
    image, label = known.get("image"), known.get("label")
    fits = (
        isinstance(image, tfds.features.Image) and isinstance(label, tfds.features.ClassLabel)
        and (None not in image.shape or image.shape == (None, None, 3))
        and image.np_dtype == np.uint8
    )
    check.require(
        fits, name, "features `image` (uint8, of one shape or any) and `label`", features,
        "prepare it with launch.prepare", check.DataError,
    )
