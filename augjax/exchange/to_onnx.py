"""A function of JAX as an ONNX model, for the primitives that networks predict with and no others.

Why not jax2onnx: 0.17.1 asks for an older Orbax than augjax, leaves functions of jax.numpy and
flax.nnx replaced, and refuses `lax.platform_dependent`, Linen's `max_pool` and a resize in a batch
of any size, hence MobileNets, EfficientNets, AlexNets and ImageNet's ResNets.
"""

from collections.abc import Callable, Sequence
import string
from typing import Any, NamedTuple

import jax
from jax import export as jax_export
from jax import lax
import jax.numpy as jnp
import numpy as np

from augjax import check

OPSET, FORMAT = 18, 8  # of ONNX 1.13, of the year 2022, so that older runtimes read it too
PRODUCER = "augjax"
BEGINNING = bytes([8, FORMAT, 18, len(PRODUCER)]) + PRODUCER.encode()  # of every file: two fields
PIXELS, LOGITS = "pixels", "logits"
CALLS = {"jit": "jaxpr", "pjit": "jaxpr", "custom_jvp_call": "call_jaxpr",
         "custom_vjp_call": "call_jaxpr"}  # primitive: the parameter that has its jaxpr

Value = np.ndarray | str  # known already, or the name of what the model will compute


class Step(NamedTuple):
    """An equation of a jaxpr that depends on the pixels or on how many images there are."""

    equation: Any
    inputs: list[Value]
    outputs: list[str]


class Graph(NamedTuple):
    """The model as far as it is written."""

    nodes: list[Any]  # NodeProto
    tensors: dict[str, np.ndarray]


def to_onnx(function: Callable[[jax.Array], jax.Array], image_shape: Sequence[int]) -> bytes:
    """The ONNX file of `function`: "pixels" [b, H, W, C] float32 to "logits" [b, K] float32.

    It is traced once, for a batch of any size; what depends on weights alone is computed now, and
    what the logits do not depend on is left out. Images stay [b, H, W, C]: convolutions and pools
    stand between transpositions, which a runtime moves out of the way.

    Raises ConfigError for a primitive, or a use of one, that has no operator here.
    """
    from onnx import helper, numpy_helper, TensorProto

    sides = ", ".join(map(str, image_shape))
    image = jax.ShapeDtypeStruct(jax_export.symbolic_shape(f"b, {sides}"), jnp.float32)
    traced = jax.make_jaxpr(function)(image)
    steps: list[Step] = []
    (last,) = _flat(steps, traced.jaxpr, traced.consts, [PIXELS])
    graph = Graph([], {})
    for step in _needed(steps, last):
        name = step.equation.primitive.name
        _require(name in OPERATORS, "primitive", ", ".join(sorted(OPERATORS)), name)
        OPERATORS[name](graph, step, **step.equation.params)
    _add(graph, "Identity", [last], [LOGITS])

    ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["b", *shape]) for name, shape in
            ((PIXELS, image_shape), (LOGITS, traced.out_avals[0].shape[1:]))]
    tensors = [numpy_helper.from_array(tensor, name) for name, tensor in graph.tensors.items()]
    return helper.make_model(
        helper.make_graph(graph.nodes, "network", ends[:1], ends[1:], tensors),
        producer_name=PRODUCER, ir_version=FORMAT, opset_imports=[helper.make_opsetid("", OPSET)],
    ).SerializeToString()


# --- from a jaxpr to steps -----------------------------------------------------------------------


def _flat(steps: list[Step], jaxpr: Any, consts: Sequence[Any], arguments: Sequence[Value]
          ) -> list[Value]:
    """What a jaxpr returns. Its equations go to `steps`: calls opened, known ones computed."""
    values = dict(zip((*jaxpr.constvars, *jaxpr.invars), (*map(np.asarray, consts), *arguments)))

    def read(atom):
        literal = hasattr(atom, "val")
        return np.asarray(atom.val, atom.aval.dtype) if literal else values[atom]

    for equation in jaxpr.eqns:
        name, params = equation.primitive.name, equation.params
        came = [read(atom) for atom in equation.invars]
        known = not any(isinstance(value, str) for value in came)
        if name in CALLS:
            inner = params[CALLS[name]]
            made = _flat(steps, inner.jaxpr, inner.consts, came)
        elif name == "platform_index":  # of `lax.platform_dependent`: what is for all others
            made = [np.asarray(params["platforms"].index(None), np.int32)]
        elif name == "cond" and not isinstance(came[0], str):
            branch = params["branches"][int(came[0])]
            made = _flat(steps, branch.jaxpr, branch.consts, came[1:])
        elif known and all(isinstance(size, int) for size in equation.outvars[0].aval.shape):
            made = equation.primitive.bind(*came, **params)
            made = map(np.asarray, made if equation.primitive.multiple_results else [made])
        else:
            made = [f"{name}_{len(steps)}_{k}" for k in range(len(equation.outvars))]
            steps.append(Step(equation, came, made))
        values.update(zip(equation.outvars, made))
    return [read(atom) for atom in jaxpr.outvars]


def _needed(steps: Sequence[Step], last: Value) -> list[Step]:
    """Those that `last` depends on; others are labels, and what quantisers keep for gradients."""
    needed, read = [], {last}
    for step in reversed(steps):
        if read & {*step.outputs}:
            needed.append(step)
            read |= {value for value in step.inputs if isinstance(value, str)}
    return needed[::-1]


# --- operators -----------------------------------------------------------------------------------


def _add(graph: Graph, operator: str, inputs: Sequence[Value], outputs: Sequence[str] = (),
         **attributes: Any) -> str:
    """Appends an operator; returns the name of its first output."""
    from onnx import helper

    names = []
    for value in inputs:
        if not isinstance(value, str):
            name = f"tensor_{len(graph.tensors)}"
            graph.tensors[name], value = np.asarray(value, order="C"), name
        names.append(value)
    outputs = list(outputs) or [f"between_{len(graph.nodes)}"]
    graph.nodes.append(helper.make_node(operator, names, outputs, **attributes))
    return outputs[0]


def _require(true: bool, what: str, expected: str, came: Any) -> None:
    check.require(true, f"--format=onnx: {what}", expected, came, "use stablehlo")


def _same(operator: str) -> Callable[..., Any]:
    """An operator that does what the primitive does."""
    return lambda graph, step, **_: _add(graph, operator, step.inputs, step.outputs)


def _transposed(graph: Graph, value: Value, axes: Sequence[int], outputs: Sequence[str] = ()
                ) -> Value:
    if not isinstance(value, str):
        return np.transpose(value, axes)
    return _add(graph, "Transpose", [value], outputs, perm=[int(axis) for axis in axes])


def _reshape(graph, step, **_):
    """The size that depends on the batch's is left open."""
    sizes = [size if isinstance(size, int) else -1 for size in step.equation.outvars[0].aval.shape]
    _add(graph, "Reshape", [step.inputs[0], np.asarray(sizes)], step.outputs)


def _broadcast(graph, step, broadcast_dimensions, **_):
    """Only new axes of size 1: the operators of numbers broadcast by themselves."""
    old, new = (list(atom.aval.shape) for atom in (
        step.equation.invars[0], step.equation.outvars[0]))
    came = [old.pop(0) if axis in broadcast_dimensions else 1 for axis in range(len(new))]
    _require(came == new, "broadcast_in_dim", "new axes of size 1", f"{new} from {came}")
    _reshape(graph, step)


def _stack(graph, step, axis, **_):
    parts = [_add(graph, "Unsqueeze", [value, np.asarray([axis])]) for value in step.inputs]
    _add(graph, "Concat", parts, step.outputs, axis=axis)


def _split(graph, step, sizes, axis, **_):
    _add(graph, "Split", [step.inputs[0], np.asarray(sizes, np.int64)], step.outputs, axis=axis)


def _gather(graph, step, dimension_numbers, slice_sizes, **_):
    """One window at a known place, as which x[:, 1:, 1:] is traced."""
    (image, starts), axes = step.inputs, np.asarray(dimension_numbers.start_index_map)
    window = not isinstance(starts, str) and starts.ndim == 1
    _require(window and not dimension_numbers.collapsed_slice_dims, "gather",
             "one window at a known place", dimension_numbers)
    ends = starts + np.asarray([slice_sizes[axis] for axis in axes])  # int64, as are the axes
    _add(graph, "Slice", [image, starts.astype(np.int64), ends, axes], step.outputs)


def _pad(graph, step, padding_config, **_):
    low, high, between = np.asarray(padding_config, np.int64).T
    _require(not between.any(), "pad", "nothing between the numbers", padding_config)
    image, value = step.inputs
    _add(graph, "Pad", [image, np.concatenate([low, high]), value], step.outputs)


def _reduce_sum(graph, step, axes, **_):
    _add(graph, "ReduceSum", [*step.inputs, np.asarray(axes)], step.outputs, keepdims=0)


def _round(graph, step, rounding_method):
    """Half to even, as ONNX rounds."""
    even = lax.RoundingMethod.TO_NEAREST_EVEN
    _require(rounding_method == even, "round", even.name, lax.RoundingMethod(rounding_method).name)
    _add(graph, "Round", step.inputs, step.outputs)


def _dot(graph, step, dimension_numbers, **_):
    (contracted, batched), names = dimension_numbers, iter(string.ascii_lowercase)
    left, right = ([next(names) for _ in atom.aval.shape] for atom in step.equation.invars)
    for here, there in (contracted, batched):
        for i, j in zip(here, there):
            right[j] = left[i]
    shared = [left[i] for i in batched[0]]
    free = [name for name in (*left, *right) if (name in left) != (name in right)]
    _add(graph, "Einsum", step.inputs, step.outputs,
         equation=f"{''.join(left)},{''.join(right)}->{''.join(shared + free)}")


def _convolve(graph, step, dimension_numbers, window_strides, padding, lhs_dilation, rhs_dilation,
              feature_group_count, batch_group_count, **_):
    _require(batch_group_count == 1 and set(lhs_dilation) == {1}, "conv_general_dilated",
             "no dilation of the image and no groups of it", (lhs_dilation, batch_group_count))
    image, kernel, out = dimension_numbers
    between = _add(
        graph, "Conv", [_transposed(graph, value, axes) for value, axes in
                        zip(step.inputs, (image, kernel))],
        strides=window_strides, pads=[pads[k] for k in (0, 1) for pads in padding],
        dilations=rhs_dilation, group=feature_group_count)
    _transposed(graph, between, np.argsort(out), step.outputs)


def _pool(operator: str, **attributes: Any) -> Callable[..., Any]:
    """Of [b, H, W, C] over H and W; an average is made a sum again."""

    def pool(graph, step, window_dimensions, window_strides, padding, base_dilation,
             window_dilation):
        static = (window_dimensions, window_strides, (*map(sum, padding),))
        _require(all(numbers[0] == numbers[3] for numbers in static)
                 and window_dimensions[0] == 1 and {*base_dilation, *window_dilation} == {1},
                 "pooling", "windows over H and W of [b, H, W, C], without dilation", static)
        image = _transposed(graph, step.inputs[0], (0, 3, 1, 2))
        made = _add(graph, operator, [image], kernel_shape=window_dimensions[1:3],
                    strides=window_strides[1:3],
                    pads=[padding[axis][k] for k in (0, 1) for axis in (1, 2)], **attributes)
        if operator == "AveragePool":
            made = _add(graph, "Mul", [made, np.float32(np.prod(window_dimensions))])
        _transposed(graph, made, (0, 2, 3, 1), step.outputs)

    return pool


OPERATORS: dict[str, Callable[..., Any]] = {
    "add": _same("Add"), "sub": _same("Sub"), "mul": _same("Mul"), "div": _same("Div"),
    "max": _same("Max"), "min": _same("Min"), "logistic": _same("Sigmoid"), "round": _round,
    "reshape": _reshape, "broadcast_in_dim": _broadcast, "stack": _stack, "split": _split,
    "gather": _gather, "pad": _pad, "reduce_sum": _reduce_sum, "dot_general": _dot,
    "conv_general_dilated": _convolve, "transpose": lambda graph, step, permutation: _transposed(
        graph, step.inputs[0], permutation, step.outputs),
    "concatenate": lambda graph, step, dimension: _add(
        graph, "Concat", step.inputs, step.outputs, axis=dimension),
    "reduce_window_max": _pool("MaxPool"),
    "reduce_window_sum": _pool("AveragePool", count_include_pad=1),
}
