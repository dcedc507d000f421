"""What is found out about user code before it trains: why it trains one run at a time, and what the user is told."""

from __future__ import annotations

import cProfile
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.optim.optimizer import register_optimizer_step_post_hook

from lrsweep.errors import UsageError, WrongInSpec
from lrsweep.training import guards, reasons, stackable, workload
from lrsweep.training.stackable import Findings
from tests.support.oracle import workload_spec

TASK = """
import random, time
import numpy as np
import torch
from torch import nn
from torch.nn import functional as F
from lrsweep import Task

scale = nn.Parameter(torch.ones(()))


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.a, self.b = nn.Linear(4, 8), nn.Linear(8, 1)
        self.words, self.norm, self.seen = nn.Embedding(3, 8, padding_idx=0), nn.BatchNorm1d(8), 0
        self.generator = torch.Generator().manual_seed(0)
        BUILD

    def forward(self, x):
        h = torch.tanh(self.a(x))
        FORWARD
        return self.b(h)


def make(n=65):
    x = torch.randn(n, 4, generator=torch.Generator().manual_seed(0))
    return Task(train=(x, x[:, :1]), val=(x[:9], x[:9, :1]), model=Net, loss=lambda output, target: LOSS)
"""


def found(folder: Path, *, build: str = "pass", forward: str = "pass", loss: str = "F.mse_loss(output, target)",
          **train: Any) -> Findings:  # fmt: skip
    text = TASK.replace("BUILD", build).replace("FORWARD", forward).replace("LOSS", loss)
    (folder / "task.py").write_text(text)
    spec = workload_spec({"name": f"{folder}/task.py:make"}, **{"steps": 20, "batch_size": 13} | train)
    return stackable.findings(workload.build(spec))


def test_an_ordinary_model_trains_together_whatever_the_seed(tmp_path: Path) -> None:
    assert found(tmp_path) == Findings()


def test_integers_as_indices_have_the_shape_of_the_integers(tmp_path: Path) -> None:
    build = "self.register_buffer('order', torch.randperm(8))"
    assert found(tmp_path, build=build, forward="h = h[:, self.order]") == Findings()
    of_values = found(tmp_path, build=build, forward="h = h[:, self.order > 3].sum(1, keepdim=True) + h").reason
    assert of_values is not None
    assert "shapes depend on their values" in of_values.text


@pytest.mark.parametrize(("times", "passes"), [(1, None), (30, 1)])
def test_a_model_that_fills_a_core_is_not_tried_any_further(times: int, passes: int | None, tmp_path: Path) -> None:
    """One step tells; stacked, its runs would take as long."""
    build = "self.into, self.big, self.out = nn.Linear(8, 700), nn.Linear(700, 700), nn.Linear(700, 8)"
    note = tmp_path / "passes"
    count = f"open({str(note)!r}, 'a').write('.' * h.requires_grad)"
    forward = f"{count}; h = self.out(sum((self.big(self.into(h)) for _ in range({times}))))"
    findings = found(tmp_path, build=build, forward=forward, batch_size=65)
    if passes is None:
        assert findings.reason is None
    else:
        assert findings.reason == stackable.TOO_LARGE
        assert len(note.read_text()) == passes


def test_a_profiler_of_the_callers_goes_on_and_changes_nothing(tmp_path: Path) -> None:
    profiler = cProfile.Profile()
    profiler.enable()
    try:
        assert found(tmp_path) == Findings()
        assert sys.getprofile() is profiler
    finally:
        profiler.disable()
    assert found(tmp_path, forward="h = h * (time.time() > 0)").reason is not None


@pytest.mark.parametrize(
    ("build", "forward", "told"),
    [
        ("pass", "h = h * random.random()", "Python's or numpy's global generator"),
        ("pass", "h = h * np.random.rand()", "Python's or numpy's global generator"),
        ("pass", "h = h * torch.rand((), generator=self.generator)", "changes Python state between steps"),
        ("pass", "h = h * (time.time() > 0)", "differs from run to run (time.time), task.py:22 in forward"),
        ("pass", "h = h if h.sum() > -99 else -h", "Python values (if, bool()), task.py:22 in forward"),
        ("pass", "np.asarray(h.detach().numpy())", "Python values (.numpy())"),
        ("pass", "self.seen += 1", "changes Python state between steps: Net.seen"),
        ("pass", "h = h * __import__('copy').deepcopy(h.detach()).mean()", "copy.deepcopy()"),
        ("pass", "h = h * nn.Parameter(h.detach().mean())", "of another class, such as nn.Parameter"),
        ("pass", "h = h * h.new_tensor([(h > 0).any()])", "of the numbers in others (torch.new_tensor)"),
        ("pass", "h = h * (1 if torch.initial_seed() else 2)", "asks for the seed (torch.initial_seed())"),
        ("pass", "h.detach().clone().apply_(lambda v: v)", ".apply_()"),
        ("self.register_buffer('mean', None)", "self.mean = h.detach().mean(0)", "a buffer in its first step"),
        ("pass", "h.register_hook(lambda g: g * 2) if h.requires_grad else 0", "registers a hook on a tensor"),
        ("pass", "h = h * (1 if self.a.weight.grad is None else 1)", "reads .grad"),
        ("self.a.weight.register_hook(lambda g: g * 0)", "pass", "a hook on a parameter (a.weight)"),
        ("self.a.register_full_backward_hook(lambda *_: None)", "pass", "a backward hook (a)"),
        (
            "self.numbers = (n for n in range(9))",
            "pass",
            "keeps a generator (Net.numbers), into which lrsweep cannot look",
        ),
    ],
)
def test_what_a_recording_could_not_repeat_trains_alone(build: str, forward: str, told: str, tmp_path: Path) -> None:
    reason = found(tmp_path, build=build, forward=forward).reason
    assert reason is not None
    assert told in reason.text
    assert not reason.raised


OWN_BATCHES = """
import torch
from torch import nn
from torch.utils.data import Dataset

from lrsweep import Task

class Net(nn.Linear):
    def forward(self, x):
        if self.training is {training}:
            x.mul_(0.9)
        return super().forward(x)

class Own(Dataset):
    def __init__(self, seed):
        self.x = torch.randn(12, 5, 3, generator=torch.Generator().manual_seed(seed))

    def __len__(self):
        return 12

    def __getitem__(self, index):
        return self.x[index], self.x[index, :, :1]

def make():
    loss = nn.functional.mse_loss
    return Task(train=Own(0), val=Own(1), model=lambda: Net(3, 1), loss=loss, collate_fn=lambda one: one[0])
"""


@pytest.mark.parametrize("training", [True, False])
def test_what_writes_into_the_memory_of_a_dataset_trains_alone(training: bool, tmp_path: Path) -> None:
    """Beside others, it would write once for each of them."""
    (tmp_path / "own.py").write_text(OWN_BATCHES.format(training=training))
    shared = workload_spec({"name": f"{tmp_path}/own.py:make"}, batch_size=1)
    reason = stackable.workload_reason(workload.build(shared))
    assert "writes into batches that may be the memory of the Dataset" in str(reason)


def test_padding_trains_together_with_runs_of_its_seed_only(tmp_path: Path) -> None:
    """torch's batching rule forgets `padding_idx` where the indices differ between runs. These batches hold no padding,
    so that comparing them shows nothing."""
    assert found(tmp_path, forward="h = h + self.words((x[:, 0] > 0).long() + 1)") == Findings(mixes=False)


def test_a_sum_over_the_batch_is_told(tmp_path: Path) -> None:
    (warning,) = found(tmp_path, loss="(output - target).square().sum()").warnings
    assert "the loss is a sum over the batch" in warning


def test_a_last_batch_of_one_is_refused_where_the_model_cannot_train_on_it(tmp_path: Path) -> None:
    with pytest.raises(WrongInSpec, match=r"holds one example \(65 examples in batches of 16\).*drop_last"):
        found(tmp_path, forward="h = self.norm(h)", batch_size=16)
    assert found(tmp_path, batch_size=16).reason is None
    assert found(tmp_path, forward="h = self.norm(h)", batch_size=16, drop_last=True).reason is None


def test_a_weight_outside_the_model_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="requires a gradient and is no parameter of the model"):
        found(tmp_path, loss="F.mse_loss(scale * output, target)")


@pytest.mark.parametrize(
    ("kept", "told"),
    [
        ("multiprocessing.Value('i', 0)", "keeps a value of multiprocessing"),
        ("multiprocessing.RawArray('d', 2)", "keeps a value of multiprocessing"),
        ("torch.zeros(()).share_memory_()", "keeps a tensor in shared memory"),
        ("open(__file__)", "keeps the open file shared.py"),
        ("open(__file__, 'rb', buffering=0)", "keeps the open file shared.py"),
    ],
)
def test_what_copies_of_a_process_share_is_refused(kept: str, told: str, tmp_path: Path) -> None:
    task = TASK.replace("LOSS", "F.mse_loss(output, target) + 0 * len(str(KEPT))")
    (tmp_path / "shared.py").write_text(f"{task}\nimport multiprocessing\n\nKEPT = {kept}\n")
    with pytest.raises(WrongInSpec, match=told) as refused:
        stackable.workload_reason(workload.build(workload_spec({"name": f"{tmp_path}/shared.py:make"})))
    assert refused.value.found[0][0] == ("task",)
    (tmp_path / "shared.py").write_text(f"{task}\nKEPT = open('{tmp_path}/log.txt', 'w')\n")  # which is not read
    stackable.workload_reason(workload.build(workload_spec({"name": f"{tmp_path}/shared.py:make"})))


def test_one_module_for_all_runs_is_refused_with_its_place() -> None:
    made = workload.build(workload_spec({"name": "classify", "model": "shared_net"}))
    with pytest.raises(WrongInSpec, match="same module twice") as refused:
        stackable.workload_reason(made)
    assert refused.value.found[0][0] == ("task",)


def test_an_operator_that_takes_functions_is_told_in_a_line(tmp_path: Path) -> None:
    """As torch refuses torch.cond where it is watched; the real one would import the compiler into this process."""
    refused = "There was no rule registered for HigherOrderOperator cond and mode <Counter>." + "Hint: set it. " * 50
    reason = found(tmp_path, forward=f"raise NotImplementedError({refused!r})").reason
    assert reason is not None
    assert reason.text == "the model uses torch.cond, which torch cannot batch over runs, task.py:22 in forward"
    assert not reason.raised


@pytest.mark.parametrize(
    ("forward", "told"),
    [
        (
            "h = torch.ones_like(h).cumsum_(0)",
            "uses an operation that torch cannot batch over runs: cumsum_",
        ),
        (
            "h.requires_grad_()",
            "calls requires_grad_(), which torch cannot batch over runs, as it can",
        ),
    ],
)
def test_what_torch_cannot_batch_is_named_with_its_place(forward: str, told: str, tmp_path: Path) -> None:
    reason = found(tmp_path, forward=forward).reason
    assert reason is not None
    assert reason.text.startswith(f"the model {told}")
    assert reason.text.endswith("task.py:22 in forward")


LAYER = "self.layer = nn.TransformerEncoderLayer(2, 1, 4, dropout=0.2, batch_first=True)"


@pytest.mark.parametrize(
    ("build", "forward"),
    [
        (LAYER, "h = self.layer(h.unflatten(-1, (4, 2))).flatten(-2)"),
        (
            "self.register_buffer('mean', torch.zeros(8))",
            "self.mean.lerp_(h.detach().mean(0), 0.5) if self.training else 0",
        ),
        (
            "self.register_buffer('mean', torch.zeros(8))",
            "torch._foreach_lerp_([self.mean], [h.detach().mean(0)], 0.5) if self.training else 0",
        ),
    ],
)
def test_dropout_of_transposed_tensors_and_moving_averages_train_together(
    build: str, forward: str, tmp_path: Path
) -> None:
    assert found(tmp_path, build=build, forward=forward) == Findings()


def test_numbers_drawn_in_the_order_of_memory_are_told_with_the_cure(tmp_path: Path) -> None:
    reason = found(tmp_path, forward="h = F.alpha_dropout(h.t(), 0.3, self.training).t()").reason
    assert reason is not None
    assert reason.text == (
        "the model draws random numbers into tensors that do not lie in order in memory (transposed ones, for "
        "example), which would be others in a group; call .contiguous() before"
    )
    assert found(tmp_path, forward="h = F.alpha_dropout(h.t().contiguous(), 0.3, self.training).t()") == Findings()


def test_functions_that_torchscript_compiled_are_looked_into(tmp_path: Path) -> None:
    source = """
import warnings
import torch

warnings.simplefilter("ignore", DeprecationWarning)


@torch.jit.script
def {0}(h: torch.Tensor) -> torch.Tensor:
    {1}
    return h * 2
"""
    for name, body, together in (
        ("plain", "h = torch.relu(h)", True),
        ("branching", "h = h if bool(h.sum() > 0) else -h", False),
        ("listing", "v: list[float] = h.detach().sum(1).to(torch.float64).tolist(); h = h * v[0]", False),
    ):
        (tmp_path / f"scripts_{name}.py").write_text(source.format(name, body))
        text = (
            TASK.replace("BUILD", "pass")
            .replace("FORWARD", f"h = {name}(h)")
            .replace("LOSS", "F.mse_loss(output, target)")
        )
        (tmp_path / "task.py").write_text(f"from scripts_{name} import {name}\n{text}")
        spec = workload_spec({"name": f"{tmp_path}/task.py:make"}, steps=20, batch_size=13)
        reason = stackable.findings(workload.build(spec)).reason
        assert together == (reason is None), reason
        assert together or str(reason).startswith("the code keeps a ScriptFunction"), reason


@pytest.mark.parametrize(
    ("given", "subject"),
    [
        ("loss=lambda o, t: F.mse_loss(o, t) * (1 if o.sum() > -99 else 2)", "the loss turns a tensor into Python"),
        (
            "loss=F.mse_loss, metrics={'m': lambda o, t: torch.tensor(o.sum().item())}",
            "a metric turns a tensor into Python values (.item())",
        ),
        (
            "step=lambda model, batch: F.mse_loss(model(batch[0]), batch[1]) * (1 if batch[0].sum() > -99 else 2)",
            "the step of the task turns a tensor into Python values",
        ),
        (
            "step=lambda model, batch, step: F.mse_loss(model(batch[0]), batch[1])",
            "the step of the task asks for the number of the step",
        ),
        ("step=counted", "the code changes Python state between steps: calls in task.py"),
    ],
)
def test_a_reason_names_what_of_the_task_it_is_about(given: str, subject: str, tmp_path: Path) -> None:
    counted = """
calls = []


def counted(model, batch):
    calls.append(1)
    return F.mse_loss(model(batch[0]), batch[1])
"""
    text = TASK.replace("BUILD", "pass").replace("FORWARD", "pass").replace("loss=lambda output, target: LOSS", given)
    (tmp_path / "task.py").write_text(text + counted)
    spec = workload_spec({"name": f"{tmp_path}/task.py:make"}, steps=20, batch_size=13)
    reason = stackable.findings(workload.build(spec)).reason
    assert reason is not None
    assert reason.text.startswith(subject)


def test_what_a_model_does_within_a_step_is_said_of_the_model(tmp_path: Path) -> None:
    step = "step=lambda model, batch: F.mse_loss(model(batch[0]), batch[1])"
    forward = "h = h if h.sum() > -99 else -h"
    text = TASK.replace("BUILD", "pass").replace("FORWARD", forward).replace("loss=lambda output, target: LOSS", step)
    (tmp_path / "task.py").write_text(text)
    spec = workload_spec({"name": f"{tmp_path}/task.py:make"}, steps=20, batch_size=13)
    assert str(stackable.findings(workload.build(spec)).reason).startswith("the model turns a tensor into Python")


def test_a_reason_is_a_line_that_ends_with_its_place() -> None:
    assert reasons.short("one\n two") == "one two"
    text = reasons.short("an error: " + "much\n" * 100 + " (task.py:3 in forward)")
    assert len(text) <= reasons.LONGEST
    assert text.endswith("much ... (task.py:3 in forward)")


def test_changes_of_torchs_own_optimizers_are_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    model = torch.nn.Linear(2, 1)
    assert guards.of_model(model) is None
    hook = register_optimizer_step_post_hook(lambda *_: None)
    try:
        assert guards.of_model(model) == "runs beside hooks that were registered for all optimizers"
    finally:
        hook.remove()

    def step(self: torch.optim.SGD, closure: None = None) -> None:
        pass

    monkeypatch.setattr(torch.optim.SGD, "step", step)
    assert guards.of_model(model) == "runs beside a change of torch's own optimizers (SGD.step)"
