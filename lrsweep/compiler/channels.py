"""Convolution and pooling of images for stacked runs: runs stand among the channels, and channels lie side by side.

torch's own rules for `vmap` put the runs of a convolution among its channels, in planes, and those of pooling among the
batch. That costs copies between the two, and in planes there is fast code neither for pooling nor for convolutions of
few channels. What lies between the two is computed in the layout it is found in.

Without this, training takes 85 % longer on workload c of `python -m tests.bench.tricks` (2026-11).
"""

# M runs, B batch, C channels, H height, W width

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn.modules.utils import _pair
from torch.overrides import TorchFunctionMode

from lrsweep.compiler.torch_private import functorch, tree_leaves, tree_map_only
from lrsweep.compiler.trace import Graph, Node, Value

aten = torch.ops.aten
SHARING = 8  # runs that share an image, about
FEW_CHANNELS = 16  # of less than a vector a convolution makes little
SUMMED_BYTES = 256  # four vectors of the widest processors


class RunsAmongChannels(TorchFunctionMode):
    """While a module is called, vmapped or not: its convolutions and poolings of images on the CPU go by `RULES`."""

    def __torch_function__(
        self, func: Any, types: Any, args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        rule, kwargs = RULES.get(func), dict(kwargs or {})
        if rule is None or not args or not _batch_of_images(args[0]):
            return _in_planes_if_it_must_be(func, args, kwargs)
        level = functorch.maybe_current_level()
        if level is None:
            return _noticed(func(_side_by_side(args[0]), *args[1:], **kwargs))
        runs = _runs((*args, *kwargs.values()), level)
        if runs is None:
            return func(*args, **kwargs)
        images, dim = functorch._unwrap_batched(args[0], level)
        if dim is not None:
            images = images.movedim(dim, 1).flatten(1, 2)
        rest, named = tree_map_only(Tensor, lambda value: _leading(value, runs, level), (args[1:], kwargs))
        out = rule(func, runs, images, dim is None, *rest, **named)
        return functorch._add_batch_dim(_noticed(torch.unflatten(out, 1, (runs, -1))), 1, level)


def _in_planes_if_it_must_be(func: Callable[..., Any], args: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:
    """`func` of images as they lie or, where it has no way with that, of a copy in planes.

    A view such as `x.view(len(x), -1)` has none, nor has what asks under vmap for the order in memory (group_norm).
    """
    try:
        return func(*args, **kwargs)
    except RuntimeError:
        leaves = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)]
        writes = getattr(func, "__name__", "").endswith("_")
        if writes or all(leaf.is_contiguous() for leaf in leaves):
            raise
    planes, named = tree_map_only(Tensor, Tensor.contiguous, (tuple(args), dict(kwargs)))
    return func(*planes, **named)


def _batch_of_images(value: Any) -> bool:
    return isinstance(value, Tensor) and value.ndim == 4 and value.device.type == "cpu"


def _runs(values: Sequence[Any], level: int) -> int | None:
    """How many runs have a part in `values`; None: they are the same for all."""
    for value in values:
        if isinstance(value, Tensor):
            inner, dim = functorch._unwrap_batched(value, level)
            if dim is not None:
                return int(inner.shape[dim])
    return None


def _leading(value: Tensor, runs: int, level: int) -> Tensor:
    inner, dim = functorch._unwrap_batched(value, level)
    return inner.expand(runs, *inner.shape) if dim is None else inner.movedim(dim, 0)


def _side_by_side(images: Tensor) -> Tensor:
    if images.shape[1] == 1:
        # `contiguous` would leave its strides as they are, and a convolution lays its result out by them.
        return images.clone(memory_format=torch.channels_last)
    return images.contiguous(memory_format=torch.channels_last)


def _noticed(images: Tensor) -> Tensor:
    """`images`, whose gradient will have its channels side by side too."""
    if images.requires_grad:
        images.register_hook(_gradient_side_by_side)
    return images


def _gradient_side_by_side(grad: Tensor) -> Tensor:
    """[B, (M,) C, H, W] copied at once to where it is wanted: torch would make planes first."""
    last, channels = grad.ndim - 1, range(1, grad.ndim - 2)
    turned = grad.permute(0, last - 1, last, *channels).contiguous()
    return turned.permute(0, *(dim + 2 for dim in channels), 1, 2)


def _convolution(
    func: Callable[..., Tensor],
    runs: int,
    images: Tensor,
    shared: bool,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: Any = 1,
    padding: Any = 0,
    dilation: Any = 1,
    groups: int = 1,
) -> Tensor:
    """`weight` [M, out, C / groups, h, w]. Images that all runs share get the filters of all of them at once.

    That sums up the gradients of weights in another order than where images differ, so runs of several seeds are not
    trained together (Sizes.convolves). Which way a run's filters go depends on nothing but their own sizes.
    """
    if shared and groups > 1:
        images, shared = images.repeat(1, runs, 1, 1), False
    filters, biases = weight.flatten(0, 1), None if bias is None else bias.flatten()
    if shared:
        if not images.requires_grad and _worth_unfolding(weight.shape[1:]) and not isinstance(padding, str):
            columns = _columns(images, weight.shape[-2:], _two(stride), _two(padding), _two(dilation))
            return func(columns, filters.flatten(1)[:, :, None, None], biases)
        return func(_side_by_side(images), filters, biases, stride, padding, dilation, groups)
    channels, outputs = images.shape[1] // runs, weight.shape[1]
    added = _runs_to_add(runs, channels)
    if added:
        images = F.pad(images, (0, 0, 0, 0, 0, added * channels))
        filters = F.pad(filters, (0, 0, 0, 0, 0, 0, 0, added * outputs))
        biases = None if biases is None else F.pad(biases, (0, added * outputs))
    out = func(_side_by_side(images), filters, biases, stride, padding, dilation, groups * (runs + added))
    return out[:, : runs * outputs] if added else out


def _runs_to_add(runs: int, channels: int) -> int:
    """Runs of zeros beside these: torch has kernels for one run, and for up to three channels in all, that sum in
    another order than those for more."""
    return max(0, 2 - runs, math.ceil(4 / channels) - runs)


def _two(value: Any) -> tuple[int, ...]:
    """A number for each of height and width, from one for both, which may stand in a tuple of its own."""
    pair = tuple(_pair(value))
    return pair * 2 if len(pair) == 1 else pair


def _worth_unfolding(filters: Sequence[int]) -> bool:
    """Of the filters of one run, with several runs to look at the same columns."""
    outputs, channels, height, width = filters
    return channels < FEW_CHANNELS and 2 * channels * height * width <= SHARING * outputs


def _columns(
    images: Tensor, size: Sequence[int], stride: Sequence[int], padding: Sequence[int], dilation: Sequence[int]
) -> Tensor:
    """What a filter meets at each place, as channels that lie side by side: once for the filters of all runs."""
    batch, *shape = images.shape
    nothing = math.prod(shape)  # the place of a zero after the last pixel
    places = torch.arange(nothing).view(shape)
    places = F.pad(places, (padding[1], padding[1], padding[0], padding[0]), value=nothing)
    for dim in (0, 1):
        places = places.unfold(dim + 1, dilation[dim] * (size[dim] - 1) + 1, stride[dim])[..., :: dilation[dim]]
    places = places.permute(1, 2, 0, 3, 4).flatten(2)
    found = F.pad(images.flatten(1), (0, 1)).index_select(1, places.flatten())
    return found.view(batch, *places.shape).permute(0, 3, 1, 2)


def _per_channel(
    func: Callable[..., Tensor], runs: int, images: Tensor, shared: bool, *args: Any, **kwargs: Any
) -> Tensor:
    return func(_side_by_side(images), *args, **kwargs)


def bias_gradients_by_sums(graph: Graph) -> None:
    """Where channels lie side by side, adding them up takes a half of what a convolution's own kernel takes for it.

    +3 % on c.
    """
    nodes: list[Node] = []
    for node in graph.nodes:
        nodes.append(node)
        if node.op is not aten.convolution_backward.default or node.outs[2] is None:
            continue
        images = graph.meta[node.args[1]]  # the gradient of a run alone may come in planes, but is summed as others are
        if images.device.type != "cpu" or len(images.shape) != 4 or images.stride[1] != 1:
            continue
        nodes.append(Node(_sums_of_channels, (node.args[0],), {}, (node.outs[2],)))
        node.args = (*node.args[:-1], [*node.args[-1][:2], False])
        node.outs = (*node.outs[:2], None)
    graph.nodes = nodes


def _sums_of_channels(images: Tensor) -> Tensor:
    """[B, N, H, W] -> [N], channel by channel the same bits whatever N.

    torch adds up SUMMED_BYTES of a row in one order and what is left over in others, so the last sums are those of a
    whole such block, and fewer channels are filled up to one.
    """
    rows = images.permute(0, 2, 3, 1).flatten(0, 2)
    count, block = rows.shape[1], SUMMED_BYTES // rows.dtype.itemsize
    if count < block:
        return F.pad(rows, (0, block - count)).sum(0)[:count]
    rest = count % block
    if not rest:
        return rows.sum(0)
    return torch.cat([rows[:, : count - rest].sum(0), rows[:, -block:].sum(0)[block - rest :]])


def rectify_what_was_pooled(graph: Graph) -> None:
    """max(relu(x)) is relu(max(x)), of a quarter of the values, and the gradients are the same to the bit.

    Where the largest value of a window is above 0 (or nan), it stands in the same place with and without the relu;
    elsewhere the gradient is 0. +16 % on c.
    """
    for node in [node for node in graph.nodes if node.op is aten.relu.default]:
        found = _pooled(graph, node)
        if found is not None:
            _exchange(graph, node, *found)


def _pooled(graph: Graph, relu: Node) -> tuple[Node, Node | None, Node | None] | None:
    """The pooling of a relu, its gradient and the relu's (None: without), if nothing else sees what would change."""
    shown, found = _same_memory(graph, relu.out), dict[Any, Node]()
    for node in graph.nodes:
        seen = [place for place, arg in enumerate(node.args) if isinstance(arg, Value) and arg in shown]
        if not seen or (node.views and seen == [0]):
            continue
        if seen != WHERE_SEEN.get(node.op) or node.op in found:
            return None
        found[node.op] = node
    pool, back, mask = (found.get(op) for op in WHERE_SEEN)
    if pool is None or (back is None) != (mask is None) or shown & {*graph.outputs}:
        return None
    pooled, places = pool.outs
    assert pooled is not None
    if places in graph.outputs or any(places in node.inputs() for node in graph.nodes if node is not back):
        return None
    stays = _same_memory(graph, relu.args[0]) | _same_memory(graph, pooled)
    if any(node.mutates and stays & {*node.inputs()} for node in graph.nodes):
        return None
    if back is not None and mask is not None and not _leads_to(graph, back.out, mask.args[0]):
        return None
    return pool, back, mask


def _leads_to(graph: Graph, start: Value, end: Value) -> bool:
    """Is `end` a view of `start`, through views that nothing else reads?"""
    maker = {ref: node for node in graph.nodes for ref in node.outs}
    users = Counter(ref for node in graph.nodes for ref in {*node.inputs()})
    while users[end] == 1 and end not in graph.outputs:
        if end == start:
            return True
        if end not in maker or not maker[end].views:
            return False
        end = maker[end].args[0]
    return False


def _same_memory(graph: Graph, ref: Value) -> set[Value]:
    """`ref`, what it is a view of, and all other views of that."""
    maker = {ref: node for node in graph.nodes for ref in node.outs if node.views}
    while ref in maker:
        ref = maker[ref].args[0]
    found = {ref}
    for node in graph.nodes:
        if node.views and node.args[0] in found:
            found.update(out for out in node.outs if out is not None)
    return found


def _exchange(graph: Graph, relu: Node, pool: Node, back: Node | None, mask: Node | None) -> None:
    pooled = pool.outs[0]
    assert pooled is not None
    largest = graph.new(graph.meta[pooled])
    pool.outs = (largest, *pool.outs[1:])
    changed = {relu.out: relu.args[0]} | ({} if mask is None else {mask.out: mask.args[0]})
    nodes: list[Node] = []
    for node in graph.nodes:
        if node is relu or node is mask:
            continue
        node.map_inputs(lambda value: changed.get(value, value) if isinstance(value, Value) else value)
        if node is back:
            passed = graph.new(graph.meta[node.args[0]])
            nodes.append(Node(aten.threshold_backward.default, (node.args[0], pooled, 0), {}, (passed,)))
            node.args = (passed, *node.args[1:])
        nodes.append(node)
        if node is pool:
            nodes.append(Node(aten.relu.default, (largest,), {}, (pooled,)))
    graph.nodes = nodes
    graph.outputs = [None if ref is None else changed.get(ref, ref) for ref in graph.outputs]


# Who may see the result of a relu that is pooled, and as which of its arguments: the pooling, and the two gradients.
WHERE_SEEN: dict[Any, list[int]] = {
    aten.max_pool2d_with_indices.default: [0],
    aten.max_pool2d_with_indices_backward.default: [1],
    aten.threshold_backward.default: [1],
}
RULES: dict[Any, Callable[..., Tensor]] = {
    torch.conv2d: _convolution,
    F.max_pool2d: _per_channel,
    F.avg_pool2d: _per_channel,
    F.adaptive_avg_pool2d: _per_channel,
}
