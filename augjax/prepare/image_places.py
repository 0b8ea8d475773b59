"""Where a source's image files lie: folders, tars and zips as one listing {path: Place}.

Nothing is ever extracted: a tar's member is a piece of the tar, a zip's member is read by name, so
that no member's name can reach outside. Links and devices in tars are passed over.
"""

from collections.abc import Iterator
import contextlib
import functools
import os
from pathlib import Path
import tarfile
import zipfile

from augjax import check
from augjax.prepare.image_sets import Place

SPLITS = ("train", "val", "validation", "test")
ENDINGS = (".jpg", ".jpeg", ".png", ".bmp", ".webp", ".gif", ".tif", ".tiff", ".ppm", ".pgm")
_DEPTH = 3  # folders below the root, as in train/CLASS/images/FILE
_AGAIN = "fetch it again"


def is_image(path: str) -> bool:
    """Whether a path's name is an image's; macOS's `._x.jpg` and other hidden files are not."""
    file = path.rpartition("/")[2]
    return file.lower().endswith(ENDINGS) and not file.startswith(".")


def list_folder(root: Path) -> dict[str, Place]:
    """{path below root: Place} of the files in root and in its folders of SPLITS."""
    listing = {}

    def scan(folder: str, prefix: str, depth: int) -> None:
        for entry in os.scandir(folder):
            path = f"{prefix}{entry.name}"
            if not entry.is_dir():  # follows links, as people link their class folders together
                listing[path] = Place(entry.path)
            elif (depth or entry.name in SPLITS) and depth < _DEPTH:
                scan(entry.path, f"{path}/", depth + 1)

    with readable(root):
        scan(str(root), "", 0)
    return listing


def list_zip(path: Path) -> dict[str, Place]:
    """The same of a zip; CRCs are checked when members are read."""
    with readable(path, "a whole .zip"), zipfile.ZipFile(path) as archive:
        names = [info.filename for info in archive.infolist() if not info.is_dir()]
    return {name: Place(str(path), member=name) for name in names}


def list_tar(path: Path, offset: int = 0, size: int | None = None) -> dict[str, Place]:
    """The same of an uncompressed tar, or of the one that is bytes offset..offset+size of a file.

    A compressed tar is refused: its members cannot be read in another order than they stand.
    """
    end = path.stat().st_size if size is None else offset + size
    listing = {}
    with readable(path, "a whole, uncompressed .tar"), open(path, "rb") as file:
        file.seek(offset)
        with tarfile.open(fileobj=file, mode="r:") as archive:
            while (member := archive.next()) is not None:
                if member.offset_data + member.size > end:
                    raise tarfile.ReadError(f"{member.name} goes beyond the end")
                if member.isfile() and not member.issparse():
                    name = member.name.removeprefix("./")
                    listing[name] = Place(str(path), member.offset_data, member.size, name)
                archive.members = []  # 1.28 M of them would take 1 GB
    return listing


def below_common(listing: dict[str, Place]) -> dict[str, Place]:
    """The listing seen from the one folder that holds `train`; itself where there is none."""
    for path in listing:
        head, found, _ = f"/{path}".partition("/train/")
        if found:
            prefix = f"{head[1:]}/" if head else ""
            return {name.removeprefix(prefix): place for name, place in listing.items()
                    if name.startswith(prefix)}
    return listing


def read(place: Place) -> bytes:
    """The bytes at a place. Raises OSError, zipfile.BadZipFile or zlib.error."""
    if place.member and place.size < 0:
        return _zip(place.path).read(place.member)
    with open(place.path, "rb") as file:
        file.seek(place.offset)
        content = file.read(place.size)
    if 0 <= place.size != len(content):
        raise OSError(f"{len(content)} of {place.size} bytes are there")
    return content


@functools.lru_cache(maxsize=1)
def _zip(path: str) -> zipfile.ZipFile:
    return zipfile.ZipFile(path)


@contextlib.contextmanager
def readable(path: Path, expected: str = "a readable folder") -> Iterator[None]:
    """Turns what the block raises about files and archives into one DataError."""
    try:
        yield
    except check.AugjaxError:  # which are ValueErrors, too
        raise
    except (OSError, tarfile.TarError, zipfile.BadZipFile, EOFError, ValueError) as error:
        compressed = isinstance(error, tarfile.ReadError) and path.is_file() and _gzipped(path)
        fix = "unpack its compression first (gunzip)" if compressed else _AGAIN
        raise check.DataError(check.sentence(
            str(path), expected, f"{type(error).__name__}: {error}", fix
        )) from error


def _gzipped(path: Path) -> bool:
    with open(path, "rb") as file:
        return file.read(2) == b"\x1f\x8b"
