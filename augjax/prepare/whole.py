"""From images as people have them to a TFDS folder of array_record files, without TensorFlow.

The folder is what `tfds.builder_from_directory`, `tfds.data_source` and augjax read. It appears
under its name only when it is whole: every image was decoded, counts are the published ones, and
checksums.json has each file's SHA-256.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
import contextlib
import os
from pathlib import Path
import shutil

import numpy as np
import tqdm

from augjax import check
from augjax.prepare import cifar_sets, target_folder, shard_files, worker_pool
from augjax.prepare.archives import Archive
from augjax.prepare.image_sets import (
    ImageSet, Item, KNOWN, of_images, Records, require_counts,
)
from augjax.prepare.shard_files import Job, Shard, SHARD_IMAGES
from augjax.prepare.source_kinds import recognise

_NAMED = 20  # bad images in an error
_SAMPLED = 1000  # files whose sizes tell how much room is needed


def prepare(
    source: str | Path,
    data_dir: str | Path,
    dataset: str | None = None,
    counts: Mapping[str, int] | None = None,
    *,
    short_side: int | None = None,
    image_size: int | None = None,
    skip_bad: bool = False,
    workers: int = 1,
    shard_images: int = SHARD_IMAGES,
    told: Callable[[str], None] = print,
) -> Path:
    """Writes data_dir/NAME/VERSION from what lies at `source`; returns that folder.

    `dataset` names a class-per-folder tree, or says which set where a folder holds several;
    `counts` {split: images} stand in for the published ones. `short_side` (pixels) scales larger
    images down; `skip_bad` leaves images out that do not decode, and lists them in skipped.txt.
    `told` is given the number of classes, what of the source is passed over, and whether its files
    have changed since an earlier command. A whole folder of the same images, by their names, labels
    and sizes, is verified and left alone, any other is refused. What was interrupted goes on with
    its first missing shard and ends in the same bytes (CIFAR, which takes seconds, begins anew).
    Raises DataError where the source is broken, ConfigError where the arguments do not fit, and
    CheckpointError where the folder cannot be written.
    """
    source, data_dir = Path(source).expanduser(), Path(data_dir).expanduser()
    check.require(workers >= 1, "--workers", "a number of processes from 1 on", workers, "choose 1")
    check.require(
        short_side is None or short_side >= 32, "--short_side", "a number of pixels from 32 on",
        short_side, "choose 256 or more for crops of 224",
    )
    inside = source.is_dir() and data_dir.resolve().is_relative_to(source.resolve())
    check.require(not inside, "--data_dir", f"a folder outside of --source={source}", data_dir,
                  "choose one beside it")
    found = recognise(source, dataset)
    if isinstance(found, Archive):
        for flag, given in (("--short_side", short_side), ("--image_size", image_size)):
            check.require(given is None, flag, "none for CIFAR", given, "leave it out")
        return _prepare_cifar(source, data_dir, found, counts or KNOWN[found.dataset].counts)
    found = found if image_size is None else _of_one_size(found, image_size)
    wanted = found.wanted._replace(short_side=short_side)
    check.require(wanted.size is None or short_side is None, "--short_side",
                  f"none where all images are {wanted.size}", short_side, "leave it out")
    found = ImageSet(**vars(found) | {"wanted": wanted})
    known = KNOWN.get(found.name)
    if counts is None:
        counts = known.counts if known else dict.fromkeys(found.splits)
    _require_planned(source, found, counts)

    def say(line: str) -> None:  # names of files may be no UTF-8
        told(line.encode(errors="backslashreplace").decode())

    for line in (f"classes: {len(found.class_names)}", *found.told):
        say(line)
    return _prepare_images(source, data_dir, found, counts, skip_bad, workers, shard_images, say)


def _of_one_size(found: ImageSet, side: int) -> ImageSet:
    """The same images, of which each is asked to be `side` x `side`."""
    tree = found.name not in KNOWN and all(
        isinstance(item, Item) for content in found.splits.values() for item in content[:1])
    check.require(tree, "--image_size", "a tree of your own images", found.name, "leave it out")
    check.require(side >= 1, "--image_size", "the pixels a side of every image", side,
                  "write for example 32")
    return of_images(found.name, found.version, found.class_names,
                     found.wanted._replace(size=(side, side)), found.splits, found.told)


def _prepare_cifar(source, data_dir, archive, counts):
    target = cifar_sets.target_of(archive, data_dir)
    cifar_sets.require_whole_archive(source, archive, counts)
    if target.exists():
        cifar_sets.verify(target, archive, f"{target} exists and its content")
        return target
    with _place_to_write(target):
        cifar_sets.write(target, archive)
    return target


def _require_planned(source: Path, images: ImageSet, counts: Mapping[str, int | None]) -> None:
    """Raises DataError at once where the list of files cannot become the data set."""
    missing = sorted(set(counts) - set(images.splits))
    check.require(not missing, str(source), f"images of {', '.join(counts)}",
                  f"none of {', '.join(missing)}", "give the whole data set", check.DataError)
    for split, content in images.splits.items():
        what = f"{source}, {split}"
        if content and isinstance(content[0], Records):
            total, expected = sum(part.count for part in content), counts.get(split)
            check.require(expected in (None, total), what, f"{expected} images", total,
                          "prepare it again with TFDS", check.DataError)
        else:
            labels = [item.label for item in content]
            sizes = np.bincount(labels, minlength=len(images.class_names))
            _require_share(what, split, sizes, images.class_names, counts.get(split))


def _require_share(what: str, split: str, sizes: np.ndarray, names: Sequence[str],
                   count: int | None, fix: str = "fetch the source again") -> None:
    """`require_counts`, but that a split of an unknown count is asked for any image, train for one
    of each class."""
    if split == "train" or count is not None:
        require_counts(what, sizes, names, count, fix)
    check.require(sizes.sum() > 0, what, "some images", "none", fix, check.DataError)


def _prepare_images(source, data_dir, images, counts, skip_bad, workers, shard_images, told):
    target = data_dir / images.name / images.version
    folder = target_folder.partial_of(target)
    work = shard_files.jobs(images, folder, shard_images)
    facts = shard_files.facts(images, work)
    if target.exists():
        sources = {Path(job.content.path).parent for job in work
                   if isinstance(job.content, Records)}
        check.require(
            target.resolve() not in {path.resolve() for path in sources}, "--data_dir",
            "another folder than the tfrecord files have", str(data_dir), "choose a fresh one",
        )
        target_folder.require_whole(target, facts, skip_bad, told)
        return target
    with _place_to_write(target):
        folder.mkdir(exist_ok=True)
        with target_folder.locked(folder):
            stamps = {Path(job.path).name: job.stamp for job in work}
            done = target_folder.begun(folder, facts["source"], stamps, told)
            shards = _written(folder, work, done, skip_bad, workers)
            _require_good(source, [name for shard in shards for name in shard.bad], skip_bad)
            _require_written(source, images, counts, shards)
            _describe(folder, images, shards)
            target_folder.finish(folder, target, facts, shards)
    return target


def _written(
    folder, work: Sequence[Job], done: dict[str, Shard], skip_bad: bool, workers: int
) -> list[Shard]:
    """All shards in their order; those with bad images are committed under `skip_bad` alone."""
    missing = [job for job in work if Path(job.path).name not in done]
    _require_room(folder, missing)
    total = sum(job.count for job in work)
    first = total - sum(job.count for job in missing)
    with tqdm.tqdm(total=total, initial=first, unit="image", desc="prepare") as bar:
        for shard in worker_pool.each(shard_files.make, missing, workers, bar.update):
            done[shard.file] = shard
            if skip_bad or not shard.bad:
                target_folder.commit(folder, shard)
    return [done[Path(job.path).name] for job in work]


def _require_good(source: Path, bad: Sequence[str], skip_bad: bool) -> None:
    check.require(
        skip_bad or not bad, str(source), "images that decode",
        f"{len(bad)} that do not: {_some(bad)}",
        "replace these files and run it again, or leave them out by --skip_bad (whole shards, "
        "if any, are kept either way)", check.DataError,
    )


def _some(names: Sequence[str]) -> str:
    more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
    return f"{'; '.join(names[:_NAMED])}{more}"


def _require_written(source, images: ImageSet, counts, shards: Sequence[Shard]) -> None:
    """Raises DataError unless every class of what was written, bad images aside, has its share."""
    for split in images.splits:
        parts = [shard for shard in shards if shard.split == split]
        bad = [name for shard in parts for name in shard.bad]
        sizes = np.zeros(len(images.class_names), np.int64)
        for shard in parts:
            for label, count in shard.labels.items():
                sizes[int(label)] += count
        fix = f"replace the {len(bad)} left out: {_some(bad)}" if bad else "fetch the source again"
        _require_share(f"{source}, {split}", split, sizes, images.class_names,
                       None if bad else counts.get(split), fix)


def _describe(folder: Path, images: ImageSet, shards: Sequence[Shard]) -> None:
    capped = images.wanted.short_side
    text = f", short sides of at most {capped} pixels" if capped else ""
    target_folder.describe(
        folder, images.name, images.version, images.features, shards,
        description=f"{images.name}{text}, by augjax's launch.prepare",
    )


def _require_room(folder: Path, missing: Sequence[Job]) -> None:
    """Raises OSError where a sample of the sources' sizes says that the disk is too small."""
    sizes, count = [], 0
    for job in missing:
        if isinstance(job.content, Records):
            sizes.append(os.path.getsize(job.content.path) / max(1, job.count))
            count += job.count
        else:
            count += len(job.content)
            step = -(-len(job.content) // max(1, _SAMPLED // len(missing)))
            for item in job.content[::step]:
                place = item.place
                if not place.member or place.size >= 0:  # a zip's members are not asked
                    with contextlib.suppress(OSError):
                        sizes.append(place.size if place.size >= 0 else os.path.getsize(place.path))
    capped = any(job.wanted.short_side for job in missing)
    needed = 0 if capped or not sizes else int(sum(sizes) / len(sizes) * count)
    free = shutil.disk_usage(folder).free
    if free < needed:
        raise OSError(f"{free >> 20} MiB free where about {needed >> 20} MiB are needed")


@contextlib.contextmanager
def _place_to_write(target: Path) -> Iterator[None]:
    """Makes the folders above `target` and, where the block fails, removes the empty ones again.

    Raises CheckpointError where the system does not let it write.
    """
    made = [path for path in (target.parent, *target.parent.parents) if not path.exists()]
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        yield
    except (OSError, RuntimeError) as error:  # array_record raises RuntimeError when a disk is full
        if isinstance(error, check.AugjaxError):
            raise
        partial, fix = target_folder.partial_of(target), "free space or choose another --data_dir"
        if any(partial.glob("*-of-?????")):
            fix = f"free space; whole shards stay in {partial}: run it again to go on"
        raise check.CheckpointError(
            check.sentence(str(target), "a place to write", error, fix)
        ) from error
    finally:
        for path in made:
            with contextlib.suppress(OSError):  # not empty: it holds what was asked for
                path.rmdir()
