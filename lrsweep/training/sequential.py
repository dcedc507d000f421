"""One run after another through torch.optim: what any model can be trained with.

A step is made eagerly, through autograd as it is, or captured: recorded once and replayed. The second is for models
that keep a core busy by themselves: stacking them gains nothing, dispatch and autograd still cost a tenth.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from lrsweep import optimizers, schedules
from lrsweep.errors import LrsweepError, StoppedError, UsageError
from lrsweep.run_result import Hooks, RunResult
from lrsweep.training import guards, isolation, lone_steps, param_groups, survivors
from lrsweep.training.audit import Auditor, Computed, after_step
from lrsweep.training.data import map_tensors
from lrsweep.training.divergence import finite_divergence
from lrsweep.training.lone_steps import Captured, Check, Eager, OneRun
from lrsweep.training.own_optimizers import Outside, look_due
from lrsweep.training.recorder import Evaluation, Recorder, untrained
from lrsweep.training.survivors import AtRows
from lrsweep.training.workload import Workload, weights_hash

if TYPE_CHECKING:
    from lrsweep.plan import Run

TICK_EVERY = 8  # steps between two calls of Hooks.tick


def train(runs: Sequence[Run], workload: Workload, hooks: Hooks, *, captured: bool = False) -> Iterator[RunResult]:
    """Train each of `runs`, which share `workload`; yield its result when it is done.

    What the user's code raises makes a `failed` result; a run that fails captured may not fail eagerly. Raises
    StoppedError, after `hooks.save`, when the sweep is stopping, and AuditFailedError when a captured step turns out to
    be another than the eager one. `hooks.resume` continues the run it was saved for.
    """
    for run in runs:
        try:
            with workload.user_code(), workload.reading_ahead():
                result = _train(run, workload, hooks, captured)
        finally:
            workload.release()
        yield result


def _train(run: Run, workload: Workload, hooks: Hooks, captured: bool) -> RunResult:
    trainer = None
    try:
        trainer = _started(run, workload, hooks.resume, captured)
        _loop(trainer, hooks)
        hooks.audits += trainer.audits
        return trainer.result()
    except (Exception, SystemExit) as error:
        # Ours (a stop, a full disk) pass; a UsageError in here is about this run's own optimizer or schedule.
        if isinstance(error, LrsweepError) and not isinstance(error, UsageError):
            raise
        history = {} if trainer is None else trainer.recorder.rows()
        steps = 0 if trainer is None else trainer.step
        error_text = isolation.describe(error)
        return RunResult(run_id=run.run_id, status="failed", steps=steps, error=error_text, history=history)


def _started(run: Run, workload: Workload, state: dict[str, Any] | None, captured: bool) -> Trainer:
    """The run as `state` left it, if that is its own and fits; else the run at its start."""
    if state is not None and state.get("run_id") == run.run_id:
        try:
            trainer = Trainer(run, workload, captured=captured)
            trainer.restore(state)
            return trainer
        except (AttributeError, KeyError, RuntimeError, TypeError, ValueError):
            pass  # saved by something else: that costs time, not the result
    trainer = Trainer(run, workload, captured=captured)
    trainer.start()
    return trainer


def _loop(trainer: Trainer, hooks: Hooks) -> None:
    unreported = 0
    try:
        while not trainer.done:
            if hooks.stopping:
                hooks.tick(unreported)
                raise StoppedError
            if hooks.checkpoint_due():
                _save(trainer, hooks)
            if not trainer.done:  # which looking at the device for a checkpoint may have shown
                trainer.train_step()
            unreported += 1
            if unreported == TICK_EVERY or trainer.done:
                hooks.tick(unreported)
                unreported = 0
    except StoppedError:
        _save(trainer, hooks)
        raise


def _save(trainer: Trainer, hooks: Hooks) -> None:
    """Checkpoint, unless the user's code keeps something that a checkpoint cannot hold."""
    state = trainer.state()
    if state is not None:
        hooks.save(state)


class Trainer:
    """One run on its way: its model, optimizer, schedule and evaluations."""

    def __init__(self, run: Run, workload: Workload, *, captured: bool = False, fused: bool = True) -> None:
        """`captured`: how steps are made. `fused`: take torch's fused kernels where it has them."""
        self._run, self._workload = run, workload
        self.model = workload.build_model(run.seed)
        self._steps: Eager | Captured = (Captured if captured else Eager)(self.model, workload, run.seed)
        parameters = self._parameters = list(self.model.model.parameters())  # those of a loss are its own affair
        self._sort_parameters()
        setting, workload_spec = run.setting, workload.workload_spec
        plain = self.model.groups is None and all(parameter.is_floating_point() for parameter in parameters)
        self._fused = optimizers.fused(setting.name, workload.device.type) if plain and fused else {}
        self._own = ":" in setting.name
        users = not workload.built_in
        # What the user's code kept before its first step, where a checkpoint may need to know.
        self._kept = (
            lone_steps.kept_by(self.model, run.setting, workload) if (users or self._own) and not captured else None
        )
        # A run in a copy of its process needs no such look.
        self._outside = Outside(setting, workload_spec.base_dir, run.label) if captured and self._own else None
        self.step = 0  # steps applied
        self._build_optimizer()
        self._closes = self._own and guards.needs_closure(self.optimizer)
        self._clears = self._own and optimizers.clears_gradients(self.optimizer)
        self._factors = schedules.factors(setting.schedule, workload.total_steps, workload_spec.base_dir)
        self._plateau = schedules.plateau_of(setting.schedule, workload.total_steps)
        self._clip_norm = workload_spec.train["clip_norm"]
        self._decay = setting.independent_weight_decay
        self.recorder = Recorder(workload)
        self._factor = float(self._factors[0])
        self.diverged_step: int | None = None
        self._lr_now = run.lr * float(self._factors[0])
        self._hashes = (weights_hash(self.model.model), workload.order_hash(run.seed))
        self._auditor = Auditor(workload) if captured and users else None
        if self._auditor is not None:
            self._auditor.check_python_values(run.seed, self.model)
        self._watch = self._new_watch(captured)

    def _new_watch(self, captured: bool) -> AtRows | None:
        """If steps need not wait for the device, what remembers there whether the run has ended. Code of the user's
        that may keep something would notice the steps after that."""
        device = self._workload.device
        if not captured or self._own or survivors.looks_at_once(device):
            return None
        return AtRows(1, device, [value.unsqueeze(0) for value in self._steps.written()])

    @property
    def audits(self) -> int:
        return 0 if self._auditor is None else self._auditor.count

    @property
    def done(self) -> bool:
        return self.diverged_step is not None or self.step == self._workload.total_steps

    def start(self) -> None:
        """Row 0: the untrained model on the whole of both splits."""
        if self._steps.stateless:
            first = untrained(self._workload, self._run.seed, self.model)
        else:  # an optimizer that swaps weights for evaluations has none to swap yet
            first = {split: self._steps.evaluate(split, 0, None) for split in ("train", "val")}
        self._row(0, train=first["train"], val=first["val"])

    def train_step(self) -> None:
        """Make one step, or find that the run has diverged. Evaluates where a row is due."""
        factor = float(self._factors[self.step]) * (1.0 if self._plateau is None else self._plateau.factor)
        self._factor = factor
        self._rate.set(factor)
        if self._watch is not None:
            self._step_unseen(self._watch, factor)
            return
        try:
            if self._closes:
                self._step_with_closure(factor)
            else:
                loss, value = self.next_loss()
                if not math.isfinite(value):
                    raise _NotFiniteError
                self.apply(loss, decay_factor=factor)
        except _NotFiniteError:
            self.diverged_step = self.step + 1
            self._row(self.diverged_step)
            return
        self._lr_now = self._run.lr * factor
        if not lone_steps.all_finite(self.weights):
            self.diverged_step = self.step
        if self.diverged_step is not None or self._workload.is_row(self.step):
            self._row(self.step)

    def _step_unseen(self, watch: AtRows, factor: float) -> None:
        """Make one step without waiting for the device, unless a row, a new epoch or an audit is due."""
        batch = self._workload.batch(self._run.seed, self.step)
        if audited := self._audit_due(batch):
            self._settle(watch)  # of a run that has ended an audit shows nothing
            if self.done:
                return
        weights = [weight.detach().unsqueeze(0) for weight in self.weights]
        before = [weight.clone() for weight in weights]
        watch.begin_step()
        loss, metrics = self._forward(batch, audited)
        of_run = {name: value.detach().reshape(1) for name, value in metrics.items()}
        self.recorder.add(*watch.note_losses(loss.detach().reshape(1), of_run, self.step))
        self.apply(loss, decay_factor=factor)
        watch.undo(weights, before)
        watch.note_weights(OneRun(weights), self.step)
        if self._workload.is_row(self.step):
            self._settle(watch)
            if self.diverged_step is None:
                self._row(self.step)

    def _settle(self, watch: AtRows) -> None:
        """Look whether the run has ended since the last row; if it has, write its last row."""
        made, ended = self.step, watch.ended(row=True)
        if ended:
            self.step, self.diverged_step = ended[0].steps, ended[0].diverged_step
        if self.step > self.recorder.last("step"):  # else its rate is that of the last row
            factor = float(self._factors[self.step - 1]) * (1.0 if self._plateau is None else self._plateau.factor)
            self._lr_now = self._run.lr * factor
        if self.diverged_step is not None:
            self._row(self.diverged_step, without=made - self.diverged_step)

    def next_loss(self) -> tuple[Tensor, float]:
        """The loss of the next batch, and its value."""
        batch = self._workload.batch(self._run.seed, self.step)
        loss, metrics = self._forward(batch, self._audit_due(batch))
        value = loss.item()
        if metrics:
            self.recorder.add(loss, metrics)
        else:
            self.recorder.add_alone(value)
        return loss, value

    def _forward(self, batch: Any, audited: bool) -> tuple[Tensor, dict[str, Tensor]]:
        """Loss and metrics of a batch, ready for `apply`."""
        audit = self._audit_of(batch) if audited else None
        if self._steps.random or self._own:  # the class may draw, too
            self._workload.seed_step(self._run.seed, self.step)
        self._clear()
        self.model.steps_made = self.step
        loss, metrics = self._steps.forward(batch)
        if audit is not None:
            audit(loss, metrics)
        return loss, metrics

    def apply(self, loss: Tensor, *, decay_factor: float = 1.0) -> None:
        """Take the step for a `loss` of `next_loss`, with the independent decay scaled so."""
        self._steps.backward(loss)
        if any(parameter.requires_grad for parameter in self._frozen):
            self._thaw()
        if self._fused and self.step == 0 and not lone_steps.fusible([weight.grad for weight in self.weights]):
            self._fused = {}
            self._build_optimizer()
            self._rate.set(self._factor)
        if self._fused:
            lone_steps.lay_out_gradients(self.weights)
        self._clip()
        if self._decay is not None:
            optimizers.decay_independently(self._decayed, self._decay * decay_factor)
        self._optimizer_step()
        if self._outside is not None and look_due(self._workload, self.step):
            self._outside.look(self.step)
        self.step += 1

    def _sort_parameters(self) -> None:
        self.weights = [parameter for parameter in self._parameters if parameter.requires_grad]
        self._frozen = [parameter for parameter in self._parameters if not parameter.requires_grad]

    def _thaw(self) -> None:
        """Train what the user's code has unfrozen, too. Its momentum begins later, which fused kernels do not take."""
        self._sort_parameters()
        if self.model.groups is None:
            self._decayed = self.weights
        for group in self.optimizer.param_groups if self._fused else ():
            group.update(fused=False, foreach=False)
        self._fused = {}

    def _clear(self) -> None:
        """Clear the gradients: torch.optim's way, or that of a class of the user's."""
        if self._clears:
            self.optimizer.zero_grad()
            return
        # Also those that the optimizer was not given, which clipping reads; a class of the user's may take new ones.
        found = self.model.model.parameters() if self._own or self._clip_norm is not None else self._parameters
        for parameter in found:
            parameter.grad = None

    def _clip(self) -> None:
        if self._clip_norm is not None:
            nn.utils.clip_grad_norm_(self.model.model.parameters(), self._clip_norm)

    def _step_with_closure(self, decay_factor: float) -> None:
        """A step of an optimizer that evaluates the loss of the batch itself, as often as it likes."""
        batch = self._workload.batch(self._run.seed, self.step)
        self._workload.seed_step(self._run.seed, self.step)
        if self._decay is not None:
            optimizers.decay_independently(self._decayed, self._decay * decay_factor)
        first = True
        self.model.steps_made = self.step

        @torch.enable_grad()
        def closure() -> Tensor:
            nonlocal first
            self._clear()
            loss, metrics = self._steps.forward(map_tensors(Tensor.clone, batch))
            if first:
                first = False
                self.recorder.add(loss, metrics)
                if not math.isfinite(loss.item()):
                    raise _NotFiniteError
            self._steps.backward(loss)
            self._clip()
            return loss

        self._optimizer_step(closure)
        if first:
            raise RuntimeError(f"{type(self.optimizer).__name__}.step did not call the closure that it is given")
        self.step += 1

    def _audit_due(self, batch: Any) -> bool:
        return self._auditor is not None and self._auditor.due(self.step, batch)

    def _audit_of(self, batch: Any) -> Callable[[Tensor, Mapping[str, Tensor]], None] | None:
        """What to do with loss and metrics of a captured step that is to be audited."""
        auditor = self._auditor
        if auditor is None:
            return None
        before = {name: value.detach().clone() for name, value in self.model.tensors().items()}
        own = map_tensors(Tensor.clone, batch)

        def audit(loss: Tensor, metrics: Mapping[str, Tensor]) -> None:
            after = {name: value.detach().clone() for name, value in self.model.tensors().items()}
            ours = Computed(
                {"loss": loss.detach().reshape(()), **{name: value.reshape(()) for name, value in metrics.items()}},
                {
                    **{name: after[name] for name, _ in self.model.named_buffers()},
                    **self._steps.grads(),
                    **after_step(after),
                },
            )
            kept = [(parameter, parameter.grad) for parameter in self.model.parameters()]
            auditor.check_step(self.model, before, own, self._run.seed, self.step, ours)
            self._load(after)  # the step may have written into parameters, too
            for parameter, grad in kept:  # what a class of the user's did not clear
                parameter.grad = grad

        return audit

    @torch.no_grad()
    def _load(self, values: Mapping[str, Tensor]) -> None:
        for name, tensor in self.model.tensors().items():
            tensor.copy_(values[name])

    def _build_optimizer(self) -> None:
        setting, model, groups = self._run.setting, self.model.model, self.model.groups
        args, base_dir = {**setting.args, **self._fused}, self._workload.workload_spec.base_dir
        if self._own:
            self._workload.seed_step(self._run.seed, 0)
        params: list[Any] = list(model.parameters())
        self._decayed = self.weights
        if groups is not None:
            names = param_groups.named(model)
            params, self._decayed = param_groups.given(groups, names, self._run.lr), param_groups.decayed(groups, names)
        self.optimizer = optimizers.build(setting.name, args, params, self._run.lr, base_dir)
        self._optimizer_step = optimizers.step_of(self.optimizer)
        self._set_mode(training=True)
        self._rate = optimizers.ScheduledRate(self.optimizer, setting.schedule)

    def _row(self, step: int, train: Evaluation | None = None, val: Evaluation | None = None, without: int = 0) -> None:
        self.recorder.row(step, [self._lr_now], val or self._evaluate("val"), train=train, without=without)
        self.recorder.restart()
        losses = (self.recorder.last("train_loss"), self.recorder.last("val_loss"))
        if self.diverged_step is None and not all(math.isfinite(loss) for loss in losses):
            self.diverged_step = step
        if self._plateau is not None and self.diverged_step is None:
            self._plateau.observe(self.recorder.last(self._plateau.metric), step)

    def _evaluate(self, split: str) -> Evaluation:
        """Per-example means over a whole split, model and optimizer in evaluation mode."""
        self._set_mode(training=False)
        values = self._steps.evaluate(split, self.step, self._audit_of_evaluation())
        self._set_mode(training=True)
        return values

    def _audit_of_evaluation(self) -> Check | None:
        """If this evaluation of a captured run is to be audited: what to do with the result of its first batch."""
        auditor = self._auditor
        if auditor is None or not auditor.row_due(len(self.recorder.rows()["step"]), self.step):
            return None

        def check(batch: Any, loss: Tensor, metrics: Mapping[str, Tensor]) -> None:
            weights = {name: value.detach().clone() for name, value in self.model.tensors().items()}
            scalars = {"loss": loss.reshape(()), **{name: value.reshape(()) for name, value in metrics.items()}}
            auditor.check_evaluation(self.model, weights, batch, self._run.seed, self.step, Computed(scalars, {}))
            self._load(weights)

        return check

    def _set_mode(self, *, training: bool) -> None:
        def seed() -> None:
            self._workload.seed_step(self._run.seed, self.step)

        if self._own:
            optimizers.set_mode(self.optimizer, training=training, seed=seed)

    def result(self) -> RunResult:
        """What the finished run leaves; the test split, where there is one, is evaluated here and only here."""
        history = self.recorder.rows()
        self._check_schedule()
        if self.diverged_step is None:
            eps = torch.finfo(self._workload.dtype).eps
            losses = (history["train_loss"], history["val_loss"])
            self.diverged_step = finite_divergence(history["step"], *losses, eps=eps)
        test = self._evaluate("test") if "test" in self._workload.splits else {}
        return RunResult(
            run_id=self._run.run_id,
            status="ok" if self.diverged_step is None else "diverged",
            diverged_step=self.diverged_step,
            steps=self.step,
            history=history,
            test={f"test_{name}": value for name, (value,) in test.items()},
            weights_hash=self._hashes[0],
            batches_hash=self._hashes[1],
        )

    def _check_schedule(self) -> None:
        """Raises UsageError if a schedule of the user's has other factors now than before the first step."""
        schedule = self._run.setting.schedule
        if ":" in schedule["name"]:
            now = schedules.factors(schedule, self._workload.total_steps, self._workload.workload_spec.base_dir)
            schedules.same_factors(schedule["name"], self._factors, now)

    def state(self) -> dict[str, Any] | None:
        """A copy of all that the next step depends on (random numbers follow from the seed and the step).

        None if the user's code keeps anything that is not proven to come back from it, or if the run has ended.
        """
        if self._watch is not None:
            self._settle(self._watch)
            if self.diverged_step is not None:
                return None
        if self._kept is not None:
            now = lone_steps.kept_by(self.model, self._run.setting, self._workload)
            if now.hidden or not now.full or not now.same(self._kept):
                return None
        if self._own:
            optimizer = optimizers.own_state(self.optimizer, list(self.model.model.parameters()))
        else:
            optimizer = lone_steps.copied(self.optimizer.state_dict())
        if optimizer is None:
            return None
        return {
            "run_id": self._run.run_id,
            "step": self.step,
            "lr_now": self._lr_now,
            "tensors": {name: tensor.detach().clone() for name, tensor in self.model.tensors().items()},
            "training": [module.training for module in self.model.model.modules()],
            "optimizer": optimizer,
            "recorder": self.recorder.state(),
            "plateau": None if self._plateau is None else self._plateau.state(),
            "hashes": list(self._hashes),
        }

    @torch.no_grad()
    def restore(self, state: Mapping[str, Any]) -> None:
        """Continue from a `state()` to the bit. Raises ValueError if a fresh model cannot hold it."""
        tensors = self.model.tensors()
        for name, saved in state["tensors"].items():
            if (saved.dtype, saved.shape) != (tensors[name].dtype, tensors[name].shape):
                raise ValueError(f"{name} has changed its dtype or shape")  # which copying would hide
            tensors[name].copy_(saved)
        for module, mode in zip(self.model.model.modules(), state["training"], strict=True):
            module.training = mode
        if tensors.keys() != state["tensors"].keys():
            raise ValueError("the model has other parameters or buffers")
        if self._own:
            optimizers.restore_own(self.optimizer, list(self.model.model.parameters()), state["optimizer"])
        else:
            self.optimizer.load_state_dict(lone_steps.copied(state["optimizer"]))
        self.recorder.restore(state["recorder"])
        if self._plateau is not None:
            self._plateau.restore(state["plateau"])
        self.step, self._lr_now = int(state["step"]), float(state["lr_now"])
        self._hashes = (state["hashes"][0], state["hashes"][1])


class _NotFiniteError(Exception):
    """The loss of a batch is not finite, and its step is not taken."""
