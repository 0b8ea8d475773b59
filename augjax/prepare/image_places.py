"""Where a source's image files lie: folders, tars and zips as one listing {path: Place}.

A path that ends in / is a folder's. Hidden files and folders are left out, devices in tars, too.
Nothing is ever extracted: a tar's member is a piece of the tar, a zip's member is read by name, so
that no member's name can reach outside. A link in a tar is what it leads to in the same tar.
"""

from collections.abc import Iterable, Iterator, Mapping
import contextlib
import functools
import hashlib
import os
from pathlib import Path
import posixpath
import tarfile
import zipfile

from augjax import check
from augjax.prepare.image_sets import Place

VALIDATION = ("val", "valid", "validation")
SPLITS = ("train", *VALIDATION, "test")
ENDINGS = (".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".bmp", ".webp", ".gif", ".tif", ".tiff",
           ".ppm", ".pgm")
_DEPTH = 3  # folders in which links to folders are followed, as deep as train/CLASS/images
_HOPS = 40  # links that a path may lead through, as in Linux
ZIP = (b"PK",)  # how files begin
COMPRESSED = (b"\x1f\x8b", b"BZh", b"\xfd7zXZ", b"\x28\xb5\x2f\xfd")  # gzip, bzip2, xz, zstd


def is_image(path: str) -> bool:
    """Whether a path's ending is an image's."""
    return path.lower().endswith(ENDINGS)


def is_hidden(name: str) -> bool:
    """Whether a file or folder is not meant to be seen, as `.x` and what macOS puts in archives."""
    return name == "__MACOSX" or name.startswith(".") and name not in (".", "..")


def begins_as(path: Path, kinds: tuple[bytes, ...]) -> bool:
    """Whether a file begins with one of these bytes."""
    with open(path, "rb") as file:
        return file.read(6).startswith(kinds)


def list_folder(root: Path) -> dict[str, Place]:
    """{path below root: Place} of the files in root and in its folders of SPLITS."""
    listing = {}

    def scan(folder: str, prefix: str, depth: int) -> None:
        for entry in os.scandir(folder):
            path = f"{prefix}{entry.name}"
            if is_hidden(entry.name):
                continue
            if not entry.is_dir(follow_symlinks=depth < _DEPTH):  # deeper they may lead in circles
                listing[path] = Place(entry.path)
                continue
            listing[f"{path}/"] = Place(entry.path)
            if depth or entry.name in SPLITS:
                scan(entry.path, f"{path}/", depth + 1)

    with readable(root):
        scan(str(root), "", 0)
    return listing


def list_zip(path: Path) -> dict[str, Place]:
    """The same of a zip; CRCs are checked when members are read."""
    with readable(path, "a whole .zip"), zipfile.ZipFile(path) as archive:
        names = archive.namelist()
    return {name: Place(str(path), member=name) for name in names if not _within_hidden(name)}


def list_tar(path: Path, offset: int = 0, size: int | None = None) -> dict[str, Place]:
    """The same of an uncompressed tar, or of the one that is bytes offset..offset+size of a file.

    A compressed tar is refused: its members cannot be read in another order than they stand; so is
    a link to what is not in it. A link to a folder above itself is a file, as in `list_folder`.
    """
    end = path.stat().st_size if size is None else offset + size
    check.require(not begins_as(path, COMPRESSED), str(path), "a plain .tar", "a compressed one",
                  "unpack its compression first (gunzip, bunzip2, unxz or unzstd)",
                  check.DataError)
    listing, links = {}, {}
    with readable(path, "a whole, uncompressed .tar"), open(path, "rb") as file:
        file.seek(offset)
        with tarfile.open(fileobj=file, mode="r:") as archive:
            while (member := archive.next()) is not None:
                archive.members = []  # 1.28 M of them would take 1 GB
                name = _plain(member.name)
                if member.isfile() and member.offset_data + member.size > end:
                    raise tarfile.ReadError(f"{name} goes beyond the end")
                if member.issparse():
                    raise tarfile.ReadError(f"{name} is stored with holes")
                if member.islnk():
                    links[name] = _plain(member.linkname)
                elif member.issym():
                    links[name] = _plain(posixpath.join(posixpath.dirname(name), member.linkname))
                elif member.isdir() and name:
                    listing[f"{name}/"] = Place(str(path), member=name)
                elif member.isfile():
                    listing[name] = Place(str(path), member.offset_data, member.size, name)
    if links:
        listing = _followed(path, listing, links)
    return {name: place for name, place in listing.items() if not _within_hidden(name)}


def _plain(name: str) -> str:
    """A member's path, normalised, from the top; that itself is ""."""
    name = posixpath.normpath(name).lstrip("/")
    return "" if name == "." else name


def _followed(path: Path, listing: Mapping[str, Place], links: Mapping[str, str]
              ) -> dict[str, Place]:
    """A tar's listing with {link: target}: its tree, walked from the top through every link.

    Raises DataError for a link that can be seen and whose target is not there.
    """
    found, children = {}, {"": {}}  # {folder: the names in it, in order}
    for name in (*listing, *links):
        if name.endswith("/"):
            children.setdefault(name[:-1], {})
        below = name.rstrip("/")
        while below:
            folder, _, last = below.rpartition("/")
            children.setdefault(folder, {})[last] = None
            below = folder

    def walk(folder: str, shown: str, above: tuple[str, ...]) -> None:
        for child in children[folder]:
            name, target = f"{shown}{child}", _target(f"{folder}/{child}".lstrip("/"), links)
            if is_hidden(child):
                continue
            if target in children and target not in above:
                found[f"{name}/"] = Place(str(path), member=name)
                walk(target, f"{name}/", (*above, target))
            else:
                check.require(
                    target in listing or target in children, f"{path}: {name}",
                    "a link to a member of the same tar", "one that leads in a circle"
                    if target is None else f"{target}, which is not in it",
                    "pack the files themselves (tar --dereference --hard-dereference)",
                    check.DataError)
                found[name] = listing.get(target, Place(str(path), size=0))._replace(member=name)

    walk("", "", ("",))
    return found


def _target(name: str, links: Mapping[str, str]) -> str | None:
    """Where a path leads when each link in it is replaced by its target; None for a circle."""
    for _ in range(_HOPS):
        link = next((part for part in (*_folders(name), name) if part in links), None)
        if link is None:
            return name
        name = _plain(f"{links[link]}{name[len(link):]}")
    return None


def _folders(path: str) -> list[str]:
    """The folders that a path lies in: of a/b/c and of a/b/ these are a and a/b."""
    return [path[:place] for place, letter in enumerate(path) if letter == "/" and place]


def _within_hidden(path: str) -> bool:
    return any(map(is_hidden, path.split("/")))


def stamp(places: Iterable[Place]) -> tuple[str, str]:
    """SHA-256 of the images' sizes, and of the times of their files' last change (in a zip CRCs).

    Asks the disk for each of them.
    """
    sizes, times = zip(*map(_size_and_time, places), strict=True)
    return sha256(sizes), sha256(times)


def sha256(content: object) -> str:
    """Of what its repr says."""
    return hashlib.sha256(repr(content).encode()).hexdigest()


def _size_and_time(place: Place) -> tuple[int, int]:
    """In bytes and ns; what is not there, and will be told when it is read, has no bytes."""
    if _zipped(place):
        member = _zip(place.path).getinfo(place.member)
        return member.file_size, member.CRC
    try:
        found = os.stat(place.path)
    except OSError:
        return -1, 0
    return found.st_size if place.size < 0 else place.size, found.st_mtime_ns


def read(place: Place) -> bytes:
    """The bytes at a place. Raises OSError, zipfile.BadZipFile or zlib.error."""
    if _zipped(place):
        return _zip(place.path).read(place.member)
    with open(place.path, "rb") as file:
        file.seek(place.offset)
        content = file.read(place.size)
    if 0 <= place.size != len(content):
        raise OSError(f"{len(content)} of {place.size} bytes are there")
    return content


def _zipped(place: Place) -> bool:
    return bool(place.member) and place.size < 0


def _zip(path: str) -> zipfile.ZipFile:
    return _opened(path, os.stat(path).st_mtime_ns)


@functools.lru_cache(maxsize=1)
def _opened(path: str, changed: int) -> zipfile.ZipFile:
    return zipfile.ZipFile(path)


@contextlib.contextmanager
def readable(path: Path, expected: str = "a readable folder") -> Iterator[None]:
    """Turns what the block raises about files and archives, but their permissions, into one
    DataError."""
    try:
        yield
    except (check.AugjaxError, PermissionError):  # the first are ValueErrors, too
        raise
    except (OSError, tarfile.TarError, zipfile.BadZipFile, EOFError, ValueError) as error:
        raise check.DataError(check.sentence(
            str(path), expected, f"{type(error).__name__}: {error}", "fetch it again"
        )) from error
