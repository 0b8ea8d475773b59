"""What a row of the suite `topologies` says of what the compiler said."""

import pytest

from augjax.train.collectives import Collective
from augjax.train.dry import Needs
from launch.benchmarks import topologies


def needs(**changes):
    fields = dict(
        phase="student", devices=4, device_kind="TPU v5 lite", batch_size=8, parameters=10,
        flops_per_image=1.0, bytes={"data": 2e9}, image_shape=(8, 8, 3), collectives=SENT, rows=())
    return Needs(**{**fields, **changes})


SENT = (Collective("all-reduce", (("f32", (10,)),), 4, 1, "grads"),)


@pytest.mark.parametrize("changes, verdict", [
    ({}, "met"), ({"bytes": {"data": 20e9}}, "missed"),
    ({"rows": (Collective("all-gather", (("u8", (8, 8, 8, 3)),), 4, 1, "batch"),)},
     "missed: a batch is gathered")])
def test_a_row_is_met_where_all_fits_and_no_batch_is_gathered(changes, verdict):
    row = topologies.told("row", needs(**changes), 1, 60.0)
    assert row["verdict"] == verdict and "4 chips, 1 hosts" in row["note"]


def test_every_kind_has_one_host_and_many():
    for network in topologies.STEPS:
        for kind, shape in topologies.HOSTS.items():
            rows = [name for name in topologies.ROWS if name.startswith(f"{network}, {kind}:")]
            assert len(rows) == 2 + (kind in topologies.WHOLE) and any(shape in one for one in rows)
