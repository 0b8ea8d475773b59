"""What the benchmark of feeding times really is the same work on both sides."""

import io
import json
import statistics

import numpy as np
from PIL import Image
import pytest

from augjax import data
from augjax.data.cropped import Cut
from launch import benchmark
from launch.benchmarks import input as bench
from launch.benchmarks import measure


@pytest.fixture(autouse=True)
def few(monkeypatch):
    monkeypatch.setattr(bench, "COUNT", 4)
    monkeypatch.setattr(bench, "BATCH", 2)
    monkeypatch.setattr(bench, "PAIRS", 2)
    monkeypatch.setattr(bench, "WINDOWS", 2)
    monkeypatch.setattr(measure, "_alone", True)  # here, and not in a process of its own


def test_photographs_are_of_imagenets_size():
    images = bench.photographs(4)
    assert [Image.open(io.BytesIO(image.encoded)).size for image in images] == [(500, 375)] * 4
    assert statistics.mean(len(image.encoded) for image in images) > 40_000
    small = Image.open(io.BytesIO(bench.photographs(4, short=256)[0].encoded))
    assert small.size == (341, 256)


def test_each_call_feeds_another_epoch(monkeypatch):
    firsts, feed = [], data.feed
    monkeypatch.setattr(data, "feed", lambda *arguments, **options: firsts.append(
        arguments[3:5]) or feed(*arguments, **options))
    call = bench.fed(bench.prepared(bench.photographs(4), Cut(32)))
    call(), call()
    assert firsts == [(0, 2), (2, 2)]


@pytest.mark.parametrize("row", [
    "decode", "decode and crop", "whole pipeline", "stall share, a step of 0.5 times its batch",
    "cores that an H100 needs for ResNet-50",
])
def test_rows_without_a_peer(row):
    found = bench.ROWS[row](row)
    assert json.dumps(found) and found["median"] > 0 and found["low"] <= found["high"]


def test_cores_are_the_estimate_over_what_was_measured(monkeypatch):
    monkeypatch.setattr(bench, "core_seconds", lambda work: 4 / 400)  # 400 images/s
    found = bench.ROWS["cores that an H100 needs for ResNet-50"]("x")
    assert found["median"] == pytest.approx(4250 / 400)
    assert found["low"] == pytest.approx(4100 / 400) and "estimated" in found["note"]


def test_the_ratio_is_theirs_over_ours(monkeypatch):
    monkeypatch.setattr(bench, "core_seconds", lambda work: work())
    assert bench.paired_ratio(lambda: 2.0, lambda: 3.0) == [1.5, 1.5]


@pytest.mark.parity
@pytest.mark.parametrize("row", [
    "whole pipeline, torchvision", "evaluation, resnet, torchvision",
    "decode and crop, torchvision", "decode and crop, torchvision's whole pipeline",
])
def test_rows_beside_torchvision(row):
    found = bench.ROWS[row](row)
    assert found["n"] == 2 and found["median"] > 0


@pytest.mark.parity
def test_both_sides_evaluate_the_same_pixels():
    pixels = bench.torchvision_loaded(bench.in_files(bench.photographs(2)), training=False)()
    source = bench.prepared(bench.photographs(2), Cut(bench.SIZE))
    theirs = [int(value) for value in np.asarray(pixels).reshape(-1)]
    assert theirs == [int(source.read([0])[0, 0, 0, 0])]


def test_the_suite_is_known():
    assert "input" in benchmark.SUITES
