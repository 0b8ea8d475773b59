"""Images of any size from a prepared folder to the step: the same pixels whoever decodes them,
bad images replaced, dead workers told."""

import dataclasses
import io
import multiprocessing
import os
import re
import signal
import subprocess
import sys
import time

import jax
import numpy as np
from PIL import Image
import pytest

from augjax import check, data
from augjax.data import host, named, records, workers
from augjax.data.cropped import Cut, evaluation_crop, training_crop
from launch.benchmarks.input import Encoded, photographs, write_folder

SEED, B, SIZE, N = 3, 8, 24, 20
CLASSES = [f"n{number:08d}" for number in range(1000)]


def small_images(count):
    made = []
    for number, image in enumerate(photographs(count)):
        width, height = 60 + 7 * (number % 5), 50 + 11 * (number % 4)
        file = io.BytesIO()
        Image.open(io.BytesIO(image.encoded)).resize((width, height)).save(file, "JPEG", quality=90)
        made.append(Encoded(f"{CLASSES[number % 4]}_{number}.JPEG", file.getvalue(), number % 4))
    return made


@pytest.fixture(scope="module")
def images():
    return small_images(N)


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory, images):
    root = tmp_path_factory.mktemp("sets")
    write_folder(root, "imagenet2012", {"train": images, "validation": images[:7]}, CLASSES)
    return root


@pytest.fixture(scope="module")
def source(data_dir):
    return data.load("imagenet2012", data_dir, image_size=SIZE).train


def with_bad(tmp_path, images, bad, name="birds"):
    """A source some of whose images are cut off, or are none."""
    spoilt = list(images)
    for k in bad:
        spoilt[k] = images[k]._replace(encoded=images[k].encoded[:200] if k % 2 else b"none")
    write_folder(tmp_path, name, {"train": spoilt, "test": spoilt}, CLASSES[:4])
    return data.load(name, tmp_path, image_size=SIZE).train


def same(one, other):
    jax.tree.map(np.testing.assert_array_equal, one, other)


# --- which pixels --------------------------------------------------------------------------------


def test_a_step_sees_the_crops_of_its_epoch(source, images):
    for step, batch in enumerate(data.feed(source, SEED, B, 0, 4)):
        np.testing.assert_array_equal(batch.index, data.batch_indices(source, SEED, B, step))
        assert batch.image.dtype == np.uint8 and batch.image.shape == (B, SIZE, SIZE, 3)
        for pixels, label, index in zip(batch.image, batch.label, batch.index):
            crop = training_crop(images[index].encoded, Cut(SIZE), SEED, step // 2, int(index))
            np.testing.assert_array_equal(pixels, crop)
            assert label == images[index].label


def test_an_index_is_the_place_in_a_subset_and_epochs_differ(source, images):
    few = data.subset(source, [11, 4, 7])
    (one,), (other,) = ([*data.feed(few, SEED, 3, step, 1)] for step in (0, 1))
    at = {int(index): pixels for index, pixels in zip(one.index, one.image)}
    np.testing.assert_array_equal(
        at[1], training_crop(images[4].encoded, Cut(SIZE), SEED, 0, 1))
    assert (at[1] != other.image[list(other.index).index(1)]).any()


def test_starting_at_every_step_equals_the_rest(source):
    whole = list(data.feed(source, SEED, B, 0, 5))
    for first in range(6):
        same(list(data.feed(source, SEED, B, first, 5 - first, threads=1 + first % 3)),
             whole[first:])


def test_workers_change_nothing(tmp_path, images, monkeypatch):
    monkeypatch.setattr(host, "BAD_SHARE", 0.5)
    source, told, again = with_bad(tmp_path, images, {5, 6}), [], []
    whole = list(data.feed(source, SEED, 9, 1, 5, told=told.append))
    same(list(data.feed(source, SEED, 9, 1, 5, workers=2, told=again.append)), whole)
    assert told == again and len(told) > 1


@pytest.mark.parametrize("count", [2, 4])
def test_each_part_reads_its_share_alone(source, count):
    whole = list(data.feed(source, SEED, B, 0, 4))
    read, each = [], source.reader.records.each

    class Counting:
        def each(self, positions, decode):
            read.append(positions)
            return each(positions, decode)

    counted = dataclasses.replace(
        source, reader=dataclasses.replace(source.reader, records=Counting()))
    for index in range(count):
        read.clear()
        part = list(data.feed(counted, SEED, B, 0, 4, part=(index, count), threads=1))
        mine = slice(index * B // count, (index + 1) * B // count)
        same(part, [jax.tree.map(lambda leaf: leaf[mine], batch) for batch in whole])
        np.testing.assert_array_equal(
            np.sort(np.concatenate(read)), np.sort(np.concatenate([b.index for b in part])))


@pytest.mark.parametrize("part, threads", [((0, 1), 0), ((0, 2), 3), ((1, 2), 1)])
def test_evaluation_sees_every_image_once_in_order(data_dir, images, part, threads):
    test = data.load("imagenet2012", data_dir, image_size=SIZE, crop="efficientnet").test
    index, count = part
    batches = list(data.in_order(test, 4, part, threads))
    assert len(batches) == 2
    for number, batch in enumerate(batches):
        expected = range(number * 4 + index * 4 // count, number * 4 + (index + 1) * 4 // count)
        assert [k if k < 7 else -1 for k in expected] == batch.index.tolist()
        for k, pixels in zip(batch.index, batch.image):
            if k >= 0:
                np.testing.assert_array_equal(
                    pixels, evaluation_crop(images[k].encoded, Cut(SIZE, "efficientnet")))


def test_evaluation_of_images_of_one_size_is_as_before():
    digits = data.load("digits").test
    batches = list(data.in_order(digits, 100))
    assert np.concatenate([b.index for b in batches]).tolist() == [*range(360)] + [-1] * 40
    np.testing.assert_array_equal(batches[1].image, digits.read(range(100, 200)))


# --- by name -------------------------------------------------------------------------------------


def test_imagenet_is_its_training_and_validation_images(data_dir):
    found = data.load("imagenet2012", data_dir, image_size=SIZE, holdout=4)
    assert (len(found.train), len(found.holdout), len(found.test)) == (N - 4, 4, 7)
    assert found.image_shape == (SIZE, SIZE, 3) and found.classes == 1000
    np.testing.assert_array_equal(  # held-out images are seen as test images are
        found.holdout.read([0]), found.train.reader.read(found.holdout.positions[:1]))
    assert data.workers_for(found.train) == 0 and data.workers_for(data.load("digits").train) == 0


def test_many_images_of_any_size_want_workers(source, monkeypatch):
    monkeypatch.setattr(host, "_FEW", N - 1)
    assert data.workers_for(source) == len(os.sched_getaffinity(0))


def test_any_prepared_folder_is_found_by_its_name(tmp_path, images):
    write_folder(tmp_path, "birds", {"train": images, "test": images[:2]}, CLASSES[:4])
    write_folder(tmp_path, "fish", {"train": images, "validation": images[:3]}, CLASSES[:4])
    write_folder(tmp_path, "frogs", {"train": images}, CLASSES[:4])
    assert len(data.load("birds", tmp_path, image_size=8).test) == 2
    assert len(data.load("fish", tmp_path, image_size=8).test) == 3
    with pytest.raises(check.DataError, match="a split `test` or `validation`.*got .'train'.."):
        data.load("frogs", tmp_path, image_size=8)
    with pytest.raises(check.ConfigError, match="prepared in .*birds, fish, frogs.*got 'brids'. "
                                                "Did you mean 'birds'"):
        data.load("brids", tmp_path, image_size=8)
    with pytest.raises(check.ConfigError, match="expected an image_size, got none"):
        data.load("birds", tmp_path)
    with pytest.raises(check.ConfigError, match="data.crop.*got 'resnext'"):
        data.load("birds", tmp_path, image_size=8, crop="resnext")


def test_imagenet_refuses_other_classes_and_no_size(tmp_path, images, data_dir):
    write_folder(tmp_path, "imagenet2012", {"train": images, "validation": images}, CLASSES[:4])
    with pytest.raises(check.DataError, match="1000 classes of images.*got 4 classes"):
        data.load("imagenet2012", tmp_path, image_size=8)
    with pytest.raises(check.ConfigError, match="expected an image_size, got none"):
        data.load("imagenet2012", data_dir)
    with pytest.raises(check.ConfigError, match="tiny_imagenet: expected image_size=64 or none"):
        data.load("tiny_imagenet", tmp_path, image_size=32)


def test_crops_cannot_be_resident(source):
    with pytest.raises(check.ConfigError, match="data.resident: expected False for images"):
        data.resident(source)


# --- bad images ----------------------------------------------------------------------------------


def test_a_bad_image_is_named_and_replaced_by_the_next(tmp_path, images, monkeypatch):
    monkeypatch.setattr(host, "BAD_SHARE", 0.2)
    source, told = with_bad(tmp_path, images, {5, 6, 19}), []
    batches = list(data.feed(source, SEED, 10, 0, 2, told=told.append))
    assert len(told) == 3
    for name in ("record 5 (file name n00000001_5.JPEG)", "record 6 (file name n00000002_6.JPEG)",
                 "record 19 (file name n00000003_19.JPEG)"):
        assert sum(f"birds train {name} in {tmp_path}" in sentence for sentence in told) == 1
    order = data.order(SEED, 0, N)
    for place, batch in enumerate(batches):
        expected = [{5: 7, 6: 7, 19: 0}.get(k, k) for k in order[place * 10 :][:10].tolist()]
        assert batch.index.tolist() == expected
        for k, pixels, label in zip(expected, batch.image, batch.label):
            assert label == images[k].label
            np.testing.assert_array_equal(
                pixels, training_crop(images[k].encoded, Cut(SIZE), SEED, 0, k))


def test_too_many_bad_images_end_the_run(tmp_path, images):
    source, told = with_bad(tmp_path, images, {5, 6}), []
    fed = data.feed(source, SEED, N, 0, 1, told=told.append)
    with pytest.raises(check.DataError, match="birds train: expected at most 1 images an epoch.*"
                                              "got 2; the last: .*record"):
        list(fed)
    assert len(told) == 2
    alone = with_bad(tmp_path, images, {5}, "cats")  # one in twenty, but one: it goes on
    assert len(list(data.feed(alone, SEED, N, 0, 3, told=told.append))) == 3
    assert len(told) == 5


def test_a_set_without_a_sound_image_ends(tmp_path, images, monkeypatch):
    monkeypatch.setattr(host, "BAD_SHARE", 1.0)
    source = with_bad(tmp_path, images, set(range(N)))
    with pytest.raises(check.DataError, match="a sound image among 100 in a row"):
        list(data.feed(source, SEED, B, 0, 1, told=lambda _: None))


def test_a_bad_test_image_counts_for_nothing(tmp_path, images):
    with_bad(tmp_path, images, {5})
    told, test = [], data.load("birds", tmp_path, image_size=SIZE).test
    index = np.concatenate([batch.index for batch in data.in_order(test, 8, told=told.append)])
    assert index.tolist() == [*range(5), -1, *range(6, N), *[-1] * 4]
    assert len(told) == 1 and "birds test record 5" in told[0]
    with pytest.raises(check.DataError, match="birds test record 5"):
        test.read([4, 5])


def test_a_record_gone_bad_since_is_like_a_bad_image(tmp_path, images):
    folder = write_folder(tmp_path, "birds", {"train": images, "test": images[:1]}, CLASSES[:4])
    source = data.load("birds", tmp_path, image_size=SIZE).train
    path = folder / "birds-train.array_record-00000-of-00001"
    content = bytearray(path.read_bytes())
    content[content.index(images[9].encoded[-200:-100])] ^= 255
    path.write_bytes(content)
    told = []
    fresh = dataclasses.replace(source, reader=dataclasses.replace(
        source.reader, records=records.Records(folder, "train", (None, None, 3))))
    batch, = data.feed(fresh, SEED, N, 0, 1, told=told.append)
    assert len(told) == 1 and (found := re.match("birds train record ([0-9]+) in", told[0]))
    bad = int(found[1])
    assert sorted(batch.index) == sorted([*{*range(N)} - {bad}, (bad + 1) % N])
    with pytest.raises(check.DataError, match=f"birds train record {bad} in .*00000-of-00001: "):
        data.load("birds", tmp_path, image_size=SIZE)  # which reads every label


# --- workers that die ----------------------------------------------------------------------------


class Slow:
    """Records that take their time, so that a worker can be caught at work."""

    def __init__(self, records, fails=False):
        self.records, self.fails = records, fails

    def each(self, positions, decode):
        time.sleep(0.2)
        if self.fails:
            raise RuntimeError("the disk is on fire")
        return self.records.each(positions, decode)


def slowly(source, **options):
    return dataclasses.replace(source, reader=dataclasses.replace(
        source.reader, records=Slow(source.reader.records, **options)))


def test_a_killed_worker_ends_the_run_soon(source):
    feeding = data.feed(slowly(source), SEED, B, 0, 1000, threads=1, workers=2)
    next(feeding)
    for worker in multiprocessing.active_children():  # as Ctrl-C and SLURM do: no reason to die
        os.kill(worker.pid, signal.SIGINT)
        os.kill(worker.pid, signal.SIGTERM)
    for _ in range(2 * workers.AHEAD):
        next(feeding)
    before = time.monotonic()
    os.kill(multiprocessing.active_children()[0].pid, signal.SIGKILL)
    with pytest.raises(check.DataError, match="workers that feed.*got the end of "
                                              "process .* with exit code -9"):
        list(feeding)
    assert time.monotonic() - before < 30
    assert not multiprocessing.active_children()


@pytest.mark.parametrize("workers", [0, 1])
def test_what_fails_in_a_worker_comes_with_its_traceback(source, workers):
    with pytest.raises(check.DataError, match="RuntimeError: the disk is on fire") as caught:
        list(data.feed(slowly(source, fails=True), SEED, B, 0, 3, workers=workers))
    assert "in each" in str(caught.value) and "test_fed_images.py" in str(caught.value)


PARENT = """
import sys
sys.path.insert(0, {here!r})
import test_fed_images as tests
from augjax import data
if __name__ == "__main__":
    source = data.load("imagenet2012", {data_dir!r}, image_size=24).train
    feeding = data.feed(tests.slowly(source), 0, 8, 0, 10_000, threads=1, workers=1)
    next(feeding)
    import multiprocessing
    print(multiprocessing.active_children()[0].pid, flush=True)
    list(feeding)
"""


def test_workers_do_not_outlive_a_killed_parent(data_dir, tmp_path):
    script = tmp_path / "parent.py"
    script.write_text(PARENT.format(here=os.path.dirname(__file__), data_dir=str(data_dir)))
    with subprocess.Popen([sys.executable, script], stdout=subprocess.PIPE, text=True,
                          cwd=os.getcwd(), env={**os.environ, "PYTHONPATH": os.getcwd()}) as parent:
        worker = int(parent.stdout.readline())
        parent.kill()
    deadline = time.monotonic() + 20
    while os.path.exists(f"/proc/{worker}") and time.monotonic() < deadline:
        if open(f"/proc/{worker}/stat").read().split()[2] == "Z":
            break
        time.sleep(0.1)
    assert time.monotonic() < deadline


def test_known_names_have_their_facts():
    assert set(named.READERS) == set(named.FACTS)
