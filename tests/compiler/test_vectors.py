"""A number comes out the same wherever it stands in a tensor."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from lrsweep.compiler import trace, vectors

ARGUMENTS: dict[str, tuple[Any, ...]] = {
    "elu_backward": (1.0, 1.0, 1.0, False),
    "softplus_backward": (1.0, 20.0),
    "pow": (1.5,),
}


def numbers(op: Any, size: int) -> list[Any]:
    generator = torch.Generator().manual_seed(0)
    values = torch.rand(size, generator=generator, dtype=torch.float64).mul(0.9).add(0.05)
    name = op._schema.name.split("::")[1]
    if name.endswith("_backward"):
        others = torch.rand(size, generator=generator, dtype=torch.float64)
        tail = (others,) if name in ("silu_backward", "gelu_backward", "mish_backward", "softplus_backward") else ()
        end = ARGUMENTS.get(name, ())
        return [values, *tail, *end] if tail else [values, *end, others]
    return [values, *ARGUMENTS.get(name, ())]


def cut(values: list[Any], count: int, dtype: torch.dtype) -> list[Any]:
    return [one[:count].to(dtype) if isinstance(one, Tensor) else one for one in values]


@pytest.mark.parametrize("op", sorted(vectors.ROUNDED_APART, key=str), ids=str)
def test_a_rest_is_rounded_as_whole_vectors_are(op: Any) -> None:
    for dtype in (torch.float32, torch.float64):
        values = numbers(op, 256)
        whole = op(*cut(values, 256, dtype))
        for count in (1, 5, 37, 96, 129):
            given = cut(values, count, dtype)
            tensors = [one for one in given if isinstance(one, Tensor)]

            def step(*inputs: Tensor, given: list[Any] = given) -> list[Tensor]:
                left = iter(inputs)
                return [op(*(next(left) if isinstance(one, Tensor) else one for one in given))]

            graph = trace.record(step, *tensors)
            vectors.fill_vectors(graph)
            (found,) = trace.compiled(graph)(*tensors)
            assert found is not None
            assert torch.equal(found, whole[:count])


def test_operands_that_are_transposed_stay_so() -> None:
    values = torch.linspace(-3, 3, 35).view(5, 7).t()
    graph = trace.record(lambda value: [torch.sigmoid(value)], values)
    vectors.fill_vectors(graph)
    (found,) = trace.compiled(graph)(values)
    assert found is not None
    assert found.stride() == values.stride()
    assert torch.allclose(found, torch.sigmoid(values), rtol=1e-6)
