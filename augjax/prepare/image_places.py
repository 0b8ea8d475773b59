"""Where a source's image files lie: folders, tars and zips as one listing {path: Place}.

A path that ends in / is a folder's. Hidden files and folders are left out, devices in tars, too.
Nothing is ever extracted: a tar's member is a piece of the tar, a zip's member is read by name, so
that no member's name can reach outside. A link in a tar is what it leads to in the same tar.
"""

from collections.abc import Iterable, Iterator, Sequence
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
_AGAIN = "fetch it again"


def is_image(path: str) -> bool:
    """Whether a path's ending is an image's."""
    return path.lower().endswith(ENDINGS)


def is_hidden(name: str) -> bool:
    """Whether a file or folder is not meant to be seen, as `.x` and what macOS puts in archives."""
    return name == "__MACOSX" or name.startswith(".") and name not in (".", "..")


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
    a link to what is not in it.
    """
    end = path.stat().st_size if size is None else offset + size
    listing, links = {}, {}
    with readable(path, "a whole, uncompressed .tar"), open(path, "rb") as file:
        file.seek(offset)
        with tarfile.open(fileobj=file, mode="r:") as archive:
            while (member := archive.next()) is not None:
                archive.members = []  # 1.28 M of them would take 1 GB
                name = posixpath.normpath(member.name)
                if member.isfile() and member.offset_data + member.size > end:
                    raise tarfile.ReadError(f"{name} goes beyond the end")
                if member.issparse():
                    raise tarfile.ReadError(f"{name} is stored with holes")
                if member.islnk():
                    links[name] = posixpath.normpath(member.linkname)
                elif member.issym():
                    target = posixpath.join(posixpath.dirname(name), member.linkname)
                    links[name] = posixpath.normpath(target)
                elif member.isdir() and name != ".":
                    listing[f"{name}/"] = Place(str(path), member=name)
                elif member.isfile():
                    listing[name] = Place(str(path), member.offset_data, member.size, name)
        listing = _followed(path, listing, links)
    return {name: place for name, place in listing.items() if not _within_hidden(name)}


def _followed(path: Path, listing: dict[str, Place], links: dict[str, str]) -> dict[str, Place]:
    """A tar's listing with {link: target}: each link is its target, a file or a folder of files.

    Raises DataError for one that can be seen and whose target is not there.
    """
    while links:
        files = {link: listing[target] for link, target in links.items() if target in listing}
        listing |= {link: place._replace(member=link) for link, place in files.items()}
        links = {link: target for link, target in links.items() if link not in files}
        if files:
            continue
        unfinished = {folder for link in links for folder in _folders(link)}
        wanted, copies = {}, {}
        for link, target in links.items():
            if target not in unfinished:
                wanted.setdefault(target, []).append(link)
        for name, place in listing.items():
            for folder in _folders(name):
                for link in wanted.get(folder, ()):
                    copies.setdefault(link, {})[f"{link}{name[len(folder):]}"] = place
        if not copies:
            seen = [link for link in links if not _within_hidden(link)]
            check.require(not seen, f"{path}: {', '.join(seen[:1])}",
                          "a link to a member of the same tar",
                          f"{', '.join(links[link] for link in seen[:1])}, which is not in it",
                          "pack the files themselves (tar --dereference --hard-dereference)",
                          check.DataError)
            break
        for link, places in copies.items():
            del links[link]
            listing |= places
    return listing


def _folders(path: str) -> list[str]:
    """The folders that a path lies in: of a/b/c and of a/b/ these are a and a/b."""
    return [path[:place] for place, letter in enumerate(path) if letter == "/" and place]


def _within_hidden(path: str) -> bool:
    return any(map(is_hidden, path.split("/")))


def stamp(places: Iterable[Place]) -> tuple[str, str]:
    """(SHA-256 of the images' sizes, of the times of their last change or "" for archives)."""
    found = [_size_and_time(place) for place in places]
    sizes, times = [size for size, _ in found], [time for _, time in found]
    return _sha256(sizes), _sha256(times) if any(times) else ""


def _sha256(numbers: Sequence[int]) -> str:
    return hashlib.sha256(repr(numbers).encode()).hexdigest()


def _size_and_time(place: Place) -> tuple[int, int]:
    """In bytes and ns; what is not there, and will be told when it is read, has no bytes."""
    if place.size >= 0:
        return place.size, 0
    if place.member:
        return _zip(place.path).getinfo(place.member).file_size, 0
    try:
        found = os.stat(place.path)
    except OSError:
        return -1, 0
    return found.st_size, found.st_mtime_ns


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
