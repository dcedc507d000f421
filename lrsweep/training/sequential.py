"""One run after another, each through autograd and torch.optim as they are: what any model can be trained with."""

from __future__ import annotations

import cmath
import math
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypeAlias

import torch
from torch import nn

from lrsweep import optimizers, schedules
from lrsweep.analysis.diagnosis import finite_divergence
from lrsweep.errors import LrsweepError, StoppedError, UsageError
from lrsweep.run_result import Hooks, RunResult
from lrsweep.training import isolation
from lrsweep.training.recorder import Recorder, evaluate
from lrsweep.training.workload import Workload, weights_hash

if TYPE_CHECKING:
    from lrsweep.plan import Run

TICK_EVERY = 8  # updates between two calls of Hooks.tick

Values: TypeAlias = Mapping[str, Sequence[float]]


def train(
    runs: Sequence[Run], workload: Workload, hooks: Hooks, kind: type[Training] | None = None
) -> Iterator[RunResult]:
    """Train each of `runs`, which share the recipe of `problem`; yield its outcome when it is done.

    What the user's code raises makes a `failed` outcome. Raises StoppedError, after `hooks.save`, when the sweep is
    stopping. `hooks.resume` continues the run it was saved for. `kind`: how a run makes its updates.
    """
    for run in runs:
        try:
            with workload.user_code():
                outcome = _train(run, workload, hooks, kind or Training)
        finally:
            workload.release()
        yield outcome


def _train(run: Run, workload: Workload, hooks: Hooks, kind: type[Training]) -> RunResult:
    training = None
    try:
        training = _begun(run, workload, hooks.resume, kind)
        _loop(training, hooks)
        return training.outcome()
    except (Exception, SystemExit) as error:
        # Ours (a stop, a full disk) pass; a UsageError in here is about this run's own optimizer or schedule.
        if isinstance(error, LrsweepError) and not isinstance(error, UsageError):
            raise
        rows = {} if training is None else training.recorder.rows()
        steps = 0 if training is None else training.step
        return RunResult(run_id=run.run_id, status="failed", steps=steps, error=isolation.describe(error), history=rows)


def _begun(run: Run, workload: Workload, state: dict[str, Any] | None, kind: type[Training]) -> Training:
    """The run as `state` left it, if that is its own and fits; else the run at its start."""
    if state is not None and state.get("run_id") == run.run_id:
        try:
            training = kind(run, workload)
            training.restore(state)
            return training
        except (AttributeError, KeyError, RuntimeError, TypeError, ValueError):
            pass  # saved by something else: that costs time, not the result
    training = kind(run, workload)
    training.start()
    return training


def _loop(training: Training, hooks: Hooks) -> None:
    waiting = 0
    try:
        while not training.done:
            if hooks.stopping:
                hooks.tick(waiting)
                raise StoppedError
            if hooks.checkpoint_due():
                _save(training, hooks)
            training.update()
            waiting += 1
            if waiting == TICK_EVERY or training.done:
                hooks.tick(waiting)
                waiting = 0
    except StoppedError:
        _save(training, hooks)
        raise


def _save(training: Training, hooks: Hooks) -> None:
    """Checkpoint, unless the user's optimizer or model keeps something that a checkpoint cannot hold."""
    state = training.state()
    if _is_plain(state):
        hooks.save(state)


class Training:
    """One run on its way: its model, optimizer, schedule and rows."""

    def __init__(self, run: Run, workload: Workload) -> None:
        self._run, self._workload = run, workload
        self.model = workload.build_model(run.seed)
        self._parameters = list(self.model.parameters())
        self.weights = [parameter for parameter in self._parameters if parameter.requires_grad]
        setting, workload_spec = run.setting, run.workload_spec
        real = all(parameter.is_floating_point() for parameter in self._parameters)
        self._fused = optimizers.fused(setting.name, workload.device.type) if real else {}
        self._build_optimizer()
        # A user's optimizer may give its groups rates of their own: the schedule scales each.
        self._group_lr = [group.get("lr") for group in self.optimizer.param_groups]
        self._factors = schedules.factors(setting.schedule, workload.total_steps, workload_spec.base_dir)
        self._plateau = schedules.plateau_of(setting.schedule, workload.total_steps)
        self._clip_norm = workload_spec.train["clip_norm"]
        self._decay = setting.independent_weight_decay
        self.recorder = Recorder(
            workload.metric_names,
            train_metrics=workload.train_metrics,
            finalize=workload.finalize,
            steps_per_epoch=workload.steps_per_epoch,
            device=workload.device,
        )
        self.step = 0  # updates applied
        self.diverged_step: int | None = None
        self._lr_now = run.lr * float(self._factors[0])
        self._hashes = (weights_hash(self.model.model), workload.order_hash(run.seed))

    @property
    def done(self) -> bool:
        return self.diverged_step is not None or self.step == self._workload.total_steps

    def start(self) -> None:
        """Row 0: the untrained model on the whole of both splits."""
        self._row(0, train=self._evaluate("train"))

    def update(self) -> None:
        """Make one update, or find that the run has diverged. Evaluates where a row is due."""
        factor = float(self._factors[self.step]) * (1.0 if self._plateau is None else self._plateau.factor)
        loss = self._loss()
        if not math.isfinite(loss.item()):
            self.diverged_step = self.step + 1
            self._row(self.diverged_step)
            return
        self._backward(loss)
        self._apply(factor)
        self.step += 1
        if not _all_finite(self.weights):
            self.diverged_step = self.step
        if self.diverged_step is not None or self._workload.is_row(self.step):
            self._row(self.step)

    def _build_optimizer(self) -> None:
        setting, parameters = self._run.setting, list(self.model.model.parameters())
        args = {**setting.args, **self._fused}
        self.optimizer = optimizers.build(
            setting.name, args, parameters, self._run.lr, self._run.workload_spec.base_dir
        )
        self._optimizer_step = optimizers.step_of(self.optimizer)

    def _loss(self) -> torch.Tensor:
        """The loss of the next batch."""
        batch = self._workload.batch(self._run.seed, self.step)
        self._seed_step()
        loss, metrics = self._forward(batch)
        self.recorder.add(loss, metrics)
        return loss

    def _seed_step(self) -> None:
        self._workload.seed_step(self._run.seed, self.step)

    def _forward(self, batch: tuple[Any, ...]) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        for parameter in self._parameters:  # also those that the optimizer was not given
            parameter.grad = None
        loss, metrics = self.model(*batch)
        return loss, metrics

    def _backward(self, loss: torch.Tensor) -> None:
        """Put the gradients of the loss that `_forward` gave last into the parameters."""
        loss.backward()
        if self._fused and self.step == 0 and not _fusible([weight.grad for weight in self.weights]):
            self._fused = {}
            self._build_optimizer()

    def _apply(self, factor: float) -> None:
        if self._clip_norm is not None:
            nn.utils.clip_grad_norm_(self.model.model.parameters(), self._clip_norm)
        if self._decay is not None:
            optimizers.decay_independently(self.weights, self._decay * factor)
        for group, lr in zip(self.optimizer.param_groups, self._group_lr, strict=True):
            if lr is not None:
                group["lr"] = lr * factor
        self._optimizer_step()
        self._lr_now = self._run.lr * factor

    def _row(self, step: int, train: Values | None = None, val: Values | None = None) -> None:
        self.recorder.row(step, [self._lr_now], val or self._evaluate("val"), train=train)
        self.recorder.restart()
        losses = (self.recorder.last("train_loss"), self.recorder.last("val_loss"))
        if self.diverged_step is None and not all(math.isfinite(loss) for loss in losses):
            self.diverged_step = step
        if self._plateau is not None and self.diverged_step is None:
            self._plateau.observe(self.recorder.last(self._plateau.metric), step)

    def _evaluate(self, split: str) -> Values:
        """Per-example means over a whole split, model and optimizer in evaluation mode."""
        optimizers.set_mode(self.optimizer, training=False)
        values = self._means_over(split)
        optimizers.set_mode(self.optimizer, training=True)
        return {name: [value] for name, value in values.items()}

    def _means_over(self, split: str) -> dict[str, float]:
        return evaluate(self.model, self._workload, split, self._run.seed, self.step)

    def outcome(self) -> RunResult:
        """What the finished run leaves; the test split, where there is one, is evaluated here and only here."""
        rows = self.recorder.rows()
        if self.diverged_step is None:
            self.diverged_step = finite_divergence(rows["step"], rows["train_loss"])
        test = self._evaluate("test") if "test" in self._workload.splits else {}
        return RunResult(
            run_id=self._run.run_id,
            status="ok" if self.diverged_step is None else "diverged",
            diverged_step=self.diverged_step,
            steps=self.step,
            history=rows,
            test={f"test_{name}": value for name, (value,) in test.items()},
            weights_hash=self._hashes[0],
            batches_hash=self._hashes[1],
        )

    def state(self) -> dict[str, Any]:
        """A copy of all that the next update depends on (random numbers follow from the seed and the step)."""
        tensors = {**dict(self.model.named_parameters()), **dict(self.model.named_buffers())}
        return {
            "run_id": self._run.run_id,
            "step": self.step,
            "lr_now": self._lr_now,
            "tensors": {name: tensor.detach().clone() for name, tensor in tensors.items()},
            "modules": {name: _attributes(module) for name, module in self.model.named_modules()},
            "optimizer": _copied(self.optimizer.state_dict()),
            "optimizer_attributes": _attributes(self.optimizer),
            "recorder": self.recorder.state(),
            "plateau": None if self._plateau is None else self._plateau.state(),
            "hashes": list(self._hashes),
        }

    @torch.no_grad()
    def restore(self, state: Mapping[str, Any]) -> None:
        """Continue from a `state()` to the bit."""
        tensors = {**dict(self.model.named_parameters()), **dict(self.model.named_buffers())}
        for name, saved in state["tensors"].items():
            tensors[name].copy_(saved)
        for name, module in self.model.named_modules():
            vars(module).update(_copied(state["modules"][name]))
        self.optimizer.load_state_dict(_copied(state["optimizer"]))
        vars(self.optimizer).update(_copied(state["optimizer_attributes"]))
        self.recorder.restore(state["recorder"])
        if self._plateau is not None:
            self._plateau.restore(state["plateau"])
        self.step, self._lr_now = int(state["step"]), float(state["lr_now"])
        self._hashes = (state["hashes"][0], state["hashes"][1])


def _fusible(grads: Sequence[torch.Tensor | None]) -> bool:
    """Fused kernels take no sparse gradients, and no weight whose momentum begins later than that of others."""
    return all(grad is not None and not grad.is_sparse for grad in grads)


@torch.no_grad()
def _all_finite(weights: Sequence[torch.Tensor]) -> bool:
    """A finite sum has only finite terms: one look at the device. Only a sum that overflowed needs a closer one."""
    if not weights or cmath.isfinite(torch.stack([weight.sum() for weight in weights]).sum().item()):
        return True
    return all(bool(torch.isfinite(weight).all()) for weight in weights)


def _attributes(thing: object) -> dict[str, Any]:
    """What a module or optimizer of the user keeps in plain attributes, such as a counter or a running mean."""
    own = {name: value for name, value in vars(thing).items() if name not in _TORCHS_OWN}
    return {name: _copied(value) for name, value in own.items() if _is_plain(value)}


def _copied(state: Any) -> Any:
    """A state dict that later updates do not write into."""
    if isinstance(state, torch.Tensor):
        return state.detach().clone()
    if isinstance(state, Mapping):
        return {key: _copied(value) for key, value in state.items()}
    return type(state)(_copied(value) for value in state) if type(state) in (list, tuple) else state


def _is_plain(state: Any) -> bool:
    """True for what `torch.load(weights_only=True)` reads back."""
    if isinstance(state, Mapping):
        return all(_is_plain(key) and _is_plain(value) for key, value in state.items())
    if type(state) in (list, tuple):
        return all(_is_plain(value) for value in state)
    return state is None or isinstance(state, torch.Tensor) or type(state) in (bool, int, float, str)


# What torch keeps itself: in state dicts, or not at all.
_TORCHS_OWN = (vars(nn.Module()).keys() | vars(torch.optim.SGD([torch.zeros(())])).keys()) - {"training"}
