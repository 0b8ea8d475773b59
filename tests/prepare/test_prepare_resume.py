"""Interrupted work goes on and ends in the same bytes; what the machine refuses is said."""

import contextlib
import os
from pathlib import Path
import resource
import signal
import subprocess
import sys
import time
import types

import dying
from image_maker import contents, crop, encoded, flower_files, make, write_tree
import numpy as np
import pytest

from augjax import check
from augjax.prepare import image_bytes, target_folder, shard_files, worker_pool
from augjax.prepare import whole as module
from augjax.prepare import prepare
from augjax.prepare.source_kinds import recognise

ROOT = Path(__file__).resolve().parents[2]
PARTIAL = "flowers/.1.0.0.partial"
ENDS = (4, 8, 12, 15, 18, 21, 24)  # images after each shard


@pytest.fixture
def source(tmp_path):
    """18 + 6 photographs, which make 5 + 2 shards."""
    write_tree(tmp_path / "in", flower_files())
    return tmp_path


# --- interruptions -------------------------------------------------------------------------------


@pytest.mark.parametrize("images", [0, 1, 5, 19, 23])
def test_interrupted_anywhere_equals_uninterrupted(source, monkeypatch, images):
    whole = contents(make(source, "whole"))
    with monkeypatch.context() as patch:
        stop_after(patch, images)
        with pytest.raises(KeyboardInterrupt):
            make(source)
    assert not (source / "sets/flowers/1.0.0").exists()
    done = len(list((source / "sets" / PARTIAL).glob("*.array_record-?????-of-?????")))
    assert done == sum(end <= images for end in ENDS)
    redone = count_images(monkeypatch)
    assert contents(make(source)) == whole
    assert len(redone) == 24 - (0, *ENDS)[done]
    assert os.listdir(source / "sets/flowers") == ["1.0.0"]


def stop_after(patch, images):
    seen, example = [], image_bytes.example

    def failing(*arguments):
        if len(seen) == images:
            raise KeyboardInterrupt
        seen.append(arguments)
        return example(*arguments)

    patch.setattr(image_bytes, "example", failing)


def count_images(patch):
    seen, example = [], image_bytes.example
    patch.setattr(image_bytes, "example", lambda *a: seen.append(a) or example(*a))
    return seen


@pytest.mark.parametrize("place", ["described", "summed", "named"])
def test_killed_while_finishing(source, monkeypatch, place):
    whole = contents(make(source, "whole"))
    with monkeypatch.context() as patch:
        name = {"described": "finish", "summed": "_flush", "named": "_flush"}[place]
        stop = getattr(target_folder, name)

        def failing(*arguments):
            at = source / "sets/flowers" / ("1.0.0" if place == "named" else ".1.0.0.partial")
            if (at / ("checksums.json" if place != "described" else "features.json")).exists():
                raise KeyboardInterrupt
            return stop(*arguments)

        patch.setattr(target_folder, name, failing)
        with pytest.raises(KeyboardInterrupt):
            make(source)
    assert (source / "sets/flowers/1.0.0").exists() == (place == "named")
    found = contents(make(source))
    found.pop("progress.jsonl", None)
    assert found == whole


def test_a_torn_line_and_a_changed_shard_are_made_again(source, monkeypatch):
    whole = contents(make(source, "whole"))
    with monkeypatch.context() as patch:
        stop_after(patch, 15)
        with pytest.raises(KeyboardInterrupt):
            make(source)
    folder = source / "sets" / PARTIAL
    with open(folder / "progress.jsonl", "a") as file:
        file.write('{"file": "flowers-tr')
    shard = sorted(folder.glob("*-of-00005"))[1]
    content = bytearray(shard.read_bytes())
    content[len(content) // 2] ^= 1
    shard.write_bytes(content)
    redone = count_images(monkeypatch)
    assert contents(make(source)) == whole and len(redone) == 24 - 4 - 4 - 3


def test_the_beginning_of_another_set_is_refused(source, monkeypatch):
    with monkeypatch.context() as patch:
        stop_after(patch, 9)
        with pytest.raises(KeyboardInterrupt):
            make(source)
    before = contents(source / "sets" / PARTIAL)
    with pytest.raises(check.DataError, match="the beginning of the same data set, got one of oth"):
        make(source, short_side=32)
    write_tree(source / "in", {"train/iris/new.jpg": encoded(crop(1))})
    with pytest.raises(check.DataError, match="or remove this folder"):
        make(source)
    assert contents(source / "sets" / PARTIAL) == before


def test_where_no_shard_was_kept_it_begins_anew(source):
    """As after the bad images of a small set were removed: nothing of other shards is left."""
    bad = [source / "in" / path for path in
           ("val/iris/bad.jpg", *(f"train/iris/bad{k}.jpg" for k in range(19)))]  # 2 shards
    whole = contents(prepare(source / "in", source / "whole", "flowers"))
    for path in bad:
        path.write_bytes(b"no image")
    with pytest.raises(check.DataError, match="20 that do not"):
        prepare(source / "in", source / "sets", "flowers", shard_images=19)
    for path in bad:
        path.unlink()
    assert contents(prepare(source / "in", source / "sets", "flowers")) == whole


def test_what_was_made_of_replaced_images_is_made_again(source, monkeypatch, capsys):
    """Also of those of as many bytes, which have another time."""
    with monkeypatch.context() as patch:
        stop_after(patch, 19)
        with pytest.raises(KeyboardInterrupt):
            make(source)
    first, second = (job.content[0] for job in
                     shard_files.jobs(recognise(source / "in", "flowers"), source, 4)[:2])
    Path(first.place.path).write_bytes(encoded(crop(99)))
    os.utime(second.place.path, ns=(1, 1))
    redone = count_images(monkeypatch)
    mended = contents(make(source))
    assert len(redone) == 24 - 18 + 4 + 4
    assert "\n2 shards are made again, as their sources have changed\n" in capsys.readouterr().out
    assert mended == contents(make(source, "whole"))


def test_two_commands_do_not_fill_one_folder(source):
    (source / "sets" / PARTIAL).mkdir(parents=True)
    with target_folder.locked(source / "sets" / PARTIAL):
        with pytest.raises(check.DataError, match="no other launch.prepare is filling, got one"):
            make(source)
    assert make(source).exists()


def test_kill_9_leaves_no_worker_behind_and_the_rest_is_made(source):
    """Two named pipes in one shard hold a worker before and after its parent is killed."""
    whole = contents(make(source, "whole"))
    first = shard_files.jobs(recognise(source / "in", "flowers"), source, 4)[0].content
    held = {Path(item.place.path): Path(item.place.path).read_bytes() for item in first[:2]}
    for path in held:
        path.unlink()
        os.mkfifo(path)
    code = f"""if True:
        from augjax.prepare import prepare
        if __name__ == "__main__":
            prepare({str(source / "in")!r}, {str(source / "sets")!r}, "flowers", shard_images=4,
                    workers=2)"""
    (source / "command.py").write_text(code)
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    with subprocess.Popen([sys.executable, source / "command.py"], env=environment) as process:
        progress = source / "sets" / PARTIAL / "progress.jsonl"
        wait_for(lambda: progress.exists() and len(progress.read_text().split("\n")) == 1 + 6 + 1)
        children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
        process.send_signal(signal.SIGKILL)
    assert len(children) >= 2 and not (source / "sets/flowers/1.0.0").exists()
    os.close(os.open([*held][0], os.O_WRONLY))  # the worker goes on, and looks for its parent
    wait_for(lambda: not any(Path(f"/proc/{child}/fd/0").exists() for child in children))
    for path, content in held.items():
        path.unlink()
        path.write_bytes(content)
    assert contents(make(source)) == whole


def wait_for(condition, seconds=40):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.05)


# --- the machine ---------------------------------------------------------------------------------


@contextlib.contextmanager
def files_up_to(size):
    """Has the kernel refuse to let a file grow beyond `size` bytes."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_a_full_disk_keeps_what_was_made(source, monkeypatch):
    noise = np.random.default_rng(0).integers(0, 256, (400, 400, 3), np.uint8)
    write_tree(source / "in", {"val/rose/x.jpg": encoded(noise)})
    with files_up_to(140_000), pytest.raises(check.CheckpointError) as caught:
        make(source)
    assert "expected a place to write" in str(caught.value) and caught.value.exit_code == 4
    assert "run it again to go on" in str(caught.value)
    assert len(list((source / "sets" / PARTIAL).glob("*-of-00005"))) == 5
    redone = count_images(monkeypatch)
    make(source)
    assert len(redone) == 3  # the photograph's shard is the last one


def test_too_little_space_is_seen_before_writing(source, monkeypatch):
    monkeypatch.setattr(module.shutil, "disk_usage", lambda path: types.SimpleNamespace(free=1000))
    with pytest.raises(check.CheckpointError, match="0 MiB free where about 0 MiB are needed"):
        make(source)


def test_a_place_that_cannot_be_made_is_named(source):
    (source / "sets").write_text("a file")
    with pytest.raises(check.CheckpointError, match="a place to write, got .*sets") as caught:
        make(source)
    assert "shards" not in str(caught.value)


@pytest.mark.parametrize("options, sentence", [
    ({"workers": 0}, "--workers: expected a number of processes from 1 on, got 0"),
    ({"short_side": 0}, "--short_side: expected a number of pixels from 32 on, got 0"),
])
def test_numbers_out_of_range_are_refused(source, options, sentence):
    with pytest.raises(check.ConfigError, match=sentence):
        make(source, **options)


def test_a_worker_that_dies_ends_the_command():
    with pytest.raises(check.DataError, match="live to the end, got one that ended with 7"):
        list(worker_pool.each(dying.die, [7], 2, lambda count: None))


def test_what_the_system_refuses_a_worker_is_said():
    with pytest.raises(OSError, match="no space left"):
        list(worker_pool.each(dying.refuse, ["no space left"], 2, lambda count: None))


def test_sigterm_says_once_how_to_go_on(source):
    """A named pipe holds the command; 75 is "start me again"."""
    os.mkfifo(source / "in/train/aster/z.jpg")
    command = [sys.executable, "-m", "launch.prepare", f"--source={source / 'in'}",
               f"--data_dir={source / 'sets'}", "--dataset=flowers", "--workers=1"]
    with subprocess.Popen(command, cwd=ROOT, stderr=subprocess.PIPE, text=True) as process:
        wait_for((source / "sets" / PARTIAL / "progress.jsonl").exists)
        time.sleep(0.5)
        process.send_signal(signal.SIGTERM)
        _, said = process.communicate(timeout=60)
    assert process.returncode == 75 and "Traceback" not in said
    assert said.endswith("stopped; whole shards, if any, are kept. The same command goes on.\n")
