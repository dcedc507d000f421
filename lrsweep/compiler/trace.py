"""Record what a training step does as a flat list of tensor operations, and replay that list without autograd or vmap.

A step is run once, on real tensors, below autograd and vmap: what arrives there are plain operations on plain tensors.
Replaying them gives the same bits for a fraction of the dispatch cost. torch has such a tracer (`make_fx`), which this
one follows; using it costs a second of imports in every process and says less about constants.

Without replaying, training takes 180 % longer on workload a of `python -m tests.bench.tricks`, 64 % on b, 56 % on c
(2026-11).
"""

from __future__ import annotations

from collections.abc import Callable, MutableMapping, Sequence
from copy import copy
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor

from lrsweep.compiler.torch_private import UNSAFE_VIEW, TorchDispatchMode, bare, schema_of

# Views that their schemas do not call views.
VIEWS = {UNSAFE_VIEW, torch.ops.aten.reshape.default}


class TraceError(Exception):
    """The step does something that a recording cannot repeat; the text says what, as the end of a sentence."""


class NotRepeatableError(TraceError):
    """What the step does next depends on the values in a batch: right as long as it is not replayed with another."""


def map_leaves(function: Callable[[Any], Any], value: Any) -> Any:
    """`value` with every leaf of its tuples, named tuples, lists and mappings replaced by `function` of it."""
    kind = type(value)
    if isinstance(value, tuple | list):
        mapped = [map_leaves(function, one) for one in value]
        return kind(*mapped) if hasattr(value, "_fields") else kind(mapped)
    if isinstance(value, MutableMapping):
        changed = copy(value)
        changed.update({key: map_leaves(function, one) for key, one in value.items()})
        return changed
    return function(value)


@dataclass(frozen=True, slots=True)
class Value:
    """A value of the graph by number."""

    index: int


@dataclass(frozen=True, slots=True)
class TensorMeta:
    """What is known about a value without its data."""

    shape: tuple[int, ...]
    stride: tuple[int, ...]
    dtype: torch.dtype
    device: torch.device

    @staticmethod
    def dense(shape: Sequence[int], like: TensorMeta) -> TensorMeta:
        """A contiguous tensor of this shape, else as `like`."""
        strides, size = [], 1
        for extent in reversed(shape):
            strides.append(size)
            size *= extent
        return TensorMeta(tuple(shape), tuple(reversed(strides)), like.dtype, like.device)

    def transposed(self) -> TensorMeta:
        """With its last two dimensions exchanged."""
        shape = (*self.shape[:-2], self.shape[-1], self.shape[-2])
        return TensorMeta(shape, (*self.stride[:-2], self.stride[-1], self.stride[-2]), self.dtype, self.device)

    def same_layout(self, other: TensorMeta) -> bool:
        """Equal shape, dtype and strides, those of dimensions of one entry aside."""
        strides = zip(self.shape, self.stride, other.stride, strict=False)
        alike = self.shape == other.shape and self.dtype == other.dtype
        return alike and all(one == two for extent, one, two in strides if extent != 1)


def is_view(op: Any) -> bool:
    """Is the result of this operation another look at the memory of its first argument?"""
    known = schema_of(op)
    aliases = known is not None and not known.is_mutable and any(one.alias_info is not None for one in known.returns)
    return op in VIEWS or aliases


@dataclass(slots=True)
class Node:
    """One operation: `args` and `kwargs` hold `Value`s where tensors go; `outs` are the values it defines, in order.

    An in-place operation defines the value it overwrites (again). None stands for a result that is no tensor.
    """

    op: Callable[..., Any]
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    outs: tuple[Value | None, ...]
    single: bool = True

    @property
    def out(self) -> Value:
        """The one value it defines."""
        (out,) = self.outs
        assert out is not None
        return out

    def inputs(self) -> list[Value]:
        found: list[Value] = []

        def look(leaf: Any) -> Any:
            if type(leaf) is Value:
                found.append(leaf)
            return leaf

        map_leaves(look, (self.args, self.kwargs))
        return found

    def map_inputs(self, function: Callable[[Any], Any]) -> None:
        """Replace every leaf of the arguments by `function` of it."""
        self.args, self.kwargs = map_leaves(function, (self.args, self.kwargs))

    @property
    def views(self) -> bool:
        """Is the result another look at the memory of the first argument?"""
        return is_view(self.op)

    @property
    def computes(self) -> bool:
        return not self.views

    @property
    def mutates(self) -> bool:
        known = schema_of(self.op)
        return known is not None and known.is_mutable

    @property
    def random(self) -> bool:
        return torch.Tag.nondeterministic_seeded in getattr(self.op, "tags", ())


@dataclass(slots=True)
class Graph:
    """A recorded step. `meta` describes every value; `constants` are tensors that the step found, not made."""

    inputs: list[Value]
    nodes: list[Node]
    outputs: list[Value | None]
    constants: dict[Value, Tensor]
    meta: dict[Value, TensorMeta]
    counter: int = 0

    def new(self, like: TensorMeta) -> Value:
        ref = Value(self.counter)
        self.counter += 1
        self.meta[ref] = like
        return ref

    def copy(self) -> Graph:
        """The same nodes, which can be changed without changing this graph."""
        nodes = [replace(node) for node in self.nodes]
        return Graph(self.inputs, nodes, list(self.outputs), self.constants, dict(self.meta), self.counter)

    @property
    def random(self) -> bool:
        """Does replaying draw from torch's global generator?"""
        return any(node.random for node in self.nodes)

    @property
    def own_outputs(self) -> frozenset[int]:
        """The positions of outputs that may be written into: made by this replay, contiguous, and in memory that no
        other output, input or constant lies in."""
        owner: dict[Value, Value] = {}
        made: set[Value] = set()
        for node in self.nodes:
            for out in node.outs:
                if out is not None and (node.views or node.mutates):
                    owner[out] = owner.get(node.args[0], node.args[0])
                elif out is not None:
                    made.add(out)
        roots = [None if ref is None else owner.get(ref, ref) for ref in self.outputs]

        def own(ref: Value | None, root: Value | None) -> bool:
            dense = ref is not None and self.meta[ref].same_layout(
                TensorMeta.dense(self.meta[ref].shape, self.meta[ref])
            )
            return dense and root in made and roots.count(root) == 1

        return frozenset(number for number, pair in enumerate(zip(self.outputs, roots, strict=True)) if own(*pair))

    @property
    def draws_by_layout(self) -> bool:
        """Are random numbers drawn into a tensor that is not contiguous? They fill it in the order of its memory."""
        drawn = [self.meta[ref] for node in self.nodes if node.random for ref in node.outs if ref is not None]
        return not all(like.same_layout(TensorMeta.dense(like.shape, like)) for like in drawn)


@dataclass
class _Recorder(TorchDispatchMode):
    """Notes every operation that runs below it. Tensors are kept alive, so that their identity names them."""

    graph: Graph
    strict: bool
    known: dict[int, Value] = field(default_factory=dict)
    alive: list[Tensor] = field(default_factory=list)

    def __post_init__(self) -> None:
        super().__init__()

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        # True, torch's answer, would import its compiler (a second) to keep it away from a mode that it never sees.
        return False

    def name(self, tensor: Tensor) -> Value:
        ref = self.known.get(id(tensor))
        if ref is None:
            like = TensorMeta(tuple(tensor.shape), tuple(tensor.stride()), tensor.dtype, tensor.device)
            ref = self.known[id(tensor)] = self.graph.new(like)
            self.alive.append(tensor)
        return ref

    def argument(self, leaf: Any) -> Any:
        if isinstance(leaf, torch.Generator):
            raise TraceError("draws from a torch.Generator of its own")
        if not isinstance(leaf, Tensor):
            return leaf
        if id(leaf) not in self.known:
            self.graph.constants[self.name(leaf)] = leaf
        return self.name(leaf)

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if self.strict:
            _refuse(func, args)
        kwargs = kwargs or {}
        if func is torch.ops.aten.lift_fresh.default:
            func = torch.ops.aten.clone.default  # `torch.tensor(1.0)` in the step: fresh each time, and no alias
        noted = map_leaves(self.argument, (tuple(args), kwargs))
        out = func(*args, **kwargs)
        single = not isinstance(out, tuple | list)
        outs = tuple(self.name(one) if isinstance(one, Tensor) else None for one in ((out,) if single else out))
        node = Node(func, noted[0], noted[1], outs, single)
        self.graph.nodes.append(node)
        if node.mutates and any(ref in self.graph.constants for ref in outs):
            raise TraceError("changes in each step a tensor that is neither a parameter nor a buffer")
        return out


def _refuse(func: Any, args: Any) -> None:
    name = str(func)
    if func is torch.ops.aten.index.Tensor and not any(
        isinstance(index, Tensor) and index.dtype in (torch.bool, torch.uint8) for index in args[1]
    ):
        return  # integers as indices: the shape is theirs
    if "_local_scalar_dense" in name:
        raise NotRepeatableError("turns a tensor into a Python number (.item(), float(), if)")
    if torch.Tag.dynamic_output_shape in func.tags or torch.Tag.data_dependent_output in func.tags:
        raise NotRepeatableError(f"has tensors whose shapes depend on their values ({name.removeprefix('aten.')})")


def copied(tensor: Tensor) -> Tensor:
    """A copy that lies in memory as the original does, gaps included, so that what is a view stays one."""
    return torch.empty_strided(tensor.shape, tensor.stride(), dtype=tensor.dtype, device=tensor.device).copy_(tensor)


def record(step: Callable[..., Sequence[Tensor | None]], *inputs: Tensor, strict: bool = True) -> Graph:
    """Run `step(*inputs)` once and return its graph; raises `TraceError` for what cannot be repeated.

    `strict=False`: note what depends on the values of the inputs too; good for counting, not for replaying.

    `step` may use autograd and vmap inside. Its in-place writes to `inputs` are part of the recording.
    """
    graph = Graph([], [], [], {}, {})
    recorder = _Recorder(graph, strict)
    graph.inputs = [recorder.name(tensor) for tensor in inputs]
    with recorder:
        outputs = step(*inputs)
    graph.outputs = [None if out is None else recorder.argument(out) for out in outputs]
    return graph


def same(one: Graph, other: Graph) -> bool:
    """Do two recordings do the same to their inputs? Constants are compared by value."""
    if len(one.nodes) != len(other.nodes) or one.outputs != other.outputs or one.meta != other.meta:
        return False
    for mine, theirs in zip(one.nodes, other.nodes, strict=True):
        if mine.op is not theirs.op or mine.outs != theirs.outs:
            return False
        if repr((mine.args, mine.kwargs)) != repr((theirs.args, theirs.kwargs)):
            return False
    if one.constants.keys() != other.constants.keys():
        return False
    pairs = ((tensor, other.constants[value]) for value, tensor in one.constants.items())
    return all(mine is theirs or torch.equal(mine, theirs) for mine, theirs in pairs)


def source(graph: Graph, *, objects: bool = False) -> tuple[str, dict[str, Any]]:
    """Python text of a function that replays the graph, and the names it uses. Values go after their last use.

    `objects`: call torch's operator objects, as torch.compile needs it; what is behind them saves a call each.
    """
    names: dict[str, Any] = {f"c{ref.index}": tensor for ref, tensor in graph.constants.items()}
    text = {ref: f"c{ref.index}" for ref in graph.constants}
    text.update({ref: f"v{ref.index}" for ref in graph.meta if ref not in graph.constants})
    lines = [f"def replay({', '.join(text[ref] for ref in graph.inputs)}):"]
    keep = {ref for ref in graph.outputs if ref is not None} | set(graph.constants)
    last = {ref: number for number, node in enumerate(graph.nodes) for ref in (*node.inputs(), *_defined(node))}
    ops: dict[Any, str] = {}
    for number, node in enumerate(graph.nodes):
        if node.op not in ops:
            ops[node.op] = f"f{len(ops)}"
            names[ops[node.op]] = node.op if objects else bare(node.op)
        parts = [_literal(argument, text, names) for argument in node.args]
        parts += [f"{key}={_literal(value, text, names)}" for key, value in node.kwargs.items()]
        call = f"{ops[node.op]}({', '.join(parts)})"
        left = ", ".join("_" if ref is None else text[ref] for ref in node.outs)
        lines.append(f"    {left} = {call}" if node.single else f"    {left}, = {call}" if left else f"    {call}")
        done = {ref for ref in (*node.inputs(), *_defined(node)) if last[ref] == number and ref not in keep}
        if done:
            lines.append(f"    {' = '.join(sorted(text[ref] for ref in done))} = None")
    lines.append(f"    return [{', '.join('None' if ref is None else text[ref] for ref in graph.outputs)}]")
    return "\n".join(lines), names


def _defined(node: Node) -> list[Value]:
    return [ref for ref in node.outs if ref is not None]


def _literal(value: Any, text: dict[Value, str], names: dict[str, Any]) -> str:
    if isinstance(value, Value):
        return text[value]
    if isinstance(value, list | tuple):
        return "[" + ", ".join(_literal(one, text, names) for one in value) + "]"
    if value is None or isinstance(value, bool | int | str):
        return repr(value)
    name = f"k{len(names)}"
    names[name] = value
    return name


def compiled(graph: Graph, *, inductor: bool = False) -> Callable[..., list[Tensor | None]]:
    """The graph as a Python function of its inputs. Call it with gradients off.

    `inductor`: through torch.compile, which takes seconds to minutes and fuses what lies between products.
    """
    text, names = source(graph, objects=inductor)
    exec(compile(text, "<lrsweep graph>", "exec"), names)
    return torch.compile(names["replay"], dynamic=False, fullgraph=True) if inductor else names["replay"]
