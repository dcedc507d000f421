"""Small models. Every builder gets `in_shape` (the shape of one example) and `num_outputs` from the task.

To add a model: a builder, a function for its size, a line for each in `MODELS` and `SIZES` at the bottom, a row in
tests/test_models.py; `misfit` says which tasks it cannot train on.
"""

# B batch, T positions, V vocabulary, D width, H heads

from __future__ import annotations

import inspect
import itertools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Literal

import torch
from annotated_types import Gt, Interval
from torch import nn

from lrsweep.errors import UsageError
from lrsweep.tasks.base import Shapes

Size = Annotated[int, Gt(0)]
Share = Annotated[float, Interval(ge=0, lt=1)]
Activation = Literal["relu", "tanh", "gelu", "silu", "elu", "leaky_relu", "sigmoid", "softplus", "identity"]
Init = Literal["default", "he_uniform", "he_normal", "xavier_uniform", "xavier_normal", "zeros_readout"]

ACTIVATIONS: dict[str, Callable[[], nn.Module]] = {
    "relu": nn.ReLU,
    "tanh": nn.Tanh,
    "gelu": nn.GELU,
    "silu": nn.SiLU,
    "elu": nn.ELU,
    "leaky_relu": nn.LeakyReLU,
    "sigmoid": nn.Sigmoid,
    "softplus": nn.Softplus,
    "identity": nn.Identity,
}

# He et al. 2015 (arXiv:1502.01852): U(+-sqrt(6/fan_in)), N(0, 2/fan_in). Glorot & Bengio 2010 (AISTATS):
# U(+-sqrt(6/(fan_in + fan_out))), N(0, 2/(fan_in + fan_out)).
WEIGHTS: dict[str, Callable[[torch.Tensor], object]] = {
    "he_uniform": lambda weight: nn.init.kaiming_uniform_(weight, nonlinearity="relu"),
    "he_normal": lambda weight: nn.init.kaiming_normal_(weight, nonlinearity="relu"),
    "xavier_uniform": nn.init.xavier_uniform_,
    "xavier_normal": nn.init.xavier_normal_,
}


def initialise(model: nn.Module, readout: nn.Linear, init: str) -> None:
    """Redraw all linear and convolution weights by `init` with zero biases, the readout too.

    `default` leaves torch's own (U(+-1/sqrt(fan_in)) for weights and biases); `zeros_readout` sets the readout to 0.
    """
    if init == "zeros_readout":
        nn.init.zeros_(readout.weight)
        if readout.bias is not None:
            nn.init.zeros_(readout.bias)
    if init in WEIGHTS:
        for module in model.modules():
            if isinstance(module, (nn.Linear, nn.Conv2d)):
                WEIGHTS[init](module.weight)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)


class Flat(nn.Module):
    """(B, ...) -> (B, features)."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x.reshape(x.shape[0], -1)


def linear(*, in_shape: Sequence[int], num_outputs: int, bias: bool = True, init: Init = "default") -> nn.Module:
    """One linear layer."""
    readout = nn.Linear(math.prod(in_shape), num_outputs, bias=bias)
    model = nn.Sequential(Flat(), readout)
    initialise(model, readout, init)
    return model


def logistic(*, in_shape: Sequence[int], num_outputs: int, init: Init = "zeros_readout") -> nn.Module:
    """Softmax regression: one linear layer that starts from zero, as is usual for a convex loss; a logit per class."""
    return linear(in_shape=in_shape, num_outputs=num_outputs, init=init)


def mlp(
    *,
    in_shape: Sequence[int],
    num_outputs: int,
    hidden: list[Size] = [128, 128],  # noqa: B006 (read only; the spec shows it as the default)
    activation: Activation = "relu",
    init: Init = "default",
    batch_norm: bool = False,
    dropout: Share = 0.0,
) -> nn.Module:
    """Fully connected layers; per entry of `hidden` linear, batch norm (if asked), activation, dropout (if asked)."""
    layers: list[nn.Module] = [Flat()]
    for fan_in, fan_out in itertools.pairwise([math.prod(in_shape), *hidden]):
        layers.append(nn.Linear(fan_in, fan_out))
        layers += [nn.BatchNorm1d(fan_out)] if batch_norm else []
        layers.append(ACTIVATIONS[activation]())
        layers += [nn.Dropout(dropout)] if dropout else []
    readout = nn.Linear(hidden[-1] if hidden else math.prod(in_shape), num_outputs)
    model = nn.Sequential(*layers, readout)
    initialise(model, readout, init)
    return model


def cnn(
    *,
    in_shape: Sequence[int],
    num_outputs: int,
    channels: list[Size] = [16, 32],  # noqa: B006 (read only; the spec shows it as the default)
    init: Init = "default",
    batch_norm: bool = False,
    dropout: Share = 0.0,
) -> nn.Module:
    """Per entry of `channels` a 3x3 convolution (padded by 1), ReLU and 2x2 max-pooling; then one linear layer."""
    if reason := _no_image(in_shape):
        raise UsageError(f"cnn: {reason}")
    depth, height, width = in_shape
    if min(height, width) >> len(channels) == 0:
        raise UsageError(
            f"cnn: {len(channels)} pooling layers are too many for {height}x{width} pixels; list fewer channels"
        )
    layers: list[nn.Module] = []
    for fan_in, fan_out in itertools.pairwise([depth, *channels]):
        layers.append(nn.Conv2d(fan_in, fan_out, kernel_size=3, padding=1))
        layers += [nn.BatchNorm2d(fan_out)] if batch_norm else []
        layers += [nn.ReLU(), nn.MaxPool2d(2)]
    last = channels[-1] if channels else depth
    readout = nn.Linear(last * (height >> len(channels)) * (width >> len(channels)), num_outputs)
    layers += [nn.Dropout(dropout)] if dropout else []
    model = nn.Sequential(*layers, Flat(), readout)
    initialise(model, readout, init)
    return model


class Attention(nn.Module):
    """Multi-head self-attention in matrix products: torch's fused kernel has no batching rule for stacks on a CPU."""

    def __init__(self, dim: int, heads: int, causal: bool) -> None:
        super().__init__()
        self.heads = heads
        self.query_key_value = nn.Linear(dim, 3 * dim)
        self.out = nn.Linear(dim, dim)
        self.causal = causal

    def forward(self, x_BTD: torch.Tensor) -> torch.Tensor:
        size, length, dim = x_BTD.shape
        width = dim // self.heads
        parts = (part.reshape(size, length, self.heads, width) for part in self.query_key_value(x_BTD).chunk(3, -1))
        query, key, value = (part.transpose(1, 2) for part in parts)
        scores_BHTT = (query * width**-0.5) @ key.transpose(-1, -2)
        if self.causal:
            # A sum with -inf costs a third of masked_fill, and its gradient nothing.
            later_TT = torch.full((length, length), -math.inf, dtype=x_BTD.dtype, device=x_BTD.device).triu(1)
            scores_BHTT = scores_BHTT + later_TT
        mixed = (scores_BHTT.softmax(-1) @ value).transpose(1, 2).reshape(size, length, dim)
        return self.out(mixed)


class Block(nn.Module):
    """x + attention(norm(x)), then x + feed-forward(norm(x)), hidden width 4 D."""

    def __init__(self, dim: int, heads: int, causal: bool, dropout: float) -> None:
        super().__init__()
        self.norm_attention = nn.LayerNorm(dim)
        self.attention = Attention(dim, heads, causal)
        self.norm_forward = nn.LayerNorm(dim)
        self.forward_in = nn.Linear(dim, 4 * dim)
        self.forward_out = nn.Linear(4 * dim, dim)
        self.dropout = nn.Dropout(dropout) if dropout else nn.Identity()

    def forward(self, x_BTD: torch.Tensor) -> torch.Tensor:
        x_BTD = x_BTD + self.dropout(self.attention(self.norm_attention(x_BTD)))
        hidden = nn.functional.gelu(self.forward_in(self.norm_forward(x_BTD)))
        return x_BTD + self.dropout(self.forward_out(hidden))


class Transformer(nn.Module):
    """Tokens (B, T) of whole numbers -> outputs (B, T, V)."""

    def __init__(
        self,
        *,
        vocab: int,
        positions: int,
        num_outputs: int,
        dim: int,
        layers: int,
        heads: int,
        causal: bool,
        dropout: float,
    ) -> None:
        super().__init__()
        self.token = nn.Embedding(vocab, dim)
        self.position = nn.Parameter(torch.empty(positions, dim))
        self.blocks = nn.Sequential(*(Block(dim, heads, causal, dropout) for _ in range(layers)))
        self.norm = nn.LayerNorm(dim)
        self.readout = nn.Linear(dim, num_outputs)
        nn.init.normal_(self.token.weight, std=0.02)
        nn.init.normal_(self.position, std=0.02)

    def forward(self, tokens_BT: torch.Tensor) -> torch.Tensor:
        x_BTD = self.token(tokens_BT) + self.position[: tokens_BT.shape[-1]]
        return self.readout(self.norm(self.blocks(x_BTD)))


def transformer(
    *,
    in_shape: Sequence[int],
    num_outputs: int,
    dim: Size = 64,
    layers: Size = 2,
    heads: Size = 4,
    vocab: Size | None = None,
    causal: bool = True,
    init: Init = "default",
    dropout: Share = 0.0,
) -> nn.Module:
    """Pre-norm transformer over tokens, learned positions, an output per position; `vocab` is num_outputs unless given.

    Embeddings start as N(0, 0.02^2); `init` is about the linear layers. Vaswani et al. 2017 (arXiv:1706.03762).
    """
    if len(in_shape) != 1:
        raise UsageError(f"transformer: inputs must be rows of tokens, but an example has shape {tuple(in_shape)}")
    if dim % heads:
        raise UsageError(f"transformer: dim {dim} is not a multiple of heads {heads}")
    model = Transformer(
        vocab=num_outputs if vocab is None else vocab,
        positions=in_shape[0],
        num_outputs=num_outputs,
        dim=dim,
        layers=layers,
        heads=heads,
        causal=causal,
        dropout=dropout,
    )
    initialise(model, model.readout, init)
    return model


def _no_image(in_shape: Sequence[int]) -> str | None:
    if len(in_shape) == 3:
        return None
    return f"inputs must be images (channels, height, width), but an example has shape {tuple(in_shape)}"


def misfit(name: str, shapes: Shapes) -> str | None:
    """Why the built-in model `name` cannot train on inputs of these shapes, or None."""
    if shapes.in_shape is None:
        return "the task has no tensor inputs, so it needs a model of its own"
    if shapes.num_outputs is None:
        return "cannot infer the number of outputs from the targets; set it with Task(notes={'num_outputs': ...})"
    if name == "transformer":
        if not shapes.tokens:
            return "it reads tokens (whole numbers), but the task's inputs are real numbers"
        is_row = len(shapes.in_shape) == 1
        return None if is_row else f"it reads rows of tokens, not examples of shape {shapes.in_shape}"
    if shapes.tokens:
        return "it reads real numbers, but the task's inputs are whole numbers (tokens); only transformer reads those"
    return _no_image(shapes.in_shape) if name == "cnn" else None


MODELS: dict[str, Callable[..., nn.Module]] = {
    "linear": linear,
    "logistic": logistic,
    "mlp": mlp,
    "cnn": cnn,
    "transformer": transformer,
}


@dataclass(frozen=True, kw_only=True)
class ModelSize:
    """Numbers, by arithmetic alone: in the parameters; of one example, in all activations and in the largest of them.

    `argument` is the one that a spec sets to make the model smaller.
    """

    parameters: int
    activations: int
    largest: int
    argument: str
    layers: int = 1


def _mlp_size(
    in_shape: Sequence[int], num_outputs: int, hidden: Sequence[int], batch_norm: bool, **_: Any
) -> ModelSize:
    widths = [*hidden, num_outputs]
    parameters = sum((fan_in + 1) * fan_out for fan_in, fan_out in itertools.pairwise([math.prod(in_shape), *widths]))
    return ModelSize(
        parameters=parameters + 2 * batch_norm * sum(hidden),
        activations=sum(widths) + (1 + batch_norm) * sum(hidden),
        largest=max(widths),
        argument="hidden",
        layers=len(widths),
    )


def _linear_size(in_shape: Sequence[int], num_outputs: int, bias: bool = True, **_: Any) -> ModelSize:
    parameters = (math.prod(in_shape) + bias) * num_outputs
    return ModelSize(parameters=parameters, activations=num_outputs, largest=num_outputs, argument="name")


def _cnn_size(
    in_shape: Sequence[int], num_outputs: int, channels: Sequence[int], batch_norm: bool, **_: Any
) -> ModelSize:
    depth, height, width = in_shape
    parameters, maps = 0, []
    for level, (fan_in, fan_out) in enumerate(itertools.pairwise([depth, *channels])):
        parameters += (9 * fan_in + 1 + 2 * batch_norm) * fan_out
        maps.append(fan_out * (height >> level) * (width >> level))
    last = (channels[-1] if channels else depth) * (height >> len(channels)) * (width >> len(channels))
    return ModelSize(
        parameters=parameters + (last + 1) * num_outputs,
        activations=(2 + batch_norm) * sum(maps) + num_outputs,
        largest=max([*maps, num_outputs]),
        argument="channels",
        layers=len(channels) + 1,
    )


def _transformer_size(
    in_shape: Sequence[int], num_outputs: int, dim: int, layers: int, heads: int, vocab: int | None, **_: Any
) -> ModelSize:
    (positions,) = in_shape
    block = 12 * dim * dim + 13 * dim  # 3 D and D of attention, 4 D and back, biases, two norms
    around = ((num_outputs if vocab is None else vocab) + positions) * dim + 2 * dim + (dim + 1) * num_outputs
    scores = heads * positions * positions
    return ModelSize(
        parameters=layers * block + around,
        activations=layers * (2 * scores + 16 * positions * dim) + positions * num_outputs,
        largest=max(scores, 4 * positions * dim, positions * num_outputs),
        argument="layers" if layers > dim else "dim",
        layers=layers,
    )


SIZES: dict[str, Callable[..., ModelSize]] = {
    "linear": _linear_size,
    "logistic": _linear_size,
    "mlp": _mlp_size,
    "cnn": _cnn_size,
    "transformer": _transformer_size,
}


def size_of(name: str, **arguments: Any) -> ModelSize:
    """The size of the built-in model `name` with the arguments of its builder; builds nothing."""
    bound = inspect.signature(MODELS[name]).bind(**arguments)
    bound.apply_defaults()
    return SIZES[name](**bound.arguments)
