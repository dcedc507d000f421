"""A group of runs trained at once in stacked tensors: any mix of learning rates, optimizers, schedules and seeds.

Each run comes out as if it had been trained alone (sequential.py): the rules for rows, divergence and clipping are the
same, kept per run. A diverged run leaves zeros behind in the tensors, so that nothing of it reaches a neighbour.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from lrsweep.errors import StoppedError
from lrsweep.run_result import Hooks, RunResult
from lrsweep.training import param_groups, survivors, update_rules
from lrsweep.training.audit import AuditFailedError, Auditor, Computed, after_step
from lrsweep.training.data import map_tensors
from lrsweep.training.divergence import finite_divergence
from lrsweep.training.own_optimizers import OwnOptimizers, inside, look_due
from lrsweep.training.rates import Rates, build_rule, by_setting, rule_of
from lrsweep.training.recorder import Evaluation, Recorder, means_over, untrained, versions
from lrsweep.training.stepper import Result, Stepper
from lrsweep.training.update_rules import Weights
from lrsweep.training.workload import Workload, weights_hash

if TYPE_CHECKING:
    from lrsweep.plan import Run

Rule = update_rules.StackedRule | update_rules.GroupedRule | OwnOptimizers
TICK_EVERY = 256  # steps, summed over the runs, between two calls of Hooks.tick, about
COMPACT_SHARE = 0.5  # diverged runs leave the tensors once they are this share of them


def train(runs: Sequence[Run], workload: Workload, hooks: Hooks, *, compile: bool = False) -> Iterator[RunResult]:
    """Train `runs`, which share `workload`, together; yield each result as soon as it is known.

    What the user's code raises is raised: the runs that are left must then be trained alone, where each tells its own
    failure. Raises StoppedError, after `hooks.save`, when the sweep is stopping, and AuditFailedError when user code
    turns out to give something else than alone. While it may, no result is yielded before the last.
    """
    with workload.user_code(), workload.reading_ahead():
        yield from _train(runs, workload, hooks, compile)


def _train(runs: Sequence[Run], workload: Workload, hooks: Hooks, compile: bool) -> Iterator[RunResult]:
    trainer = StackedTrainer(runs, workload, compile)
    if hooks.resume is not None and hooks.resume.get("runs") == trainer.run_ids:
        trainer.restore(hooks.resume)
    else:
        trainer.start()
    unreported = 0
    while not trainer.done:
        if not trainer.audited:
            yield from trainer.new_results()
        if hooks.stopping or hooks.checkpoint_due():
            hooks.tick(unreported)
            unreported = 0
            _save(trainer, hooks)
            if hooks.stopping:
                raise StoppedError
        unreported += trainer.train_step()
        if unreported >= TICK_EVERY or trainer.done:
            try:
                hooks.tick(unreported)
            except StoppedError:
                _save(trainer, hooks)
                raise
            unreported = 0
    trainer.end()
    hooks.audits += trainer.audits
    yield from trainer.new_results()


def _save(trainer: StackedTrainer, hooks: Hooks) -> None:
    """Checkpoint, unless an optimizer of the user's keeps something that a checkpoint cannot hold."""
    state = trainer.state()
    if state is not None:
        hooks.save(state)


class StackedTrainer:
    """The stacked state of M runs. A run is known by its index in `runs`, or by its slot in the tensors: runs that
    diverge leave the tensors sooner or later, and `_present` [K] holds the index of the run in each slot."""

    def __init__(self, runs: Sequence[Run], workload: Workload, compile: bool = False) -> None:
        self._workload = workload
        self._seeds = list(dict.fromkeys(run.seed for run in runs))
        self._models = {seed: workload.build_model(seed) for seed in self._seeds}
        # One rule moves a parameter group of all runs, so they must have the same groups.
        self._objects = param_groups.differ(self._models.values())
        self.runs = sorted(runs, key=self._rule_of)
        self.run_ids = [run.run_id for run in self.runs]
        self._auditor = None if workload.built_in else Auditor(workload)
        self._clip_norm = workload.workload_spec.train["clip_norm"]
        self.step = 0
        self._present = list(range(len(self.runs)))
        self._dead: list[int] = []  # slots
        self._ending: set[int] = set()  # slots that are about to be
        self._results: list[RunResult] = []
        self._yielded = 0
        self._build_weights(compile)
        self._rates = Rates(self.runs, workload)
        self._rows_written = 0
        self._build_rules()
        self._recorder = Recorder(workload, len(self.runs))

    def _rule_of(self, run: Run) -> str:
        return by_setting(run.setting) if self._objects else rule_of(run.setting)

    def _own_object(self, run: Run) -> bool:
        """Is it updated by a real optimizer object of its own? Else one rule updates it with others."""
        return self._objects or ":" in run.setting.name

    def _build_weights(self, compile: bool) -> None:
        workload, models = self._workload, self._models
        self._seeds = seeds = list(dict.fromkeys(run.seed for run in self.runs))
        if self._auditor is not None:
            for seed in seeds:
                self._auditor.check_python_values(seed, models[seed])
        self._hashes = {seed: (weights_hash(models[seed].model), workload.order_hash(seed)) for seed in seeds}
        self._same_batch = len(seeds) == 1
        self._index_seeds()
        tensors = {seed: model.tensors() for seed, model in models.items()}

        def stack(names: Sequence[str]) -> list[Tensor]:
            return [torch.stack([tensors[run.seed][name].detach() for run in self.runs]) for name in names]

        def make_stepper() -> Stepper:
            stepper = Stepper(models[seeds[0]], workload, shared=self._same_batch, compile=compile)
            workload.seed_step(seeds[0], 0)
            stepper.freeze_unused(stack(stepper.trainable), stack(stepper.non_trainable), self._batch())
            return stepper

        # What was recorded for one group serves the next ones of a workload: weights are inputs of a recording.
        self._stepper = workload.once(("stacked", self._same_batch, compile), make_stepper)
        self._non_trainable = stack(self._stepper.non_trainable)
        # An optimizer object of a run is given the parameters as they are, and so is the rule of a parameter group.
        whole = models[seeds[0]].groups is not None or any(map(self._own_object, self.runs))
        self._weights = Weights(stack(self._stepper.trainable), in_rows=not whole)

    def _build_rules(self) -> None:
        rules = [self._rule_of(run) for run in self.runs]
        bounds = [0, *(i for i in range(1, len(rules)) if rules[i] != rules[i - 1]), len(rules)]
        self._rules: list[tuple[slice, Rule]] = []
        for low, high in pairwise(bounds):
            slots = slice(low, high)
            rule: Rule
            if self._own_object(self.runs[low]):
                rule = OwnOptimizers(self.runs[slots], self._workload, self._models, self._named(slots))
            else:
                settings = [run.setting for run in self.runs[slots]]
                groups = self._models[self._seeds[0]].groups
                rule = build_rule(settings, self._weights, self._stepper.trainable, groups, self._workload)
            self._rules.append((slots, rule))
        self._own = [(slots, rule) for slots, rule in self._rules if isinstance(rule, OwnOptimizers)]
        del self._models
        self._slice_by_rule()
        self._watch = self._new_watch()

    def _new_watch(self) -> survivors.AtOnce | survivors.AtRows:
        """For the runs that are in the tensors."""
        device = self._workload.device
        if survivors.looks_at_once(device) or self._own:  # objects of the user's are looked at one by one anyway
            return survivors.AtOnce(device)
        buffers = {name for name, _ in self._stepper.module.named_buffers()}
        named = zip(self._stepper.non_trainable, self._non_trainable, strict=True)
        written = [value for name, value in named if name in buffers or not self._workload.built_in]
        return survivors.AtRows(len(self._present), device, written)

    def _named(self, slots: slice) -> dict[str, Tensor]:
        """The parameters of these slots, trained or not, and the buffers."""
        names = (*self._stepper.trainable, *self._stepper.non_trainable)
        tensors = zip(names, (*self._weights.params, *self._non_trainable), strict=True)
        return {name: value[slots] for name, value in tensors}

    def _slice_by_rule(self) -> None:
        """What each rule updates, sliced once: `_rules` and the weights change only when runs leave."""
        self._parts = [[part[slots] for part in self._weights.parts] for slots, _ in self._rules]
        self._sliced_rates: tuple[tuple[Tensor, Tensor] | None, list[tuple[Tensor, Tensor]]] = (None, [])

    @property
    def audited(self) -> bool:
        """May it still turn out that these results are wrong?"""
        return self._auditor is not None or bool(self._own)

    @property
    def audits(self) -> int:
        return 0 if self._auditor is None else self._auditor.count

    @property
    def done(self) -> bool:
        return self.step == self._workload.total_steps or len(self._dead) == len(self._present)

    def new_results(self) -> Iterator[RunResult]:
        """The results that have not been asked for before."""
        while self._yielded < len(self._results):
            self._yielded += 1
            yield self._results[self._yielded - 1]

    def start(self) -> None:
        """Row 0: the untrained models on the whole of both splits."""
        first = {seed: untrained(self._workload, seed) for seed in self._seeds}
        train, val = (
            {name: [first[run.seed][split][name][0] for run in self.runs] for name in first[self._seeds[0]][split]}
            for split in ("train", "val")
        )
        self._recorder.row(0, self._rates.after(0), val, train=train)
        self._end_rows(0)

    def train_step(self) -> int:
        """One step of every run that is left; returns how many there were. Evaluates where a row is due."""
        batch = self._batch()
        audit = self._audit_of(batch)
        if self._stepper.random is not False:
            self._workload.seed_step(self._seeds[0], self.step)
        self._watch.begin_step()
        result = self._stepper.train(self._weights.params, self._non_trainable, batch)
        if audit is not None:
            audit(result)
        noted = self._watch.note_losses(result.losses, result.metrics, self.step)
        self._recorder.add(*noted, runs=None if len(self._present) == len(self.runs) else self._present_runs)
        self._settle()
        left = len(self._present) - len(self._dead)
        if left:
            self._apply(result.grads, result.own)
            self.step += 1
            self._watch.note_weights(self._weights, self.step)
            self._settle()
            self._end_rows(self.step)
            if self._dead and len(self._dead) >= COMPACT_SHARE * len(self._present) and not self.done:
                self._keep(self._alive())
        return left

    def _batch(self) -> Any:
        if self._same_batch:
            return self._workload.batch(self._seeds[0], self.step)
        return self._workload.batches(self._seeds, self._seed_index, self.step)

    def _index_seeds(self) -> None:
        of_slot = [self._seeds.index(self.runs[index].seed) for index in self._present]
        self._seed_index = torch.tensor(of_slot, device=self._workload.device)

    def _audit_of(self, batch: Any) -> Callable[[Result], None] | None:
        """If this step is to be audited: what to do with its result. Called before it, which writes into buffers."""
        if self._auditor is None or self.done or not self._auditor.due(self.step, batch):
            return None
        self._settle(row=True)  # of a run that has ended an audit shows nothing
        alive = self._alive()
        if not alive:
            return None
        auditor, slot = self._auditor, self._auditor.choose(self.step, alive)
        seed = self.runs[self._present[slot]].seed
        weights = {name: value[0].clone() for name, value in self._named(slice(slot, slot + 1)).items()}
        own = map_tensors(lambda leaf: (leaf if self._same_batch else leaf[slot]).clone(), batch)

        def audit(result: Result) -> None:
            grads = zip(self._stepper.trainable, result.grads, strict=True)
            buffers = {name for name, _ in self._stepper.module.named_buffers()}
            after = {name: value[0] for name, value in self._named(slice(slot, slot + 1)).items()}
            ours = Computed(
                {"loss": result.losses[slot], **{name: value[slot] for name, value in result.metrics.items()}},
                {name: grad[slot] for name, grad in grads}
                | {name: after[name] for name in buffers}
                | after_step(after),
            )
            auditor.check_step(auditor.module(seed), weights, own, seed, self.step, ours)

        return audit

    @torch.no_grad()
    def _apply(self, grads: Sequence[Tensor], own: frozenset[int]) -> None:
        """`own`: see Result."""
        if self._clip_norm is not None:
            grads = update_rules.clipped(grads, self._clip_norm)
            own = frozenset(number for number, grad in enumerate(grads) if grad.is_contiguous())
        grads = self._weights.gathered(grads)
        rates = self._rates_of_rules()
        alive = self._watch.alive
        draws = self._own and self._stepper.random and self._same_batch  # the steps of several seeds draw nothing
        drawn = torch.default_generator.get_state() if draws else None
        for (slots, rule), parts, (lr, factor) in zip(self._rules, self._parts, rates, strict=True):
            if isinstance(rule, OwnOptimizers):
                named = {}
                for number, (name, grad) in enumerate(zip(self._stepper.trainable, grads, strict=True)):
                    copied = number not in own  # else one tensor may be the gradient of two parameters, or of all runs
                    named[name] = grad[slots].clone(memory_format=torch.contiguous_format) if copied else grad[slots]
                factors_of = self._rates.factors_at(self.step)
                factors = [factors_of[index] for index in self._present[slots]]
                rule.step(named, factors, self.step, inside(slots, self._dead), drawn)
                if look_due(self._workload, self.step):
                    rule.audit(self.step)
            else:
                rule.step(parts, [grad[slots] for grad in grads], lr, factor, None if alive is None else alive[slots])
        if self._watch.dead is not None and alive is None:
            self._weights.clear(self._watch.dead)

    def _rates_of_rules(self) -> list[tuple[Tensor, Tensor]]:
        """Learning rates and factors of the runs of each rule in this step; sliced anew only where they changed."""
        pair = self._rates.at(self.step, self._present)
        if pair is not self._sliced_rates[0]:
            self._sliced_rates = (pair, [(pair[0][slots], pair[1][slots]) for slots, _ in self._rules])
        return self._sliced_rates[1]

    def _settle(self, *, row: bool = False) -> None:
        """End the runs that are known to have diverged, with one last row measured with the weights as they are then.
        `row`: all that have diverged."""
        found = self._watch.ended(row=row)
        self._ending = {slot for ended in found for slot in ended.slots}
        for ended in found:
            self._row(ended.diverged_step, ended.slots, ended.steps)
            self._finish(ended.slots, ended.diverged_step, ended.steps)
        self._ending.clear()

    def _finish(self, slots: list[int], diverged_step: int | None, steps: int) -> None:
        """Make the results of runs that make no more steps."""
        test = self._evaluate("test", slots, steps) if "test" in self._workload.splits else {}
        for slot in slots:
            run, history = self.runs[self._present[slot]], self._recorder.rows(self._present[slot])
            step = diverged_step
            if step is None:
                eps = torch.finfo(self._workload.dtype).eps
                losses = (history["train_loss"], history["val_loss"])
                step = finite_divergence(history["step"], *losses, eps=eps)
            self._results.append(
                RunResult(
                    run_id=run.run_id,
                    status="ok" if step is None else "diverged",
                    diverged_step=step,
                    steps=steps,
                    history=history,
                    test={f"test_{name}": values[slot] for name, values in test.items()},
                    weights_hash=self._hashes[run.seed][0],
                    batches_hash=self._hashes[run.seed][1],
                )
            )
        if diverged_step is not None:
            self._dead = sorted({*self._dead, *slots})
            self._weights.clear(self._watch.know(self._dead))

    def end(self) -> None:
        """The results of the runs that made all steps."""
        if alive := self._alive():
            self._finish(alive, None, self.step)
        for _, rule in self._own:
            rule.audit(self.step - 1)

    def _alive(self) -> list[int]:
        return [slot for slot in range(len(self._present)) if slot not in self._dead]

    def _end_rows(self, step: int) -> None:
        """Where a row is due: write it, end the runs whose losses in it are not finite, tell the plateaus."""
        if step > 0:
            if not self._workload.is_row(step):
                return
            self._settle(row=True)
            self._row(step, self._alive(), step)
            self._recorder.restart()
            self._rates.mark(step)
        bad = []
        for slot in self._alive():
            index = self._present[slot]
            if not all(math.isfinite(self._recorder.last(loss, index)) for loss in ("train_loss", "val_loss")):
                bad.append(slot)
            elif step > 0:
                self._rates.observe(index, self._recorder, step)
        if bad:
            self._finish(bad, step, step)

    def _row(self, step: int, slots: Sequence[int], steps: int) -> None:
        """The row of `step` of runs that have made `steps` steps."""
        self._rows_written += 1
        val = {name: [values[slot] for slot in slots] for name, values in self._evaluate("val", slots, steps).items()}
        runs = [self._present[slot] for slot in slots]
        rates = self._rates.after(steps)
        later = max(self.step - step, 0)  # steps that were made before these runs were known to have ended
        self._recorder.row(step, [rates[index] for index in runs], val, runs=runs, without=later)

    def _evaluate(self, split: str, of: Sequence[int], step: int) -> Evaluation:
        """Per-example means over a whole split, an entry per slot, after `step` updates of the runs in the slots `of`.
        Only these may notice.

        Raises AuditFailedError if others would.
        """
        auditor = self._auditor
        alive = sorted({*self._alive()} - self._ending)  # numbers that overflow agree with none
        if auditor is not None and not (alive and auditor.row_due(self._rows_written, step)):
            auditor = None

        def forward(*batch: Any) -> tuple[Tensor, dict[str, Tensor]]:
            nonlocal auditor
            given = map_tensors(Tensor.clone, batch) if auditor is not None else batch
            result = self._stepper.evaluate(self._weights.params, self._non_trainable, batch)
            if auditor is not None:  # the first batch
                slot = auditor.choose(step, alive)
                seed = self.runs[self._present[slot]].seed
                weights = {name: value[0] for name, value in self._named(slice(slot, slot + 1)).items()}
                metrics = {name: value[slot] for name, value in result.metrics.items()}
                ours = Computed({"loss": result.losses[slot], **metrics}, {})
                auditor.check_evaluation(auditor.module(seed), weights, given, self._seeds[0], step, ours)
                auditor = None
            return result.losses, result.metrics

        others = sorted({*range(len(self._present))} - {*of})
        for slots, rule in self._own:
            rule.set_mode(step, training=False, skipped=inside(slots, others))
        self._workload.seed_step(self._seeds[0], step)  # as `means_over` does, to see whether anything is drawn
        before = versions(self._tensors()), torch.default_generator.get_state()
        values = means_over(forward, self._workload, split, self._seeds[0], step, len(self._present))
        if versions(self._tensors()) != before[0]:
            raise AuditFailedError(f"the evaluation after step {step}: it writes into a parameter or a buffer")
        if len(self._seeds) > 1 and not torch.equal(torch.default_generator.get_state(), before[1]):
            raise AuditFailedError(f"the evaluation after step {step}: it draws random numbers, as its trial did not")
        for slots, rule in self._own:
            rule.set_mode(step, training=True, skipped=inside(slots, others))
        return values

    def _tensors(self) -> list[Tensor]:
        return [*self._weights.params, *self._non_trainable]

    def _keep(self, slots: list[int]) -> None:
        """Go on with the runs in these slots only."""
        index = torch.tensor(slots, dtype=torch.long, device=self._workload.device)
        self._weights = Weights([param[index] for param in self._weights.params], in_rows=self._weights.in_rows)
        self._non_trainable = [value[index] for value in self._non_trainable]
        rules, low = [], 0
        for old, rule in self._rules:
            stay = [slot - old.start for slot in slots if old.start <= slot < old.stop]
            if not stay:
                if isinstance(rule, OwnOptimizers):
                    rule.audit(self.step - 1)
                continue
            now = slice(low, low + len(stay))
            if isinstance(rule, OwnOptimizers):
                rule.keep(stay)
                rule.attach(self._named(now))
            else:
                rule.keep(torch.tensor(stay, dtype=torch.long, device=self._workload.device))
            rules.append((now, rule))
            low = now.stop
        self._rules = rules
        self._own = [(slots, rule) for slots, rule in rules if isinstance(rule, OwnOptimizers)]
        self._present, self._dead = [self._present[slot] for slot in slots], []
        self._seeds = list(dict.fromkeys(self.runs[index].seed for index in self._present))
        self._index_seeds()
        self._slice_by_rule()
        self._present_runs = torch.tensor(self._present, dtype=torch.long, device=self._workload.device)
        self._watch = self._new_watch()

    def parameters(self, run_id: str) -> dict[str, Tensor]:
        """The trainable weights of a run that is still in the tensors, by name."""
        slot = self._present.index(self.run_ids.index(run_id))
        return {name: value[slot] for name, value in zip(self._stepper.trainable, self._weights.params, strict=True)}

    def state(self) -> dict[str, Any] | None:
        """A copy of all that the next step depends on (random numbers follow from the seed and the step).

        None if an optimizer of the user's keeps what a checkpoint cannot hold.
        """
        self._settle(row=True)
        if None in (rules := [rule.state() for _, rule in self._rules]):
            return None
        return {
            "run_id": "",
            "runs": list(self.run_ids),
            "step": self.step,
            "positions": list(self._present),
            "dead": list(self._dead),
            "params": [param.clone() for param in self._weights.params],
            "fixed": [value.clone() for value in self._non_trainable],
            "rules": rules,
            "rows_written": self._rows_written,
            "rates": self._rates.state(self.step),
            "recorder": self._recorder.state(),
            "outcomes": [asdict(result) for result in self._results],
        }

    @torch.no_grad()
    def restore(self, state: Mapping[str, Any]) -> None:
        """Continue from a `state()` to the bit; the results made before it are yielded again."""
        if len(state["positions"]) < len(self.runs):
            self._keep(list(state["positions"]))
        self.step, self._dead = int(state["step"]), list(state["dead"])
        saved_values = (*state["params"], *state["fixed"])
        for value, saved in zip((*self._weights.params, *self._non_trainable), saved_values, strict=True):
            value.copy_(saved)
        for (_, rule), saved in zip(self._rules, state["rules"], strict=True):
            rule.restore(saved)
        self._rows_written = int(state.get("rows_written", 0))
        if self._dead:
            self._watch.know(self._dead)
        self._rates.restore(state["rates"], self.step)
        self._recorder.restore(state["recorder"])
        self._results = [RunResult(**result) for result in state["outcomes"]]
