"""A group of runs trained at once in stacked tensors: any mix of rates, optimizers, schedules and seeds of one recipe.

Each run comes out as if it had been trained alone (single.py): the rules for rows, divergence and clipping are the same
ones, kept per run. A run that has diverged leaves a row of zeros behind, so that nothing of it reaches a neighbour.
"""

# M runs of the group, K of them still in the tensors

from __future__ import annotations

import math
import weakref
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from lrsweep import schedules
from lrsweep.analysis.diagnosis import finite_divergence
from lrsweep.errors import StoppedError
from lrsweep.run_result import Hooks, RunResult
from lrsweep.training import update_rules
from lrsweep.training.recorder import MeanMetrics, Recorder, untrained
from lrsweep.training.stepper import Result, Stepper
from lrsweep.training.update_rules import Weights
from lrsweep.training.workload import Workload, weights_hash

if TYPE_CHECKING:
    from lrsweep.plan import Run

TICK_MEMBER_STEPS = 256  # member steps between two calls of Hooks.tick, about
# What was recorded for one group serves the next ones of the same problem: weights are inputs of a recording.
_STEPPERS: weakref.WeakKeyDictionary[Workload, dict[tuple[bool, bool], Stepper]] = weakref.WeakKeyDictionary()
COMPACT_SHARE = 0.5  # diverged runs leave the tensors once they are this share of them


def train(runs: Sequence[Run], workload: Workload, hooks: Hooks, *, compile: bool = False) -> Iterator[RunResult]:
    """Train `runs`, which share the recipe of `problem`, together; yield each outcome as soon as it is known.

    What the user's code raises is raised: the runs that are left must then be trained alone, where each tells its own
    failure. Raises StoppedError, after `hooks.save`, when the sweep is stopping.
    """
    with workload.user_code():
        yield from _train(runs, workload, hooks, compile)


def _train(runs: Sequence[Run], workload: Workload, hooks: Hooks, compile: bool) -> Iterator[RunResult]:
    group = Group(runs, workload, compile)
    if hooks.resume is not None and hooks.resume.get("runs") == group.run_ids:
        group.restore(hooks.resume)
    else:
        group.start()
    yield from group.finished()
    waiting = 0
    while not group.done:
        if hooks.stopping or hooks.checkpoint_due():
            hooks.tick(waiting)
            waiting = 0
            hooks.save(group.state())
            if hooks.stopping:
                raise StoppedError
        waiting += group.update()
        yield from group.finished()
        if waiting >= TICK_MEMBER_STEPS or group.done:
            try:
                hooks.tick(waiting)
            except StoppedError:
                hooks.save(group.state())
                raise
            waiting = 0
    group.end()
    yield from group.finished()


class Group:
    """The stacked state of M runs. `positions` [K] says which runs are still in the tensors, in their order."""

    def __init__(self, runs: Sequence[Run], workload: Workload, compile: bool = False) -> None:
        split = {run.run_id: update_rules.split(
                     run.setting.name, run.setting.args, run.setting.independent_weight_decay)
                 for run in runs}  # fmt: skip
        self.runs = sorted(runs, key=lambda run: split[run.run_id][0])
        self.run_ids = [run.run_id for run in self.runs]
        self._workload = workload
        self._clip_norm = workload.workload_spec.train["clip_norm"]
        self.step = 0
        self._positions = list(range(len(self.runs)))
        self._dead: list[int] = []
        self._outcomes: list[RunResult] = []
        self._told = 0
        self._build_weights(compile)
        self._rates = Rates(self.runs, workload)
        self._rule_text = [split[run.run_id][0] for run in self.runs]
        self._build_rules([split[run.run_id][1] for run in self.runs])
        self._recorder = Recorder(
            workload.metric_names,
            train_metrics=workload.train_metrics,
            finalize=workload.finalize,
            steps_per_epoch=workload.steps_per_epoch,
            members=len(self.runs),
            device=workload.device,
        )

    def _build_weights(self, compile: bool) -> None:
        workload, seeds = self._workload, list(dict.fromkeys(run.seed for run in self.runs))
        models = {seed: workload.build_model(seed) for seed in seeds}
        module = models[seeds[0]]
        self._hashes = {seed: (weights_hash(models[seed].model), workload.order_hash(seed)) for seed in seeds}
        self._seeds, self._shared = seeds, len(seeds) == 1
        self._index_seeds()
        values = {seed: {**dict(m.named_parameters()), **dict(m.named_buffers())} for seed, m in models.items()}

        def stack(names: Sequence[str]) -> list[Tensor]:
            return [torch.stack([values[run.seed][name].detach() for run in self.runs]) for name in names]

        kept = _STEPPERS.setdefault(workload, {})
        if (stepper := kept.get((self._shared, compile))) is None:
            stepper = Stepper(module, workload, shared=self._shared, compile=compile)
            workload.seed_step(seeds[0], 0)
            stepper.freeze_unused(stack(stepper.trainable), stack(stepper.non_trainable), self._batch())
            kept[self._shared, compile] = stepper
        self._stepper = stepper
        self._non_trainable = stack(stepper.non_trainable)
        self._weights = Weights(stack(stepper.trainable))

    def _build_rules(self, decays: Sequence[update_rules.Decay]) -> None:
        cuts = [0, *(i for i in range(1, len(self.runs)) if self._rule_text[i] != self._rule_text[i - 1])]
        self._rules = []
        for low, high in pairwise([*cuts, len(self.runs)]):
            rule = update_rules.StackedRule(
                self._rule_text[low],
                decays[low:high],
                [param.shape[1:] for param in self._weights.params],
                dtype=self._workload.dtype,
                device=self._workload.device,
                base_dir=self._workload.workload_spec.base_dir,
            )
            self._rules.append((slice(low, high), rule))
        self._cut()

    def _cut(self) -> None:
        """What each rule updates, cut once: `_rules` and the weights change only when runs leave."""
        self._parts = [[param[rows] for param in self._weights.params] for rows, _ in self._rules]
        self._cut_rates: tuple[tuple[Tensor, Tensor] | None, list[tuple[Tensor, Tensor]]] = (None, [])

    @property
    def done(self) -> bool:
        return self.step == self._workload.total_steps or len(self._dead) == len(self._positions)

    def finished(self) -> Iterator[RunResult]:
        """The outcomes that have not been asked for before."""
        while self._told < len(self._outcomes):
            self._told += 1
            yield self._outcomes[self._told - 1]

    def start(self) -> None:
        """Row 0: the untrained models on the whole of both splits."""
        found = {seed: untrained(self._workload, seed) for seed in self._seeds}
        of_run = [found[run.seed] for run in self.runs]
        train, val = (_columns([one[split] for one in of_run]) for split in ("train", "val"))
        self._recorder.row(0, self._rates.last, val, train=train)
        self._end_rows(0)

    def update(self) -> int:
        """One update of every run that is left; returns how many there were. Evaluates where a row is due."""
        seed, step = self._seeds[0], self.step
        batch = self._batch()
        if self._stepper.random is not False:
            self._workload.seed_step(seed, step)
        result = self._stepper.train(self._weights.params, self._non_trainable, batch)
        self._note_losses(result)
        left = len(self._positions) - len(self._dead)
        if left:
            self._apply(result.grads)
            self.step += 1
            self._look_at_weights()
            self._end_rows(self.step)
            self._compact()
        return left

    def _batch(self) -> Any:
        if self._shared:
            return self._workload.batch(self._seeds[0], self.step)
        return self._workload.batches(self._seeds, self._seed_index, self.step)

    def _index_seeds(self) -> None:
        of_run = [self._seeds.index(self.runs[position].seed) for position in self._positions]
        self._seed_index = torch.tensor(of_run, device=self._workload.device)

    def _note_losses(self, result: Result) -> None:
        losses, metrics = result.losses, result.metrics
        if self._dead:
            losses = losses.index_fill(0, self._dead_index, 0.0)
        whole = len(self._positions) == len(self.runs)
        self._recorder.add(losses, metrics, members=None if whole else self._position_index)
        if math.isfinite(losses.sum().item()):
            return
        bad = [slot for slot, loss in enumerate(losses.tolist()) if not math.isfinite(loss)]
        if bad:
            self._diverge(bad, self.step + 1)

    @torch.no_grad()
    def _apply(self, grads: Sequence[Tensor]) -> None:
        if self._clip_norm is not None:
            grads = _clipped(grads, self._clip_norm)
        for (rows, rule), parts, (lr, factor) in zip(self._rules, self._parts, self._rates_of_rules(), strict=True):
            rule.step(parts, [grad[rows] for grad in grads], lr, factor)
        if self._dead:
            self._weights.clear(self._dead_index)

    def _rates_of_rules(self) -> list[tuple[Tensor, Tensor]]:
        """Rates and factors of the runs of each rule in this update; cut anew only where they have changed."""
        pair = self._rates.at(self.step, self._positions)
        if pair is not self._cut_rates[0]:
            self._cut_rates = (pair, [(pair[0][rows], pair[1][rows]) for rows, _ in self._rules])
        return self._cut_rates[1]

    def _look_at_weights(self) -> None:
        if not self._weights.finite() and (bad := self._weights.not_finite()):
            self._diverge(bad, self.step)

    def _diverge(self, slots: list[int], step: int) -> None:
        """End the runs in `slots`, with one last row measured with the weights as they are."""
        self._row(step, [self._positions[slot] for slot in slots])
        self._finish(slots, step)

    def _finish(self, slots: list[int], diverged_step: int | None) -> None:
        """Make the outcomes of runs that get no more updates."""
        test = self._evaluate("test") if "test" in self._workload.splits else {}
        for slot in slots:
            position = self._positions[slot]
            run, rows = self.runs[position], self._recorder.rows(position)
            step = diverged_step
            if step is None:
                step = finite_divergence(rows["step"], rows["train_loss"])
            self._outcomes.append(
                RunResult(
                    run_id=run.run_id,
                    status="ok" if step is None else "diverged",
                    diverged_step=step,
                    steps=self.step,
                    history=rows,
                    test={f"test_{name}": values[position] for name, values in test.items()},
                    weights_hash=self._hashes[run.seed][0],
                    batches_hash=self._hashes[run.seed][1],
                )
            )
        if diverged_step is not None:
            self._dead = sorted({*self._dead, *slots})
            self._index()
            self._weights.clear(self._dead_index)

    def end(self) -> None:
        """The outcomes of the runs that made all updates."""
        if alive := self._alive():
            self._finish(alive, None)

    def _alive(self) -> list[int]:
        return [slot for slot in range(len(self._positions)) if slot not in self._dead]

    def _index(self) -> None:
        self._dead_index = torch.tensor(self._dead, dtype=torch.long, device=self._workload.device)
        self._position_index = torch.tensor(self._positions, dtype=torch.long, device=self._workload.device)

    def _end_rows(self, step: int) -> None:
        """Where a row is due: write it, end the runs whose losses in it are not finite, tell the plateaus."""
        if step > 0:
            if not self._workload.is_row(step):
                return
            self._row(step, [self._positions[slot] for slot in self._alive()])
            self._recorder.restart()
        bad = []
        for slot in self._alive():
            position = self._positions[slot]
            losses = [self._recorder.last(column, position) for column in ("train_loss", "val_loss")]
            if not all(math.isfinite(loss) for loss in losses):
                bad.append(slot)
            elif step > 0:
                self._rates.observe(position, self._recorder, step)
        if bad:
            self._finish(bad, step)

    def _row(self, step: int, positions: Sequence[int]) -> None:
        val = self._evaluate("val")
        chosen = {name: [values[position] for position in positions] for name, values in val.items()}
        lr_now = [self._rates.last[position] for position in positions]
        self._recorder.row(step, lr_now, chosen, members=positions)

    @torch.no_grad()
    def _evaluate(self, split: str) -> dict[str, list[float]]:
        """Per-example means over a whole split, an entry per run of the group (nan for those that have left)."""
        workload, seed = self._workload, self._seeds[0]
        means = MeanMetrics(("loss", *workload.metric_names), len(self._positions), workload.device)
        workload.seed_step(seed, self.step)
        for batch, size in workload.eval_batches(split, seed, self.step):
            result = self._stepper.evaluate(self._weights.params, self._non_trainable, batch)
            means.add({"loss": result.losses, **result.metrics}, weight=size)
        found = means.values(workload.finalize)
        spread = {name: [math.nan] * len(self.runs) for name in found}
        for name, values in found.items():
            for position, value in zip(self._positions, values, strict=True):
                spread[name][position] = value
        return spread

    def _compact(self) -> None:
        if self._dead and len(self._dead) >= COMPACT_SHARE * len(self._positions) and not self.done:
            self._keep(self._alive())

    def _keep(self, slots: list[int]) -> None:
        """Go on with these rows of the tensors only."""
        index = torch.tensor(slots, dtype=torch.long, device=self._workload.device)
        self._weights = Weights([param[index] for param in self._weights.params])
        self._non_trainable = [value[index] for value in self._non_trainable]
        kept, low = [], 0
        for rows, rule in self._rules:
            inside = [slot - rows.start for slot in slots if rows.start <= slot < rows.stop]
            if inside:
                rule.keep(torch.tensor(inside, dtype=torch.long, device=self._workload.device))
                kept.append((slice(low, low + len(inside)), rule))
                low += len(inside)
        self._rules = kept
        self._positions, self._dead = [self._positions[slot] for slot in slots], []
        self._seeds = list(dict.fromkeys(self.runs[position].seed for position in self._positions))
        self._index_seeds()
        self._cut()
        self._index()

    def parameters(self, run_id: str) -> dict[str, Tensor]:
        """The trainable weights of a run that is still in the tensors, by name."""
        slot = self._positions.index(self.run_ids.index(run_id))
        return {name: value[slot] for name, value in zip(self._stepper.trainable, self._weights.params, strict=True)}

    def state(self) -> dict[str, Any]:
        """A copy of all that the next update depends on (random numbers follow from the seed and the step)."""
        return {
            "run_id": "",
            "runs": list(self.run_ids),
            "step": self.step,
            "positions": list(self._positions),
            "dead": list(self._dead),
            "params": [param.clone() for param in self._weights.params],
            "fixed": [value.clone() for value in self._non_trainable],
            "rules": [rule.state() for _, rule in self._rules],
            "rates": self._rates.state(),
            "recorder": self._recorder.state(),
            "outcomes": [asdict(outcome) for outcome in self._outcomes],
        }

    @torch.no_grad()
    def restore(self, state: Mapping[str, Any]) -> None:
        """Continue from a `state()` to the bit; the outcomes made before it are told again."""
        if len(state["positions"]) < len(self.runs):
            self._keep(list(state["positions"]))
        self.step, self._dead = int(state["step"]), list(state["dead"])
        self._index()
        saved_values = (*state["params"], *state["fixed"])
        for value, saved in zip((*self._weights.params, *self._non_trainable), saved_values, strict=True):
            value.copy_(saved)
        for (_, rule), saved in zip(self._rules, state["rules"], strict=True):
            rule.restore(saved)
        self._rates.restore(state["rates"])
        self._recorder.restore(state["recorder"])
        self._outcomes = [RunResult(**outcome) for outcome in state["outcomes"]]


def _columns(rows: Sequence[Mapping[str, float]]) -> dict[str, list[float]]:
    return {name: [row[name] for row in rows] for name in rows[0]}


@torch.no_grad()
def _clipped(grads: Sequence[Tensor], max_norm: float) -> list[Tensor]:
    """`torch.nn.utils.clip_grad_norm_` for each run over all its parameters.

    Not in place: two parameters that are added have one gradient, and one that is summed has one number for all.
    """
    norms = torch.stack([torch.linalg.vector_norm(grad.unsqueeze(-1).flatten(1), dim=1) for grad in grads])
    scale = (max_norm / (torch.linalg.vector_norm(norms, dim=0) + 1e-6)).clamp(max=1.0)
    return [grad * scale.view(-1, *[1] * (grad.ndim - 1)) for grad in grads]


class Rates:
    """The learning rate of each run at each update: its own rate, times its schedule, times its plateau."""

    def __init__(self, runs: Sequence[Run], workload: Workload) -> None:
        distinct: dict[str, int] = {}
        table: list[schedules.Floats] = []
        for run in runs:
            if repr(run.setting.schedule) not in distinct:
                distinct[repr(run.setting.schedule)] = len(table)
                table.append(
                    schedules.factors(run.setting.schedule, workload.total_steps, workload.workload_spec.base_dir)
                )
        self._factors = np.stack(table)
        self._which = np.array([distinct[repr(run.setting.schedule)] for run in runs])
        self._lr = np.array([run.lr for run in runs], dtype=np.float64)
        self._plateaus = [schedules.plateau_of(run.setting.schedule, workload.total_steps) for run in runs]
        self._has_plateaus = any(plateau is not None for plateau in self._plateaus)
        self._constant = not self._has_plateaus and bool((self._factors == self._factors[:, :1]).all())
        self._like: dict[str, Any] = {"dtype": workload.dtype, "device": workload.device}
        self._kept: tuple[int, tuple[Tensor, Tensor]] | None = None
        self.last: list[float] = (self._lr * self._factors[self._which, 0]).tolist()

    def at(self, step: int, positions: Sequence[int]) -> tuple[Tensor, Tensor]:
        """Rates and factors [K] of update `step` for the runs at `positions`; `last` then holds the rates of all."""
        if self._constant and self._kept is not None and self._kept[0] == len(positions):
            return self._kept[1]
        factor = self._factors[self._which, step]
        if self._has_plateaus:
            factor = factor * np.array([1.0 if plateau is None else plateau.factor for plateau in self._plateaus])
        lr = self._lr * factor
        self.last = lr.tolist()
        pair = tuple(torch.from_numpy(values[list(positions)]).to(**self._like) for values in (lr, factor))
        self._kept = (len(positions), (pair[0], pair[1]))  # runs only ever leave, so their number tells them apart
        return self._kept[1]

    def observe(self, position: int, recorder: Recorder, step: int) -> None:
        """Show the run's plateau, if it has one, the row that was just written."""
        plateau = self._plateaus[position]
        if plateau is not None:
            plateau.observe(recorder.last(plateau.metric, position), step)

    def state(self) -> dict[str, Any]:
        return {"last": list(self.last), "plateaus": [None if p is None else p.state() for p in self._plateaus]}

    def restore(self, state: Mapping[str, Any]) -> None:
        self.last, self._kept = list(state["last"]), None
        for plateau, saved in zip(self._plateaus, state["plateaus"], strict=True):
            if plateau is not None:
                plateau.restore(saved)
