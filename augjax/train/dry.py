"""What a recipe would need, by compiling it: no data, no weights, and no device of that kind."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
import math
from pathlib import Path
import tempfile
from typing import Any

import jax
from jax.sharding import Mesh
import numpy as np

from augjax import check, tree
from augjax.train import sharding, start
from augjax.train.collectives import (
    check_stays, Collective, collectives, described, most, of_rows,
)
from augjax.train.phases import check_recipe, Phase, Recipe
from augjax.train.ready import batch_shapes
from augjax.train.update import lower_step, make_step, make_update, Resident
from augjax.types import PyTree

HBM = {  # bytes a device of this kind has, by JAX's name for it (vendors' data sheets)
    "TPU v4": 32 * 2**30, "TPU v5 lite": 16 * 2**30, "TPU v5": 95 * 2**30,
    "TPU v6 lite": 32 * 2**30, "NVIDIA H100 80GB HBM3": 80 * 2**30, "NVIDIA H200": 141 * 2**30,
}
SMALLEST = {"v4": "2x2x1", "v5p": "2x2x1", "v5e": "2x2", "v6e": "2x2"}  # of a whole host
JOINED = {"chip_config_name": "megacore"}  # both cores of a chip are one device
FULL = "RESOURCE_EXHAUSTED"


@dataclass(frozen=True)
class Needs:
    """What one compiled update of a phase takes; bytes are those of one device."""

    phase: str
    devices: int
    device_kind: str
    batch_size: int
    parameters: int  # of all learners
    flops_per_image: float  # multiply and add are two; the whole update, teachers included
    bytes: Mapping[str, int]  # {"parameters", "optimizer", "average", "teacher", "data", ...}
    image_shape: tuple[int, ...]
    collectives: tuple[Collective, ...]  # what the devices send each other in an update
    rows: tuple[Collective, ...]  # of these, what is no parameter's (`collectives.of_rows`)

    @property
    def total(self) -> int:
        return sum(self.bytes.values())

    @property
    def sent(self) -> float:
        """Bytes that a device sends in an update, if devices send round rings."""
        return sum(one.sent for one in self.collectives)


def topology_mesh(name: str) -> Mesh:
    """A mesh of TPUs that need not exist: "v5e:4x4", "v4:2x2x4"; needs libtpu, not a TPU.

    Raises ConfigError for an unknown topology, or where libtpu is not installed.
    """
    from jax.experimental import topologies

    kind, _, shape = name.partition(":")
    check.one_of("--topology", kind, SMALLEST)
    try:
        described = topologies.get_topology_desc(
            platform="tpu", topology_name=f"{kind}:{shape or SMALLEST[kind]}",
            **(JOINED if kind == "v4" else {}))
    except Exception as error:  # libtpu raises what it likes
        raise check.ConfigError(check.sentence(
            "--topology", "KIND:SHAPE that libtpu knows, such as v5e:4x4, and libtpu installed",
            f"{name!r} ({str(error).splitlines()[0]})", "pip install 'augjax[tpu-compiler]'",
        )) from error
    return sharding.make_mesh(list(described.devices))


def needs(recipe: Recipe, mesh: Mesh, only: str = "") -> list[Needs]:
    """What every phase, or `only` the one named, needs on `mesh`; equal programs compile once.

    Raises ConfigError for what training would refuse, and where a device has too little memory.
    """
    check_recipe(recipe, mesh)
    phases = [recipe.phase(only)] if only else recipe.phases
    shapes = start.all_shapes(recipe, mesh)
    found: dict[Any, Needs] = {}
    for phase in phases:
        if start.kind_of(phase) not in found:
            found[start.kind_of(phase)] = phase_needs(recipe, phase, shapes[phase.name], mesh)
    return [replace(found[start.kind_of(phase)], phase=phase.name) for phase in phases]


def phase_needs(recipe: Recipe, phase: Phase, shapes: start.Shapes, mesh: Mesh) -> Needs:
    """Lowers and compiles one phase's update."""
    whole = sharding.replicated(mesh)

    def abstract(leaf):
        return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=whole)

    plan = jax.tree.map(abstract, start.plan(phase, recipe, 0))
    source = batch_shapes(recipe, phase.batch_size, mesh)
    if recipe.resident:
        count, shape = len(recipe.data.train), recipe.data.image_shape
        source = Resident(jax.ShapeDtypeStruct((count, *shape), np.uint8, sharding=whole),
                          jax.ShapeDtypeStruct((count,), np.int32, sharding=whole))
    arguments = (shapes.state, shapes.frozen, source, plan)
    update = make_update(
        phase.objective, phase.optimizer, phase.combine, phase.ema, phase.accumulate)
    with jax.set_mesh(mesh), tempfile.TemporaryDirectory() as folder:
        lowered = lower_step(make_step(update, mesh, recipe.log_every), mesh, arguments)
        compiled = _compiled(phase, lowered, _dumped(folder, mesh))
        text = _text(compiled, Path(folder))
    state = shapes.state
    held = {
        "parameters": _bytes((state.params, state.stats, state.transform, state.terms)),
        "optimizer": _bytes(state.opt_state), "average": _bytes(state.ema),
        "teacher": _bytes(shapes.frozen), "data": _bytes((source, plan)),
        "activations": compiled.memory_analysis().temp_size_in_bytes,
    }
    device = mesh.devices.flat[0]
    moved = collectives(text, mesh.size)
    return Needs(phase.name, mesh.size, device.device_kind, phase.batch_size,
                 tree.count(state.params["nets"]),
                 _flops(lowered, compiled, mesh) / phase.batch_size, held,
                 recipe.data.image_shape, moved,
                 of_rows(moved, (state, shapes.frozen), phase.batch_size))


def check_batch_stays(found: Needs) -> None:
    """Raises ConfigError where the update gathers its batch: `collectives.check_stays`' rule."""
    check_stays(found.phase, found.rows, found.batch_size, found.image_shape)


def largest_batch(found: Needs) -> int | None:
    """About the largest batch that fits a device's memory: a multiple of the devices.

    Taken for granted is that activations grow with the batch and nothing else does; what a compiler
    needs besides makes the true one larger. None where a device kind's memory is not known.
    """
    room = HBM.get(found.device_kind)
    if room is None:
        return None
    spare = room - (found.total - found.bytes["activations"])
    fits = found.batch_size * max(spare, 0) / found.bytes["activations"]
    return math.floor(fits / found.devices) * found.devices


def _compiled(phase: Phase, lowered: jax.stages.Lowered, options: Any = None) -> Any:
    try:
        return lowered.compile(options)
    except jax.errors.JaxRuntimeError as error:
        if FULL not in str(error):
            raise
        said = next((line for line in str(error).splitlines() if "hbm" in line.lower()), FULL)
        raise check.ConfigError(check.sentence(
            f"{phase.name}: memory of a device", "an update that fits", said.strip()[:200],
            "make the batch smaller or accumulate, set mesh.fsdp or model.remat, take more devices",
        )) from error


def _dumped(folder: str, mesh: Mesh) -> Any:
    """Options by which the TPU compiler writes into `folder` what it makes."""
    on_tpu = mesh.devices.flat[0].platform == "tpu"
    return {"xla_dump_to": folder, "xla_dump_hlo_as_text": True} if on_tpu else None


def _text(compiled: Any, folder: Path) -> str:
    """The compiled program. XLA cannot read back all that the TPU compiler makes (a B8 over 64
    chips: "async-update instruction should have 1 operands"), which the dump has as well."""
    try:
        return compiled.as_text()
    except jax.errors.JaxRuntimeError:
        written = [path.read_text() for path in folder.glob("*.after_codegen.txt")]
        if not written:
            raise
        return max(written, key=len)  # the update, not a helper


def _flops(lowered: jax.stages.Lowered, compiled: Any, mesh: Mesh) -> float:
    """Of the whole program: before it is cut up where XLA counts there, else device by device."""
    counted = lowered.cost_analysis() or {}
    if counted.get("flops"):
        return counted["flops"]
    return compiled.cost_analysis()["flops"] * mesh.size


def _bytes(shapes: PyTree) -> int:
    """Bytes that one device holds of arrays with shardings."""
    return sum(
        math.prod(leaf.sharding.shard_shape(leaf.shape)) * np.dtype(leaf.dtype).itemsize
        if not jax.dtypes.issubdtype(leaf.dtype, jax.dtypes.prng_key) else 8
        for leaf in jax.tree.leaves(shapes)
    )


def needs_table(found: list[Needs]) -> str:
    """Markdown, one row per phase. On CPUs the bytes say what this host would take."""
    first = found[0]
    kind = {"cpu": "host estimate"}.get(first.device_kind, "compiler estimates")
    parts = list(first.bytes)
    lines = [
        f"{first.devices} x {first.device_kind}, {kind}; GB (1e9 bytes) of one device", "",
        "| phase | batch | parameters | GFLOP/image | " + " | ".join(parts)
        + " | sum | largest batch |",
        "|---" * (len(parts) + 6) + "|",
    ]
    for row in found:
        size = largest_batch(row)
        lines.append(
            f"| {row.phase} | {row.batch_size} | {row.parameters:,} "
            f"| {row.flops_per_image / 1e9:.3g} | "
            + " | ".join(f"{row.bytes[part] / 1e9:.3g}" for part in parts)
            + f" | {row.total / 1e9:.3g} | {'not known' if size is None else f'about {size}'} |")
    return "\n".join(lines + ["", *map(_moves, found)])


def _moves(row: Needs) -> str:
    """A line on what a phase's devices send each other."""
    if not row.collectives:
        return f"{row.phase} moves nothing between devices."
    largest = max(row.collectives, key=lambda one: one.bytes)
    rows = sum(one.whole for one in row.rows)
    gathered = rows >= most(row.batch_size, row.image_shape)
    verdict = "the batch is gathered" if gathered else "no batch is gathered"
    return (f"{row.phase} moves {row.sent / 1e6:.3g} MB per step and device, the largest "
            f"{largest.bytes / 1e6:.3g} MB, {described(largest)}; not of parameters' shapes "
            f"{rows / 1e6:.3g} MB: {verdict}.")
