"""Models: shapes, sizes, initial weights by their published formulas, and the same numbers alone and stacked."""

from __future__ import annotations

import math
import warnings

import pytest
import torch
from torch import nn

from lrsweep.errors import UsageError
from lrsweep.models import ACTIVATIONS, MODELS, misfit, size_of
from lrsweep.tasks import DEFAULT_MODELS, TASKS, shapes_of
from lrsweep.tasks.base import Shapes


def build(name, in_shape, num_outputs, seed=0, **arguments):
    torch.manual_seed(seed)
    return MODELS[name](in_shape=in_shape, num_outputs=num_outputs, **arguments)


def size(model):
    return sum(parameter.numel() for parameter in model.parameters())


@pytest.mark.parametrize(
    ("name", "in_shape", "arguments", "parameters"),
    [
        ("linear", (1, 8, 8), {}, 64 * 10 + 10),
        ("linear", (3,), {"bias": False}, 30),
        ("logistic", (30,), {}, 310),
        ("mlp", (1, 8, 8), {}, 64 * 128 + 128 + 128 * 128 + 128 + 128 * 10 + 10),
        ("mlp", (2,), {"hidden": []}, 30),
        ("mlp", (2,), {"hidden": [5], "batch_norm": True, "dropout": 0.1, "activation": "tanh"}, 15 + 10 + 60),
        ("cnn", (1, 8, 8), {}, 16 * 9 + 16 + 16 * 32 * 9 + 32 + 32 * 2 * 2 * 10 + 10),
        (
            "cnn",
            (3, 9, 7),
            {"channels": [4], "batch_norm": True, "dropout": 0.5},
            3 * 4 * 9 + 4 + 8 + 4 * 4 * 3 * 10 + 10,
        ),
        ("cnn", (1, 2, 2), {"channels": []}, 50),
    ],
)
def test_shapes_and_sizes(name, in_shape, arguments, parameters):
    model = build(name, in_shape, 10, **arguments)
    assert size(model) == parameters
    assert size_of(name, in_shape=in_shape, num_outputs=10, **arguments).parameters == parameters
    assert model(torch.randn(7, *in_shape)).shape == (7, 10)


@pytest.mark.parametrize("arguments", [{}, {"vocab": 7, "dim": 24, "heads": 3, "layers": 1}, {"layers": 5}])
def test_the_size_of_a_transformer_is_counted_without_building_it(arguments):
    model = build("transformer", (6,), 11, **arguments)
    assert size_of("transformer", in_shape=(6,), num_outputs=11, **arguments).parameters == size(model)


def test_a_size_is_counted_however_large():
    assert size_of("mlp", in_shape=(10**9,), num_outputs=2, hidden=[10**15]).parameters > 10**24
    assert size_of("mlp", in_shape=(3,), num_outputs=2, hidden=[]).largest == 2


@pytest.mark.parametrize(
    ("name", "in_shape", "arguments"),
    [
        ("mlp", (3,), {"hidden": [50, 40]}),
        ("mlp", (3,), {"hidden": [50, 40], "batch_norm": True}),
        ("cnn", (1, 12, 12), {"channels": [6, 5]}),
        ("transformer", (16,), {"dim": 16, "heads": 2, "layers": 3}),
    ],
)
def test_activations_are_what_autograd_keeps_about(name, in_shape, arguments):
    model = build(name, in_shape, 10, **arguments)
    x = torch.randint(0, 10, (4, *in_shape)) if name == "transformer" else torch.randn(4, *in_shape)
    weights, kept = {parameter.data_ptr() for parameter in model.parameters()}, {}

    def keep(tensor):
        kept[tensor.data_ptr()] = tensor.numel()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        model(x)
    found = sum(numel for place, numel in kept.items() if place not in weights) / 4
    assert 0.5 * found <= size_of(name, in_shape=in_shape, num_outputs=10, **arguments).activations <= 3 * found


def test_the_cnn_is_the_one_of_the_contract():
    model = build("cnn", (1, 8, 8), 10)
    x = torch.randn(3, 1, 8, 8)
    convolutions = [module for module in model if isinstance(module, nn.Conv2d)]
    hidden = x
    for convolution in convolutions:
        assert convolution.kernel_size == (3, 3)
        hidden = nn.functional.conv2d(hidden, convolution.weight, convolution.bias, padding=1)
        hidden = nn.functional.max_pool2d(hidden.relu(), 2)
    assert torch.equal(model(x), model[-1](hidden.flatten(1)))


def test_the_transformer_sees_no_later_token_unless_told():
    tokens = torch.randint(0, 11, (4, 9))
    changed = tokens.clone()
    changed[:, 5:] = (changed[:, 5:] + 1) % 11
    for causal in (True, False):
        model = build("transformer", (9,), 11, causal=causal)
        before, after = model(tokens), model(changed)
        assert before.shape == (4, 9, 11)
        assert torch.equal(before[:, :5], after[:, :5]) == causal
        assert not torch.allclose(before[:, 5:], after[:, 5:])
    assert model(tokens[:, :4]).shape == (4, 4, 11)
    assert build("transformer", (9,), 2, vocab=11)(tokens).shape == (4, 9, 2)


def test_attention_is_that_of_torch():
    block = build("transformer", (6,), 5, dim=8, heads=2, layers=1).blocks[0].attention
    x = torch.randn(3, 6, 8)
    query, key, value = (
        part.unflatten(-1, (2, 4)).transpose(1, 2) for part in block.query_key_value(x).chunk(3, dim=-1)
    )
    mixed = nn.functional.scaled_dot_product_attention(query, key, value, is_causal=True)
    assert torch.allclose(block(x), block.out(mixed.transpose(1, 2).flatten(2)), atol=1e-6)


def test_every_activation_is_used():
    x = torch.randn(5, 3)
    outputs = [build("mlp", (3,), 2, hidden=[16], activation=name)(x) for name in ACTIVATIONS]
    for i, first in enumerate(outputs):
        assert not any(torch.allclose(first, other) for other in outputs[:i])


# Initial weights


@pytest.mark.parametrize("name", ["mlp", "cnn", "linear"])
def test_default_init_is_torchs_own(name):
    model = build(name, (1, 8, 8), 10)
    for module in model.modules():
        if isinstance(module, (nn.Linear, nn.Conv2d)):
            bound = 1 / math.sqrt(module.weight[0].numel())
            assert 0.95 * bound < module.weight.abs().max() <= bound
            assert 0 < module.bias.abs().max() <= bound


@pytest.mark.parametrize("init", ["he_uniform", "he_normal", "xavier_uniform", "xavier_normal"])
@pytest.mark.parametrize("name", ["mlp", "cnn", "linear", "transformer"])
def test_published_inits(name, init):
    arguments = {
        "mlp": {"hidden": [200, 300]},
        "cnn": {"channels": [40, 80]},
        "linear": {},
        "transformer": {"layers": 1},
    }
    model = build(name, (20,) if name == "transformer" else (4, 16, 16), 50, init=init, **arguments[name])
    layers = [module for module in model.modules() if isinstance(module, (nn.Linear, nn.Conv2d))]
    for layer in layers:
        area = layer.weight[0, 0].numel()
        fan_in, fan_out = layer.weight.shape[1] * area, layer.weight.shape[0] * area
        variance = 2 / fan_in if init.startswith("he") else 2 / (fan_in + fan_out)
        count = layer.weight.numel()
        assert layer.weight.var().item() == pytest.approx(variance, rel=6 * math.sqrt(2 / count))
        assert abs(layer.weight.mean().item()) < 6 * math.sqrt(variance / count)
        bound = math.sqrt(3 * variance)
        if init.endswith("uniform"):
            assert 0.97 * bound < layer.weight.abs().max() <= bound * (1 + 1e-6)
        else:
            assert layer.weight.abs().max() > 1.3 * bound
        assert (layer.bias == 0).all()


def test_he_uniform_of_the_published_experiment():
    model = build("mlp", (2,), 3, hidden=[50], init="he_uniform")
    first, readout = model[1], model[-1]
    assert first.weight.abs().max() <= math.sqrt(6 / 2)
    assert first.weight.abs().max() > 0.9 * math.sqrt(6 / 2)
    assert math.sqrt(6 / 53) < readout.weight.abs().max() <= math.sqrt(6 / 50)
    assert not first.bias.any()
    assert not readout.bias.any()


@pytest.mark.parametrize(
    ("name", "in_shape"), [("mlp", (4,)), ("cnn", (1, 8, 8)), ("transformer", (5,)), ("logistic", (4,))]
)
def test_a_zero_readout_leaves_the_rest_alone(name, in_shape):
    model = build(name, in_shape, 6, **({} if name == "logistic" else {"init": "zeros_readout"}))
    plain = build(name, in_shape, 6, init="default")
    x = torch.randint(0, 6, (3, 5)) if name == "transformer" else torch.randn(3, *in_shape)
    assert not model(x).any()
    named = dict(plain.named_parameters())
    different = [key for key, value in model.named_parameters() if not torch.equal(value, named[key])]
    assert len(different) == 2


@pytest.mark.parametrize("name", MODELS)
def test_the_seed_alone_decides_the_weights(name):
    in_shape = {"cnn": (1, 8, 8), "transformer": (5,)}.get(name, (4,))
    arguments = {"init": "default"} if name == "logistic" else {}
    first, again, other = (build(name, in_shape, 3, seed=seed, **arguments).state_dict() for seed in (0, 0, 1))
    assert all(torch.equal(first[key], again[key]) for key in first)
    assert any(not torch.equal(first[key], other[key]) for key in first)


# Stacks


@pytest.mark.parametrize(
    ("name", "arguments"),
    [
        ("linear", {}),
        ("logistic", {}),
        ("mlp", {}),
        ("mlp", {"batch_norm": True}),
        ("mlp", {"dropout": 0.5}),
        ("cnn", {"channels": [4, 8], "dropout": 0.5}),
        ("cnn", {"channels": [4, 8], "batch_norm": True}),
        ("transformer", {"dim": 16, "heads": 2}),
        ("transformer", {"dim": 16, "heads": 2, "dropout": 0.1}),
    ],
)
def test_stacked_models_give_what_each_gives_alone(name, arguments):
    in_shape = {"cnn": (1, 8, 8), "transformer": (5,)}.get(name, (4,))
    x = torch.randint(0, 6, (7, 5)) if name == "transformer" else torch.randn(7, *in_shape)
    members = [build(name, in_shape, 6, seed=seed, **arguments) for seed in range(3)]
    parameters, buffers = torch.func.stack_module_state(members)

    def forward(weights, state, x):
        return torch.func.functional_call(members[0], (weights, state), (x,))

    with warnings.catch_warnings():
        warnings.simplefilter("error")  # a missing batching rule warns
        torch.manual_seed(5)
        stacked = torch.vmap(forward, in_dims=(0, 0, None), randomness="same")(parameters, buffers, x)
    for output, member in zip(stacked, members, strict=True):
        torch.manual_seed(5)
        assert torch.allclose(output, member(x), atol=1e-5)


# What does not fit


def test_what_cannot_be_built_is_said():
    with pytest.raises(UsageError, match=r"images .* shape \(4,\)"):
        build("cnn", (4,), 2)
    with pytest.raises(UsageError, match="4 pooling layers are too many for 8x8 pixels"):
        build("cnn", (1, 8, 8), 2, channels=[2, 2, 2, 2])
    with pytest.raises(UsageError, match="dim 10 is not a multiple of heads 4"):
        build("transformer", (5,), 2, dim=10)
    with pytest.raises(UsageError, match="rows of tokens"):
        build("transformer", (1, 8, 8), 2)


@pytest.mark.parametrize("name", DEFAULT_MODELS)
def test_every_model_trains_on_every_task_or_says_why_not(name):
    if name in ("csv", "npz", "image_folder", "hf_dataset", "openml"):
        pytest.skip("their data are the user's")
    task = TASKS[name]()
    shapes = shapes_of(task)
    *inputs, target = (tensor[:9] for tensor in task.train)
    assert misfit(DEFAULT_MODELS[name]["name"], shapes) is None
    for model_name in MODELS:
        reason = misfit(model_name, shapes)
        if reason is not None:
            assert "tokens" in reason or "images" in reason
            continue
        model = build(model_name, shapes.in_shape, shapes.num_outputs)
        task.loss(model(*inputs), target).backward()
        assert all(parameter.grad is not None for parameter in model.parameters())


def test_a_task_without_inputs_needs_its_own_model():
    assert "it needs a model of its own" in misfit("mlp", shapes_of(TASKS["quadratic"]()))
    assert "rows of tokens" in misfit("transformer", Shapes(in_shape=(8, 8), num_outputs=3, tokens=True))
    assert "num_outputs" in misfit("mlp", Shapes(in_shape=(2,), num_outputs=None, tokens=False))
