"""A data set's folder while it grows and when it is whole.

It grows as DIR/NAME/.VERSION.partial: shards get their names when they are on the disk, and then a
line in progress.jsonl. Once whole it is described for TFDS, every file's SHA-256 is written to
checksums.json, and the folder gets its name, in this order: a folder with a name is whole.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
import contextlib
import dataclasses
import fcntl
import json
import os
from pathlib import Path
from typing import Any

import tensorflow_datasets as tfds

from augjax import check
from augjax.prepare.shard_files import sha256, Shard

CHECKSUMS = "checksums.json"
SKIPPED = "skipped.txt"
_PROGRESS = "progress.jsonl"
_FACTS = {"source": "names, labels or options", "sizes": "sizes of files"}
_THREADS = 4  # hashing releases the interpreter's lock


def partial_of(target: Path) -> Path:
    """Where `target` grows."""
    return target.parent / f".{target.name}.partial"


@contextlib.contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Holds a folder against a second command; the system lets go when this process ends."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise check.DataError(check.sentence(
                str(folder), "a folder that no other launch.prepare is filling", "one that is",
                "wait for the other one, or end it",
            )) from error
        yield
    finally:
        os.close(handle)


def begun(
    folder: Path, source: str, stamps: Mapping[str, tuple[str, str]], told: Callable[[str], None]
) -> dict[str, Shard]:
    """{file: Shard} finished by earlier commands on the same source, each one's bytes verified.

    `source` is `shard_files.digest`, `stamps` are {file: stamp of the sources as they are now}.
    What was half-written, or made of files that have changed, which is `told`, is left out and
    written over; DataError where the folder has shards of other images.
    """
    path = folder / _PROGRESS
    lines = path.read_text().split("\n")[:-1] if path.exists() else []  # a torn line has no end
    if len(lines) < 2:  # no shard
        for file in folder.iterdir():
            file.unlink()
        _append(path, {"source": source}, "w")
        return {}
    check.require(
        json.loads(lines[0])["source"] == source, str(folder),
        "the beginning of the same data set", "one of other images, labels or options",
        "repeat the command that began it, or remove this folder to begin anew", check.DataError,
    )
    shards = {}
    for line in lines[1:]:
        fields = json.loads(line)
        shard = Shard(**fields | {name: tuple(fields.get(name, ())) for name in ("bad", "stamp")})
        if shard.stamp == stamps[shard.file]:
            shards[shard.file] = shard
    changed = len(lines) - 1 - len(shards)
    if changed:
        told(f"{changed} shards are made again, as their sources have changed")
    broken = altered(folder, {file: shard.sha256 for file, shard in shards.items()})
    kept = {file: shard for file, shard in shards.items() if file not in broken}
    _append(path.with_suffix(".new"), {"source": source}, "w")
    for shard in kept.values():
        _append(path.with_suffix(".new"), dataclasses.asdict(shard))
    path.with_suffix(".new").replace(path)
    return kept


def commit(folder: Path, shard: Shard) -> None:
    """Gives a shard that is on the disk its name, and notes it."""
    (folder / f"{shard.file}.partial").rename(folder / shard.file)
    _flush(folder)
    _append(folder / _PROGRESS, dataclasses.asdict(shard))


def altered(folder: Path, sums: Mapping[str, str]) -> list[str]:
    """The files that are missing or have another SHA-256."""
    def differs(file: str) -> bool:
        path = folder / file
        return not path.is_file() or sha256(path) != sums[file]

    with ThreadPoolExecutor(_THREADS) as pool:
        return [file for file, found in zip(sums, pool.map(differs, sums)) if found]


def describe(
    folder: Path, name: str, version: str, features: tfds.features.FeaturesDict,
    shards: Sequence[Shard], **facts: Any,
) -> None:
    """Writes TFDS's metadata; `facts` are further fields of tfds.core.DatasetInfo."""
    infos = []
    for split in dict.fromkeys(shard.split for shard in shards):
        parts = sorted((s for s in shards if s.split == split), key=lambda shard: shard.file)
        template = tfds.core.ShardedFileTemplate(
            data_dir=folder, dataset_name=name, filetype_suffix="array_record", split=split
        )
        infos.append(tfds.core.SplitInfo(
            name=split, shard_lengths=[shard.count for shard in parts],
            num_bytes=sum(shard.size for shard in parts), filename_template=template,
        ))
    tfds.folder_dataset.write_metadata(
        data_dir=folder, features=features, split_infos=infos, version=version,
        check_data=False,  # tfds checks with TensorFlow; `launch.prepare` does more
        supervised_keys=("image", "label"), **facts,
    )


def finish(
    folder: Path, target: Path, facts: Mapping[str, str], shards: Sequence[Shard]
) -> None:
    """Writes the checksums of a described folder and gives it its name.

    `facts` (`shard_files.facts`) tell of the source as it was.
    """
    bad = [name for shard in shards for name in shard.bad]
    if bad:
        (folder / SKIPPED).write_text("\n".join(bad) + "\n", errors="surrogateescape")
    sums = {shard.file: shard.sha256 for shard in shards}
    for path in sorted(folder.iterdir()):
        if path.name not in (*sums, _PROGRESS, CHECKSUMS):
            sums[path.name] = sha256(path)
    changed, images = {}, {}
    for shard in shards:
        images[shard.split] = images.get(shard.split, 0) + shard.count
        for why, count in shard.changed.items():
            changed[why] = changed.get(why, 0) + count
    content = {**facts, "images": images, "encoded_anew": changed, "skipped": len(bad),
               "sha256": dict(sorted(sums.items()))}
    (folder / CHECKSUMS).write_text(json.dumps(content, indent=2) + "\n")
    for path in folder.iterdir():
        with open(path, "rb") as file:
            os.fsync(file.fileno())
    _flush(folder)
    folder.rename(target)
    _flush(target.parent)
    (target / _PROGRESS).unlink(missing_ok=True)


def require_whole(
    folder: Path, facts: Mapping[str, str], skip_bad: bool, told: Callable[[str], None]
) -> None:
    """Raises DataError unless the folder came of the same source and no byte of it has changed.

    `facts` are those of the source as it is now. Other times alone are `told`, as copies have
    them; folders made before 2026-11-22 know of names and labels alone. Nor may images have been
    left out of it, unless `skip_bad`.
    """
    content = {**facts, "source": "", **summary(folder)}
    other = [words for fact, words in _FACTS.items() if content[fact] != facts[fact]]
    check.require(
        not other, f"{folder} exists and its content",
        "the images of the source, prepared with the same options", f"other {' and '.join(other)}",
        "move it away or choose another --data_dir", check.DataError,
    )
    if content["times"] != facts["times"]:
        told(f"{folder} has the names and sizes of the source, whose files were touched, copied, "
             "packed or changed since: if images were changed, move it away and prepare them again")
    check.require(
        skip_bad or not content["skipped"], f"{folder} exists and its source",
        "images that decode", f"{content['skipped']} that do not, see {SKIPPED}",
        "pass --skip_bad to leave them out, or mend them and remove this folder", check.DataError,
    )
    broken = altered(folder, content["sha256"])
    check.require(
        not broken, str(folder), f"{len(content['sha256'])} files as written",
        f"other bytes in {', '.join(broken[:8])}", "remove the folder and prepare it again",
        check.DataError,
    )


def summary(folder: Path) -> dict[str, Any]:
    """checksums.json: {source, sizes, times, images per split, encoded_anew, skipped, sha256}; {}
    without one."""
    try:
        content = json.loads((folder / CHECKSUMS).read_text())
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}


def told(folder: Path) -> list[str]:
    """What a prepared folder's checksums.json has to say to a person."""
    content = summary(folder)
    lines = [f"{split}: {count} images" for split, count in content.get("images", {}).items()]
    lines += [f"encoded anew: {count} images ({why})"
              for why, count in content.get("encoded_anew", {}).items()]
    if content.get("skipped"):
        lines.append(f"left out: {content['skipped']} images, see {SKIPPED}")
    return lines


def _append(path: Path, content: Mapping[str, Any], mode: str = "a") -> None:
    with open(path, mode) as file:
        file.write(json.dumps(content) + "\n")
        file.flush()
        os.fsync(file.fileno())


def _flush(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
