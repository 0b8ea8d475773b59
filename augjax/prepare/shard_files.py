"""The array_record files of a data set: which images each one holds, and how one is written.

Images stand in an order shuffled by Philox(seed 0) over their sorted names, so that a slice of a
split is a fair sample; tfrecord files are copied one to one, in their order.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
import dataclasses
from dataclasses import dataclass
import hashlib
import json
import os
from pathlib import Path

from array_record.python.array_record_module import ArrayRecordReader, ArrayRecordWriter
import numpy as np
import tqdm

from augjax.prepare import image_bytes, image_places, tfrecords
from augjax.prepare.image_sets import ImageSet, Item, Place, Records, Wanted

SHARD_IMAGES = 2500  # at most; about 280 MB of ImageNet


@dataclass(frozen=True)
class Job:
    """One shard to write: its path without .partial, and what goes into it.

    `stamp` is that of its sources (`image_places.stamp`): another one says that some have changed.
    """

    path: str
    split: str
    content: tuple[Item, ...] | Records
    wanted: Wanted
    classes: int
    stamp: tuple[str, str]

    @property
    def count(self) -> int:
        """Images that the source has for this shard."""
        return self.content.count if isinstance(self.content, Records) else len(self.content)


@dataclass(frozen=True)
class Shard:
    """A written shard. `labels`: {label: images}; `changed`: {why: images encoded anew}; `stamp`:
    its sources' when it was written."""

    file: str
    split: str
    count: int
    size: int  # bytes of its records
    sha256: str
    labels: dict[str, int] = dataclasses.field(default_factory=dict)
    changed: dict[str, int] = dataclasses.field(default_factory=dict)
    bad: tuple[str, ...] = ()
    stamp: tuple[str, ...] = ()


def file_name(dataset: str, split: str, number: int, total: int) -> str:
    """TFDS's name of a shard."""
    return f"{dataset}-{split}.array_record-{number:05d}-of-{total:05d}"


def jobs(images: ImageSet, folder: Path, shard_images: int = SHARD_IMAGES) -> list[Job]:
    """All shards of a data set, the same for the same images; asks the disk for each file."""
    shards = {}
    for split, content in images.splits.items():
        parts = content if isinstance(content[0], Records) else _dealt(content, shard_images)
        for number, part in enumerate(parts):
            shards[split, file_name(images.name, split, number, len(parts))] = part
    places, result = [_places(part) for part in shards.values()], []
    with (
        ThreadPoolExecutor() as pool,
        tqdm.tqdm(total=sum(map(len, places)), unit="file", desc="look at", delay=2) as bar,
    ):
        for ((split, file), part), stamp in zip(
                shards.items(), pool.map(image_places.stamp, places), strict=True):
            result.append(Job(str(folder / file), split, part, images.wanted,
                              len(images.class_names), stamp))
            bar.update(1 if isinstance(part, Records) else len(part))
    return result


def _places(content: Sequence[Item] | Records) -> list[Place]:
    if isinstance(content, Records):
        return [Place(content.path)]
    return [item.place for item in content]


def _dealt(items: Sequence[Item], shard_images: int) -> list[tuple[Item, ...]]:
    items = sorted(items)
    order = np.random.Generator(np.random.Philox(0)).permutation(len(items))
    shards = -(-len(items) // shard_images)
    return [tuple(items[k] for k in part) for part in np.array_split(order, shards)]


def digest(images: ImageSet, work: Sequence[Job]) -> str:
    """SHA-256 of everything that decides a data set's shards but the images' bytes, of which each
    job's stamp tells."""
    head = [images.name, images.version, images.class_names, images.wanted]
    result = hashlib.sha256(json.dumps(head).encode())
    for job in work:
        result.update(f"\n{Path(job.path).name}".encode())
        if isinstance(job.content, Records):
            result.update(f"\n{Path(job.content.path).name} {job.count}".encode())
        else:
            for name, label, _ in job.content:
                result.update(f"\n{name}\0{label}".encode(errors="surrogateescape"))
    return result.hexdigest()


def facts(images: ImageSet, work: Sequence[Job]) -> dict[str, str]:
    """What a data set was made of: its `digest`, and the stamps of all jobs together."""
    sizes, times = zip(*(job.stamp for job in work), strict=True)
    return {"source": digest(images, work), "sizes": image_places.sha256(sizes),
            "times": image_places.sha256(times)}


def make(job: Job, tick: Callable[[], None]) -> Shard:
    """Writes job.path + ".partial" and flushes it to the disk; calls tick() at every image.

    What is bad is named and left out. Raises OSError or RuntimeError where it cannot be written.
    """
    labels, changed, bad = {}, {}, []

    def records() -> Iterator[bytes]:
        for made in _examples(job):
            tick()
            if isinstance(made, str):
                bad.append(made)
                continue
            content, label, why = made
            labels[str(label)] = labels.get(str(label), 0) + 1
            if why:
                changed[why] = changed.get(why, 0) + 1
            yield content

    written = write_records(Path(f"{job.path}.partial"), job.split, records())
    return dataclasses.replace(
        written, file=Path(job.path).name, labels=labels, changed=changed, bad=tuple(bad),
        stamp=job.stamp,
    )


def write_records(path: Path, split: str, records: Iterable[bytes]) -> Shard:
    """Writes one array_record file, flushed to the disk and counted again from there."""
    count = size = 0
    writer = ArrayRecordWriter(str(path), "group_size:1")
    try:
        for record in records:
            writer.write(record)
            count, size = count + 1, size + len(record)
    finally:
        writer.close()  # raises where the disk was full
    with open(path, "rb") as file:
        os.fsync(file.fileno())
    found = ArrayRecordReader(str(path)).num_records()
    if found != count:
        raise OSError(f"{path} holds {found} records of the {count} written")
    return Shard(path.name, split, count, size, sha256(path))


def sha256(path: Path) -> str:
    """The file's SHA-256 in hexadecimal digits."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _examples(job: Job) -> Iterator[tuple[bytes, int, str] | str]:
    """(tf.Example, label, why it was encoded anew) of each image, or the name of what is bad."""
    if isinstance(job.content, Records):
        try:
            yield from _copied(job, job.content)
        except OSError as error:
            yield f"{job.content.path} ({error})"
        return
    for name, label, place in job.content:
        try:
            encoded, why = image_bytes.fitted(image_places.read(place), job.wanted)
        except Exception as error:  # Pillow and zipfile raise many kinds
            yield f"{place} ({error})"
        else:
            yield image_bytes.example(name, encoded, label), label, why


def _copied(job: Job, source: Records) -> Iterator[tuple[bytes, int, str] | str]:
    number = 0
    for number, content in enumerate(tfrecords.read_records(source.path), 1):
        if isinstance(content, tfrecords.Damaged):
            yield str(content)
            if content.ends:
                return
            continue
        try:
            made = image_bytes.refitted(content, job.wanted)
            if not 0 <= made[1] < job.classes:
                raise ValueError(f"label {made[1]} of {job.classes} classes")
        except Exception as error:  # Pillow and protobuf raise many kinds
            yield f"{source.path}, record {number - 1} ({error})"
        else:
            yield made
    if number != source.count:
        yield f"{source.path} ({number} records where its metadata say {source.count})"
