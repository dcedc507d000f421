"""Convolution and pooling of stacked runs, against torch's own functions called for one run after another."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.func import grad, vmap

from lrsweep.compiler import channels, passes, trace
from lrsweep.compiler.channels import RunsAmongChannels

M = 3
Step = Callable[..., Tensor]


def gradients(outputs: Tensor, inputs: Sequence[Tensor]) -> list[Tensor]:
    weight = torch.linspace(-1, 1, outputs.numel(), dtype=outputs.dtype).view(outputs.shape)
    return list(torch.autograd.grad(outputs, inputs, weight))


def same(
    step: Step, inputs: Sequence[Tensor], dims: Sequence[int | None], learned: Any = slice(None), **tolerances: Any
) -> None:
    """What `M` runs give and the gradients of `learned`, vmapped and run by run, are what torch gives run by run."""

    def alone(*values: Tensor) -> Tensor:
        parts = [[x if d is None else x.select(d, m) for x, d in zip(values, dims, strict=True)] for m in range(M)]
        return torch.stack([step(*part) for part in parts])

    def found(call: Step, mode: Any) -> list[Tensor]:
        leaves = [value.clone() for value in inputs]
        for leaf in leaves[learned]:
            leaf.requires_grad_()
        with mode:
            out = call(*leaves)
        return [out, *gradients(out, leaves[learned])]

    wanted = found(alone, contextlib.nullcontext())
    for call in (vmap(step, in_dims=tuple(dims)), alone):
        for ours, torchs in zip(found(call, RunsAmongChannels()), wanted, strict=True):
            torch.testing.assert_close(ours, torchs, **tolerances)


@st.composite
def convolutions(draw: Any) -> tuple[list[tuple[int, ...]], list[int | None], dict[str, Any]]:
    """Shapes of images, filters and (or not) biases, which of their dimensions counts the runs, and the arguments."""
    number = st.integers(1, 3)
    groups, each, kernel = draw(number), draw(number), (draw(number), draw(number))
    out = draw(st.sampled_from([1, 3, 20]))
    arguments: dict[str, Any] = {"groups": groups, "dilation": draw(st.integers(1, 2))}
    if draw(st.booleans()):
        arguments["padding"] = draw(st.sampled_from(["same", "valid"]))
    else:
        arguments |= {"padding": (draw(st.integers(0, 2)), draw(st.integers(0, 1))), "stride": draw(number)}
    shapes = [(draw(number), groups * each, 6, 7), (groups * out, each, *kernel), (groups * out,)]
    shapes = shapes[: draw(st.integers(2, 3))]
    dims = [draw(st.sampled_from([None, 0, len(shape)])) for shape in shapes]
    if all(dim is None for dim in dims):
        dims[1] = 0
    return shapes, dims, arguments


def made(shapes: Sequence[tuple[int, ...]], dims: Sequence[int | None]) -> list[Tensor]:
    generator = torch.Generator().manual_seed(0)
    sizes = [s if d is None else (*s[:d], M, *s[d:]) for s, d in zip(shapes, dims, strict=True)]
    return [torch.randn(size, generator=generator, dtype=torch.float64) for size in sizes]


@pytest.mark.filterwarnings("ignore:Using padding='same'")
@settings(deadline=None)
@given(convolutions(), st.booleans())
def test_convolutions_are_those_of_each_run(
    case: tuple[list[tuple[int, ...]], list[int | None], dict[str, Any]], first: bool
) -> None:
    """The images are data in the first layer, and learned from in the others."""
    shapes, dims, arguments = case

    def step(images: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
        return F.conv2d(images, weight, bias=bias, **arguments)

    same(step, made(shapes, dims), dims, slice(1 if first else 0, None))


@pytest.mark.parametrize(
    "arguments",
    [
        {"padding": (1, 0)},
        {"padding": (0, 2), "stride": (2, 1)},
        {"stride": (1, 3)},
        {"dilation": (2, 1), "padding": 1},
        {"dilation": (1, 2), "stride": 2},
        {"padding": "same", "dilation": 2},
    ],
)
@pytest.mark.filterwarnings("ignore:Using padding='same'")
@pytest.mark.parametrize("biased", [True, False])
def test_convolutions_of_images_that_all_runs_share(arguments: dict[str, Any], biased: bool) -> None:
    shapes: list[tuple[int, ...]] = [(4, 2, 9, 10), (20, 2, 3, 2), (20,)][: 2 + biased]
    dims = [None, 0, 0][: 2 + biased]
    same(lambda *tensors: F.conv2d(*tensors, **arguments), made(shapes, dims), dims, slice(1, None))


POOLINGS: dict[str, Step] = {
    "max": lambda x: F.max_pool2d(x, 2),
    "max with overlap": lambda x: F.max_pool2d(x, kernel_size=3, stride=2, padding=1, ceil_mode=True),
    "max with holes": lambda x: F.max_pool2d(x, 2, 1, dilation=2),
    "layer": torch.nn.MaxPool2d(3, padding=1),
    "places": lambda x: F.max_pool2d(x, 2, return_indices=True)[0],
    "mean": lambda x: F.avg_pool2d(x, 2, padding=1, count_include_pad=False),
    "mean of all": lambda x: F.adaptive_avg_pool2d(x, (2, 1)),
    "after relu": lambda x: F.max_pool2d(x.relu(), 2),
}


@pytest.mark.parametrize("name", POOLINGS)
@pytest.mark.parametrize("dim", [0, 1, 4])
@pytest.mark.parametrize("channels", [1, 4])
def test_poolings_are_those_of_each_run_to_the_bit(name: str, dim: int, channels: int) -> None:
    """Ties and nan too: whole numbers from a small range."""
    shape = [2, channels, 6, 5]
    shape.insert(dim, M)
    images = torch.randint(-2, 3, shape, generator=torch.Generator().manual_seed(dim)).double()
    images.view(-1)[::17] = torch.nan
    same(POOLINGS[name], [images], [dim], rtol=0, atol=1e-15, equal_nan=True)


def test_what_is_no_batch_of_images_is_left_to_torch() -> None:
    def step(image: Tensor, weight: Tensor) -> Tensor:
        return F.max_pool2d(F.conv2d(image, weight), 2)

    same(step, made([(2, 5, 5), (4, 2, 3, 3)], [None, 0]), [None, 0])


AFTER: dict[str, Step] = {
    "view": lambda x: x.view(x.size(0), -1),
    "view of pixels": lambda x: x.view(-1, 9),
    "group norm": lambda x: F.group_norm(x, 2),
    "instance norm": F.instance_norm,
    "batch norm": lambda x: F.batch_norm(x, None, None, training=True),
    "pixel shuffle": lambda x: F.pixel_shuffle(x, 2),
    "interpolate": lambda x: F.interpolate(x, scale_factor=2.0),
    "in place": lambda x: x.mul_(2).relu_(),
    "pad": lambda x: F.pad(x, (1, 1, 1, 1), mode="reflect"),
    "transposed": lambda x: F.conv_transpose2d(x, torch.ones(4, 2, 2, 2, dtype=x.dtype)),
    "prelu": lambda x: F.prelu(x, torch.full((4,), 0.1, dtype=x.dtype)),
    "layer norm": lambda x: F.layer_norm(x, x.shape[1:]),
    "permute": lambda x: x.permute(0, 2, 3, 1).reshape(-1, 4).softmax(-1),
    "flatten": lambda x: x.flatten(2).transpose(1, 2),
}


@pytest.mark.parametrize("name", AFTER)
def test_what_follows_finds_images_as_it_needs_them(name: str) -> None:
    def step(images: Tensor, weight: Tensor) -> Tensor:
        return AFTER[name](F.conv2d(images, weight))

    same(step, made([(2, 3, 5, 5), (4, 3, 3, 3)], [None, 0]), [None, 0])


def test_gradients_within_a_run() -> None:
    def step(images: Tensor, weight: Tensor) -> Tensor:
        slope = grad(lambda images: F.max_pool2d(F.conv2d(images, weight).tanh(), 2).square().sum())(images)
        return F.avg_pool2d(slope, 2)

    same(step, made([(3, 2, 5, 5), (4, 2, 3, 3)], [None, 0]), [None, 0])


def test_images_that_no_run_has_a_part_in() -> None:
    def step(images: Tensor, scale: Tensor) -> Tensor:
        return F.max_pool2d(images, 2) * scale

    same(step, made([(3, 2, 4, 4), ()], [None, 0]), [None, 0])


def test_channels_lie_side_by_side_from_one_layer_to_the_next() -> None:
    found = []

    def step(images: Tensor, weight: Tensor) -> Tensor:
        out = F.max_pool2d(F.conv2d(images, weight).relu(), 2)
        found.append(torch._C._functorch._unwrap_batched(out, 1)[0])
        return out

    with RunsAmongChannels():
        vmap(step, in_dims=(None, 0))(torch.randn(2, 1, 8, 8), torch.randn(M, 4, 1, 3, 3))
    assert found[0].shape == (2, M, 4, 3, 3)
    assert found[0].stride() == (108, 4, 1, 36, 12)


def rewritten(step: Callable[[Tensor], Any], values: Tensor, trained: bool = True) -> list[trace.Graph]:
    """`step`, or its gradient, as it was recorded, and with its relus after poolings; both give the same bits."""

    def whole(images: Tensor) -> list[Tensor]:
        leaf = images.detach().requires_grad_(trained)
        out, *others = made if isinstance(made := step(leaf), tuple) else (made,)
        return [out.detach(), *others, *(gradients(out, [leaf]) if trained else [])]

    graph = trace.record(whole, values)
    passes.tidy(graph)
    changed = graph.copy()
    channels.rectify_what_was_pooled(changed)
    with torch.no_grad():
        results = [trace.compiled(each)(values.clone()) for each in (graph, changed)]
    for ours, recorded in zip(*reversed(results), strict=True):
        torch.testing.assert_close(ours, recorded, rtol=0, atol=0, equal_nan=True)
    return [graph, changed]


def with_ties(*shape: int) -> Tensor:
    images = torch.randint(-2, 3, shape, generator=torch.Generator().manual_seed(1)).double()
    images.view(-1)[::19] = torch.nan
    images.view(-1)[::23] = -torch.inf
    return images


def sizes(graph: trace.Graph, name: str) -> list[int]:
    """How many values each of the operations of that name makes."""
    nodes = [node for node in graph.nodes if str(node.op) == f"aten.{name}.default"]
    return [torch.Size(graph.meta[node.out].shape).numel() for node in nodes]


@pytest.mark.parametrize(("kernel", "stride", "padding"), [(2, 2, 0), (3, 1, 1), (3, 2, 1), (2, 3, 0)])
def test_a_relu_comes_after_the_pooling_to_the_bit(kernel: int, stride: int, padding: int) -> None:
    def step(x: Tensor) -> Tensor:
        return F.max_pool2d((x * 1).relu().reshape(2, 12, 7, 6), kernel, stride, padding) * 3

    graph, changed = rewritten(step, with_ties(2, 3, 4, 7, 6))
    windows = F.max_pool2d(torch.zeros(2, 12, 7, 6), kernel, stride, padding).numel()
    assert sizes(graph, "relu") == sizes(graph, "threshold_backward") == [1008]
    assert sizes(changed, "relu") == sizes(changed, "threshold_backward") == [windows]


def hooked(x: Tensor) -> Tensor:
    y = x.relu()
    if y.requires_grad:
        y.register_hook(lambda grad: grad + 1)
    return F.max_pool2d(y, 2)


SEEN: dict[str, Callable[[Tensor], Any]] = {
    "another sum": lambda x: F.max_pool2d(y := x.relu(), 2).sum() + y.sum(),
    "another pooling": lambda x: F.max_pool2d(y := x.relu(), 2).sum() + F.max_pool2d(y, 3).sum(),
    "its places": lambda x: F.max_unpool2d(*F.max_pool2d(x.relu(), 2, return_indices=True), 2),
    "its places at the end": lambda x: F.max_pool2d(x.relu(), 2, return_indices=True),
    "itself at the end": lambda x: (F.max_pool2d(y := x.relu(), 2), y.detach()),
    "overwritten": lambda x: F.max_pool2d(x.relu(), 2).mul_(-1),
    "overwritten before": lambda x: (y := x * 1, F.max_pool2d(y.relu(), 2), y.add_(100))[1],
    "threshold": lambda x: F.max_pool2d(F.threshold(x.relu(), 1.0, 0.0), 2),
    "product": lambda x: F.max_pool2d(y := x.relu(), 2).repeat(1, 1, 2, 2) * y,
}


@pytest.mark.parametrize("name", SEEN)
@pytest.mark.parametrize("trained", [True, False])
def test_a_relu_that_is_seen_elsewhere_stays(name: str, trained: bool) -> None:
    graph, changed = rewritten(SEEN[name], with_ties(2, 4, 6, 6), trained)
    assert sizes(changed, "relu") == sizes(graph, "relu") == [288]


def test_a_relu_whose_gradient_is_changed_stays() -> None:
    graph, changed = rewritten(hooked, with_ties(2, 4, 6, 6))
    assert sizes(changed, "threshold_backward") == sizes(graph, "threshold_backward") == [288]


def test_bias_gradients_are_sums() -> None:
    generator = torch.Generator().manual_seed(0)
    images_, weight, bias = (torch.randn(s, generator=generator) for s in ((5, 4, 6, 6), (8, 4, 3, 3), (8,)))

    def step(images: Tensor, *parts: Tensor) -> list[Tensor]:
        leaves = [part.detach().requires_grad_() for part in parts]
        with RunsAmongChannels():
            return gradients(F.conv2d(images, *leaves).tanh(), leaves)

    graph = trace.record(step, images_, weight, bias)
    wanted = trace.compiled(graph)(images_, weight, bias)
    channels.bias_gradients_by_sums(graph)
    assert [node.args[-1][2] for node in graph.nodes if "convolution_backward" in str(node.op)] == [False]
    for ours, torchs in zip(trace.compiled(graph)(images_, weight, bias), wanted, strict=True):
        torch.testing.assert_close(ours, torchs)


@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_the_sum_of_a_channel_is_the_same_to_the_bit_beside_any_others(data: st.DataObject) -> None:
    dtype = data.draw(st.sampled_from([torch.float32, torch.float64, torch.bfloat16]))
    runs, outputs, batch, side = (data.draw(st.integers(1, most)) for most in (40, 40, 40, 9))
    images = torch.randn(batch, runs, outputs, side, side, generator=torch.Generator().manual_seed(batch)).to(dtype)

    def sums(chosen: list[int]) -> Tensor:
        flat = images[:, chosen].flatten(1, 2).contiguous(memory_format=torch.channels_last)
        return channels._sums_of_channels(flat).unflatten(0, (len(chosen), outputs))

    whole = sums(list(range(runs)))
    torch.testing.assert_close(whole.double(), images.double().sum((0, 3, 4)), rtol=0.02, atol=1.0)
    chosen = data.draw(st.lists(st.integers(0, runs - 1), min_size=1, max_size=runs, unique=True))
    torch.testing.assert_close(sums(chosen), whole[chosen], rtol=0, atol=0)
