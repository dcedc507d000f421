"""Recipes made ready: what follows from the seed, the cutting of batches, and what is refused."""

from __future__ import annotations

import itertools
import random
from dataclasses import dataclass

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils._pytree import tree_flatten

from lrsweep.errors import UsageError, WrongInSpec
from lrsweep.training import workload
from lrsweep.training.data import TensorSplit, map_tensors
from lrsweep.training.loss_module import LossModule
from tests.support import tasks as own_tasks
from tests.support.oracle import double, workload_spec


def build(*args, **train):
    return workload.build(workload_spec(*args, **train))


def flat(module: nn.Module) -> torch.Tensor:
    return torch.cat([p.detach().flatten() for p in module.parameters()])


# --- what follows from the seed


def test_the_builder_is_called_right_after_torch_is_seeded() -> None:
    with double():
        torch.manual_seed(7)
        expected = flat(own_tasks.small_net())
    made = build("classify")
    torch.manual_seed(99)
    after = torch.get_rng_state()
    assert torch.equal(flat(made.build_model(7).model), expected)
    assert torch.equal(flat(made.build_model(7).model), expected)
    assert not torch.equal(flat(made.build_model(8).model), expected)
    assert torch.equal(torch.get_rng_state(), after)


def test_epochs_are_permutations_from_the_seed_and_the_epoch() -> None:
    made = build("classify")
    for seed, epoch in ((0, 0), (3, 2), (11, 40)):
        generator = torch.Generator().manual_seed(seed * 1_000_003 + epoch)
        assert torch.equal(made.epoch_order(seed, epoch), torch.randperm(90, generator=generator))
    assert torch.equal(build("classify", shuffle=False).epoch_order(3, 2), torch.arange(90))
    assert made.order_hash(0) != made.order_hash(1)


@pytest.mark.parametrize("task", [{"name": "classify"}, {"name": "dataset", "noise": 0.0}], ids=["tensors", "dataset"])
@pytest.mark.parametrize("kept", [2**26, 0], ids=["permuted", "gathered"])
def test_the_batches_of_an_epoch_are_its_order_cut_up(task, kept: int, monkeypatch) -> None:
    monkeypatch.setattr(workload, "PERMUTED_BYTES", kept)
    made = build(task, batch_size=32)
    x, y = own_tasks.points(90)
    # epochs and seeds in any order, as groups of several seeds ask for them
    for seed, epoch in ((0, 0), (1, 0), (0, 1), (1, 1), (0, 0)):
        batches = [made.batch(seed, 3 * epoch + k) for k in range(3)]
        assert [len(batch[0]) for batch in batches] == [32, 32, 26]
        order = made.epoch_order(seed, epoch)
        assert torch.equal(torch.cat([batch[0] for batch in batches]), x[order])
        assert torch.equal(torch.cat([batch[1] for batch in batches]), y[order])


@pytest.mark.parametrize("task", ["classify", "stepped"])
@pytest.mark.parametrize("kept", [2**26, 0], ids=["permuted", "gathered"])
def test_the_batches_of_several_seeds_are_those_of_each(task: str, kept: int, monkeypatch) -> None:
    monkeypatch.setattr(workload, "PERMUTED_BYTES", kept)
    made = build(task, batch_size=32)
    for step in (0, 2, 3, 1):
        together = made.batches((4, 0), torch.tensor([1, 0, 0]), step)
        leaves, form = tree_flatten(together)
        for run, seed in enumerate((0, 4, 4)):
            alone, alike = tree_flatten(made.batch(seed, step))
            assert form == alike
            assert all(torch.equal(one[run], other) for one, other in zip(leaves, alone, strict=True))


def test_a_batch_may_be_written_into() -> None:
    for train in ({"shuffle": False}, {"shuffle": True}):
        made = build("classify", **train)
        before = [tensor.clone() for tensor in made.batch(0, 1)]
        made.batch(0, 1)[0].zero_()
        next(made.eval_batches("train"))[0][0].zero_()
        assert all(torch.equal(a, b) for a, b in zip(made.batch(0, 1), before, strict=True))


def test_random_numbers_of_a_step_depend_on_seed_and_step() -> None:
    made = build("classify")

    def draws(seed: int, step: int) -> tuple[float, ...]:
        made.seed_step(seed, step)
        return torch.rand(()).item(), float(np.random.rand()), random.random()

    first = draws(0, 5)
    others = [draws(0, 6), draws(1, 5), draws(5, 0)]
    assert draws(0, 5) == first
    for column in range(3):
        assert len({row[column] for row in [first, *others]}) == 4


def test_a_dataset_draws_from_seed_and_step() -> None:
    made = build("dataset")
    x = made.batch(0, 4)[0]
    torch.rand(3)
    assert torch.equal(made.batch(0, 4)[0], x)
    clean = own_tasks.points(90)[0]

    def noise(seed: int, step: int) -> torch.Tensor:
        order = made.epoch_order(seed, step // 3)[32 * (step % 3) :][:26]
        return made.batch(seed, step)[0][:26] - clean[order]

    seen = [noise(0, 4), noise(0, 5), noise(0, 1), noise(1, 4)]
    assert all(not torch.allclose(a, b) for a, b in itertools.combinations(seen, 2))
    chunks = [next(made.eval_batches("val", 0, step))[0][0] for step in (3, 3, 4)]
    assert torch.equal(chunks[0], chunks[1])
    assert not torch.equal(chunks[0], chunks[2])


def test_a_task_without_a_seed_has_the_same_data_in_every_process() -> None:
    state = torch.get_rng_state(), np.random.get_state()[1].copy(), random.getstate()
    first, second = build("unseeded"), build("unseeded")
    assert torch.equal(first.batch(0, 0)[0], second.batch(0, 0)[0])
    assert torch.equal(torch.get_rng_state(), state[0])
    assert (np.random.get_state()[1] == state[1]).all()
    assert random.getstate() == state[2]


def test_data_do_not_depend_on_whether_the_file_was_imported_before(tmp_path) -> None:
    file = tmp_path / "task.py"
    file.write_text(
        "import torch\nfrom lrsweep import Task\nX = torch.randn(6, 2)\n"
        "def make():\n    x = (X + torch.randn(6, 2),)\n    return Task(train=x, val=x, loss=torch.dist, model=int)\n"
    )
    first, second = (build({"name": f"{file}:make"}) for _ in range(2))
    assert torch.equal(first.task.train[0], second.task.train[0])


# --- sizes and rows


@pytest.mark.parametrize(
    ("train", "batch", "per_epoch", "total"),
    [
        ({"epochs": 4, "batch_size": 30}, 30, 3, 12),
        ({"epochs": 4, "batch_size": 32}, 32, 3, 12),
        ({"epochs": 4, "batch_size": 32, "drop_last": True}, 32, 2, 8),
        ({"epochs": 4, "batch_size": "full", "drop_last": True}, 90, 1, 4),
        ({"epochs": 4, "batch_size": 1000}, 90, 1, 4),
        ({"steps": 7, "batch_size": 32}, 32, 3, 7),
    ],
    ids=str,
)
def test_steps_of_an_epoch_and_of_a_run(train, batch: int, per_epoch: int, total: int) -> None:
    made = build("classify", **train)
    assert (made.batch_size, made.steps_per_epoch, made.total_steps) == (batch, per_epoch, total)
    sizes = [len(made.batch(0, step)[0]) for step in range(per_epoch)]
    assert set(sizes[:-1]) <= {batch}
    assert sum(sizes) == (64 if per_epoch == 2 else 90)


@pytest.mark.parametrize(
    ("train", "rows"),
    [
        ({"epochs": 3}, [3, 6, 9]),
        ({"epochs": 3, "eval_every": 2}, [6, 9]),
        ({"epochs": 3, "eval_every": {"steps": 4}}, [4, 8, 9]),
        ({"steps": 8}, [3, 6, 8]),
        ({"steps": 2}, [2]),
    ],
    ids=str,
)
def test_rows(train, rows: list[int]) -> None:
    made = build("classify", **train)
    assert [step for step in range(1, made.total_steps + 1) if made.is_row(step)] == rows


def test_evaluation_takes_a_split_in_stored_order() -> None:
    made = build({"name": "classify", "n": 1100})
    batches = list(made.eval_batches("train"))
    assert [size for _, size in batches] == [512, 512, 76]
    assert torch.equal(torch.cat([x for (x, _), _ in batches]), own_tasks.points(1100)[0])


# --- dtype


def test_floating_data_and_parameters_have_the_dtype_of_the_spec() -> None:
    for name, dtype in (("float32", torch.float32), ("float64", torch.float64), ("bfloat16", torch.float32)):
        made = build("unseeded", dtype=name)
        x, y = made.batch(0, 0)
        assert (x.dtype, y.dtype) == (dtype, torch.int64)
        assert made.task.notes["seen"] == dtype
        module = made.build_model(0)
        assert {p.dtype for p in module.parameters()} == {dtype}
        assert module(x, y)[0].dtype == dtype
        assert torch.get_default_dtype() == torch.float32


def test_autocast_runs_the_model_in_bfloat16() -> None:
    made = build("classify", dtype="bfloat16")
    seen = []
    module = made.build_model(0)
    module.model[0].register_forward_hook(lambda layer, args, out: seen.append(out.dtype))
    loss, _ = module(*made.batch(0, 0))
    loss.backward()
    assert seen == [torch.bfloat16]
    assert module.model[0].weight.grad.dtype == torch.float32


def test_nested_batches_are_cast_and_keep_their_form() -> None:
    made = build({"name": "dict_dataset"}, dtype="float32")
    (batch,) = made.batch(0, 0)
    assert batch["x"].dtype == torch.float32
    assert batch["y"].dtype == torch.int64


# --- models and losses


def test_dataclasses_in_batches_are_cast_and_copied() -> None:
    @dataclass(frozen=True)
    class Batch:
        x: torch.Tensor
        rest: dict[str, torch.Tensor]
        label: str = "a"

    given = Batch(torch.ones(2), {"ids": torch.ones(2, dtype=torch.long), "weight": torch.ones(2)})
    (cast,) = map_tensors(lambda tensor: tensor.double() if tensor.is_floating_point() else tensor.clone(), [given])
    assert isinstance(cast, Batch)
    assert cast.x.dtype == cast.rest["weight"].dtype == torch.float64
    assert cast.rest["ids"] is not given.rest["ids"]
    assert cast.label == "a"
    assert given.x.dtype == torch.float32


def test_a_builder_gets_the_shapes_that_it_names() -> None:
    model = {"name": "tasks.py:shaped_net", "width": 5}
    module = build("classify", model).build_model(0).model
    assert [tuple(p.shape) for p in module.parameters()] == [(5, 2), (5,), (3, 5), (3,)]
    module = build("classify", {**model, "num_outputs": 9}).build_model(0).model
    assert module[1].out_features == 9


def test_a_train_of_one_tensor_is_a_model_without_inputs() -> None:
    made = build({"name": "slope", "start": [1.0, 1.0, 1.0]})
    (target,) = made.batch(0, 0)
    loss, _ = made.build_model(0)(target)
    assert loss.item() == -0.5


def test_metrics_cost_nothing_in_training_unless_asked_for() -> None:
    for metrics in (False, True):
        made = build("classify", metrics=metrics)
        module = made.build_model(0)
        assert (module(*made.batch(0, 0))[1] != {}) is metrics
    object.__setattr__(made.task, "metrics", {"nll": nn.functional.cross_entropy})
    loss, values = made.build_model(0)(*made.batch(0, 0))
    assert values["nll"].item() == loss.item()
    assert loss.requires_grad
    assert not values["nll"].requires_grad


def test_metric_names_are_known_before_training() -> None:
    assert build("classify").metric_names == ("accuracy",)
    assert build("dict_dataset").metric_names == ("accuracy",)
    assert build("stepped").metric_names == ()
    assert build("failing").metric_names == ()


def test_a_step_must_go_on_returning_its_metrics() -> None:
    made = build("fickle", metrics=True)
    assert made.metric_names == ("extra",)
    with pytest.raises(WrongInSpec, match=r"step returned no extra in training.* set train.metrics: false"):
        made.build_model(0)(*made.batch(0, 0))
    lenient = build("fickle")
    assert lenient.build_model(0)(*lenient.batch(0, 0))[1] == {}
    lossless = build("lossless")
    with pytest.raises(WrongInSpec, match="without 'loss'"):
        lossless.build_model(0)(*lossless.batch(0, 0))


def test_a_loss_that_is_no_number_is_an_error_that_says_so() -> None:
    made = build({"name": "weighted", "reduction": "none"})
    with pytest.raises(WrongInSpec, match=r"loss has shape \(32,\); it must be one number"):
        made.build_model(0)(*made.batch(0, 0))


def test_a_loss_with_state_belongs_to_the_run_and_is_not_trained() -> None:
    made = build("weighted")
    first, second = made.build_model(0), made.build_model(0)
    assert first._loss.weight.dtype == torch.float64
    assert first._loss.weight is not second._loss.weight
    x, y = made.batch(0, 0)
    with double():
        expected = nn.functional.cross_entropy(first.model(x), y, torch.tensor([1.0, 2.0, 3.0]))
    assert first(x, y)[0].item() == expected.item()


def stacked_losses(modules: list[LossModule], batch) -> torch.Tensor:
    params, buffers = torch.func.stack_module_state(modules)
    call = torch.func.functional_call

    def one(p, b, *args):
        return call(modules[0], (p, b), args)

    return torch.func.vmap(one, in_dims=(0, 0, *[None] * len(batch)), randomness="same")(params, buffers, *batch)


@pytest.mark.parametrize(
    "task", ["classify", "dict_dataset", "weighted", {"name": "classify", "model": "batchnorm_net"}]
)
@pytest.mark.parametrize("dtype", ["float64", "bfloat16"])
def test_the_loss_module_can_be_stacked(task, dtype: str) -> None:
    made = build(task, metrics=True, dtype=dtype)
    modules = [made.build_model(seed) for seed in (0, 1, 2)]
    batch = made.batch(0, 0)
    losses, metrics = stacked_losses(modules, batch)
    alone = [module(*batch) for module in modules]
    tolerance = 1e-12 if dtype == "float64" else 2e-2
    assert losses.tolist() == pytest.approx([loss.item() for loss, _ in alone], rel=tolerance)
    for name, values in metrics.items():
        assert values.tolist() == pytest.approx([each[name].item() for _, each in alone], abs=tolerance)


def test_lazy_layers_draw_their_weights_from_the_seed() -> None:
    made = build({"name": "classify", "model": "lazy_net"})
    first, second, other = (made.build_model(seed) for seed in (0, 0, 1))
    assert [tuple(p.shape) for p in first.parameters()] == [(16, 2), (16,), (3, 16), (3,)]
    assert {p.dtype for p in first.parameters()} == {torch.float64}
    assert torch.equal(flat(first), flat(second))
    assert not torch.equal(flat(first), flat(other))


# --- what is refused


@pytest.mark.parametrize(
    ("task", "model", "text"),
    [
        ("raising", None, r"KeyError: 'missing' \(tasks\.py:\d+ in raising\)"),
        ("not_a_task", None, r"tasks\.py:\d+: it must return an lrsweep.Task, not a function"),
        ("misshapen", None, r"different numbers of rows: 90, 10 \(tasks\.py:\d+ in misshapen\)"),
        ("leaving", None, r"SystemExit: no data here \(tasks\.py:\d+ in leaving\)"),
        (
            {"name": "classify", "m": 3},
            None,
            r"tasks\.py:\d+: got an unexpected keyword argument 'm' \(its arguments are \(n=90",
        ),
        ("without_model", None, "it has no model of its own; set one with `model:`"),
        ("classify", {"name": "tasks.py:shaped_net", "wdth": 3}, "unexpected keyword argument 'wdth'"),
        ("slope", {"name": "mlp"}, "model mlp: the task has no tensor inputs"),
        ("classify", {"name": "cnn"}, "model cnn: inputs must be images"),
        (
            {"name": "builtin:char_lm"},
            {"name": "transformer", "dim": 10, "heads": 3},
            "dim 10 is not a multiple of heads",
        ),
    ],
    ids=lambda value: str(value)[:25],
)
def test_mistakes_are_told_before_training(task, model, text: str) -> None:
    with pytest.raises(UsageError, match=text):
        build(task, model)


def test_dropping_the_only_batch_is_an_error() -> None:
    with pytest.raises(UsageError, match="a batch of 100 exceeds the 90 training examples"):
        build("classify", batch_size=100, drop_last=True)


@pytest.mark.parametrize(("targets", "batch_size", "largest"), [(1, 16, 512), (32, 16, 64), (32, 100, 100)])
def test_evaluation_batches_hold_fewer_examples_that_are_sequences(targets: int, batch_size: int, largest: int) -> None:
    """A stack of runs multiplies what one batch takes."""
    split = TensorSplit((torch.zeros(600, 32), torch.zeros(600, targets)))
    assert split.chunk(batch_size) == largest


def test_a_metric_may_be_a_number_of_numpy() -> None:
    made = build("classify", metrics=True)
    object.__setattr__(made.task, "metrics", {"third": lambda output, target: np.float32(1) / np.float32(3)})
    _, values = made.build_model(0)(*made.batch(0, 0))
    assert float(values["third"]) == float(np.float32(1) / np.float32(3))
