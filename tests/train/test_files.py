"""The acts that a run folder is made of, on a disk and in a store, and who may be in it."""

import json
import os
from pathlib import Path
import time

import pytest

from augjax import check
from augjax.train import files, folder
from train import fake_store

URL = "gs://bucket/runs/one"


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    """A lock that is given up in moments."""
    for name, seconds in (("BEAT_S", 30.0), ("STALE_S", 0.2), ("SETTLE_S", 0.0)):
        monkeypatch.setattr(folder, name, seconds)


@pytest.fixture
def store(tmp_path):
    return fake_store.install(tmp_path / "store")


# --- who is in the folder ------------------------------------------------------------------------


def holder(host: str, pid: int, **more) -> str:
    return json.dumps({"host": host, "pid": pid, "token": "theirs", **more})


def wait_for(seen, limit_s: float = 30.0):
    """Until `seen()` holds: a loaded machine may be late with its beats, but never that late."""
    end = time.monotonic() + limit_s
    while not seen():
        assert time.monotonic() < end, f"not seen in {limit_s} s"
        time.sleep(0.01)


def test_the_lock_goes_with_its_run(store):
    place = files.place(URL)
    with folder.held(place):
        assert json.loads(files.read(place / "lock"))["pid"] == os.getpid()
    assert not files.exists(place / "lock")
    with pytest.raises(KeyError), folder.held(place):
        raise KeyError
    assert not files.exists(place / "lock")


def test_a_second_run_is_refused_while_the_first_lives(store, monkeypatch):
    place = files.place(URL)
    monkeypatch.setattr(folder, "BEAT_S", 0.05)
    monkeypatch.setattr(folder, "STALE_S", 10.0)
    with folder.held(place):
        began = time.monotonic()
        with pytest.raises(check.ConfigError, match=f"no other run in it, got pid {os.getpid()}"):
            with folder.held(place):
                raise AssertionError("two runs in one folder")
        assert time.monotonic() - began < 5  # a beat is enough
        wait_for(lambda: json.loads(files.read(place / "lock"))["beats"] > 1)


@pytest.mark.parametrize("host, pid", [("elsewhere", 1), (None, os.getpid())],
                         ids=["elsewhere", "here"])
def test_a_lock_that_stands_still_is_taken_over(store, host, pid, capsys):
    """Of another machine, or of a process of our number before this machine began anew."""
    place = files.place(URL)
    files.write(place / "lock", holder(host or folder.socket.gethostname(), pid))
    began = time.monotonic()
    with folder.held(place):
        assert time.monotonic() - began >= folder.STALE_S
        assert json.loads(files.read(place / "lock"))["token"] != "theirs"
    assert f"pid {pid}" in capsys.readouterr().err


def test_of_two_that_begin_at_once_the_first_writer_gives_way(store, monkeypatch):
    place = files.place(URL)
    monkeypatch.setattr(folder.time, "sleep", lambda seconds: files.write(
        place / "lock", holder("elsewhere", 2)))  # while we let things settle
    with pytest.raises(check.ConfigError, match="pid 2 on elsewhere"):
        with folder.held(place):
            raise AssertionError("two runs in one folder")
    assert json.loads(files.read(place / "lock"))["token"] == "theirs"


def test_a_lock_that_was_taken_over_is_told_and_left(store, monkeypatch, capsys):
    place = files.place(URL)
    monkeypatch.setattr(folder, "BEAT_S", 0.02)
    with folder.held(place):
        def told() -> bool:
            # Again each time: a beat between its reading and its writing would write over it.
            files.write(place / "lock", holder("elsewhere", 2))
            return "has taken" in capsys.readouterr().err

        wait_for(told)
    assert json.loads(files.read(place / "lock"))["token"] == "theirs"


# --- files ---------------------------------------------------------------------------------------


def test_paths_of_stores_stay_whole():
    for url in ("gs://bucket/a/b", "s3://bucket/a"):
        assert str(files.place(url)) == url == str(files.place(files.place(url)))
        assert str(files.place(url) / "x" / "y.json") == url + "/x/y.json"
        assert files.in_store(files.absolute(url)) and str(files.absolute(url)) == url
    assert files.place("runs/a") == Path("runs/a")
    assert files.absolute("runs/a") == Path.cwd() / "runs/a"
    with pytest.raises(check.ConfigError, match="scheme of ftp://x.*'gs'"):
        files.place("ftp://x")
    with pytest.raises(check.ConfigError, match="a folder on a disk, got gs://bucket"):
        files.require_disk("gs://bucket", "launch.study")


@pytest.fixture(params=["disk", "store"])
def place(request, tmp_path):
    fake_store.install(tmp_path / "store")
    return tmp_path / "run" if request.param == "disk" else files.place("s3://bucket/run")


def test_the_acts_mean_the_same_on_a_disk_and_in_a_store(place, tmp_path):
    files.make_folder(place / "a" / "b")
    files.write(place / "one", "1")
    files.write(place / "a" / "b" / "two", b"2")
    files.write(place.with_name("run2") / "three", "3") if files.in_store(place) else None
    files.append(place / "one", "1\n")
    files.append(place / "new", "n\n")
    assert files.names(place) == ["a/b/two", "new", "one"]
    assert files.folders(place) == ["a"] and files.folders(place / "nowhere") == []
    assert (files.read(place / "one"), files.read_text(place / "new")) == (b"11\n", "n\n")
    assert files.exists(place / "one") and not files.exists(place / "a")
    assert not files.exists(place / "none") and files.names(place / "none") == []
    with pytest.raises(FileNotFoundError):
        files.read(place / "none")
    files.move(place / "a", place / "c", last="two")
    assert files.names(place) == ["c/b/two", "new", "one"]
    files.remove(place / "c")
    files.remove(place / "c")
    files.remove(place / "new")
    assert files.names(place) == ["one"]


def test_a_file_grows(place, monkeypatch):
    files.make_folder(place)
    files.write(place / "log", "a\n")
    file = files.growing(place / "log")
    assert file.write(b"b\n") == 2
    files.sync(file)
    assert files.read(place / "log") == b"a\nb\n"
    monkeypatch.setattr(files, "PUT_EVERY_S", 0.0)
    time.sleep(0.001)
    file.write(b"c\n")
    assert files.read(place / "log") == b"a\nb\nc\n"
    monkeypatch.setattr(files, "PUT_EVERY_S", 60.0)
    file.write(b"d\n")
    file.close()
    assert files.read(place / "log") == b"a\nb\nc\nd\n"


def test_no_answer_is_not_a_no(store):
    """Else a run would begin anew over one that is there."""
    def silent(act, name):
        raise TimeoutError("no answer")

    store.failing = staticmethod(silent)
    place = files.place(URL)
    for ask in (files.exists, files.names, files.folders, files.read, files.remove):
        with pytest.raises(files.StoreError, match="gs://bucket/runs/one.*no answer"):
            ask(place)
    with pytest.raises(check.CheckpointError) as caught, folder.held(place):
        raise AssertionError("a folder that nobody could look into")
    assert caught.value.exit_code == 4


def test_without_its_client_a_store_is_a_config_error(monkeypatch):
    def missing(url, **kwargs):
        raise ImportError("gcsfs")

    monkeypatch.setattr(files.fsspec.core, "url_to_fs", missing)
    with pytest.raises(check.ConfigError, match="the package gcsfs, got none.*pip install gcsfs"):
        files.exists(files.place(URL))
