"""What becomes of groups that go wrong, and the worker processes themselves."""

from __future__ import annotations

import math
import os
import signal
import sys
import time
from collections import Counter, deque
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from lrsweep.errors import StoppedError, StorageError, UsageError
from lrsweep.run_result import RunResult
from lrsweep.store import checkpoints, journal
from lrsweep.store.journal import Checkpoint, Group, Journal
from lrsweep.sweep import pending
from lrsweep.sweep.progress import Notes, Silent
from lrsweep.sweep.supervisor import LOSSES, TRIES, Supervisor
from lrsweep.system import child
from lrsweep.workers import worker
from lrsweep.workers.executors import Take
from lrsweep.workers.local import Local
from lrsweep.workers.messages import (
    AuditFailed,
    Died,
    Ended,
    Job,
    Left,
    Lost,
    Message,
    OutOfMemory,
    Quiet,
    Raised,
    Saved,
    Taken,
    Ticked,
    Trained,
    Unwritable,
    WorkerConfig,
)

Behaviour = Callable[[Job], list[Message]]


def job(*names: str, engine: str = "stacked", steps: int = 10) -> Job:
    recipe = SimpleNamespace(key="k", train={"dtype": "float64"}, task={"name": "blobs"}, model=None, base_dir=".")
    runs: Any = tuple(
        SimpleNamespace(run_id=name, workload_spec=recipe, label="sgd", lr=0.1, seed=0, built_in=False)
        for name in names
    )
    return Job(group=Group(engine=engine, runs=names), runs=runs, run_steps=steps * len(names))


def ok(job: Job) -> list[Message]:
    return [*(Trained(RunResult(run_id=run.run_id, status="ok", steps=3)) for run in job.runs), Ended()]


def with_losses(job: Job, losses: dict[str, float]) -> list[Message]:
    """Outcomes whose untrained losses are given, by run; 1.0 for the others."""
    outcomes = (
        RunResult(
            run_id=run.run_id,
            status="ok",
            steps=3,
            history={"step": [0], "epoch": [0.0], "train_loss": [losses.get(run.run_id, 1.0)], "val_loss": [2.0]},
        )
        for run in job.runs
    )
    return [*map(Trained, outcomes), Ended(audits=2)]


def failed(job: Job) -> list[Message]:
    outcomes = (RunResult(run_id=run.run_id, status="failed", error="KeyError: 'x'") for run in job.runs)
    return [*map(Trained, outcomes), Ended()]


class Scripted:
    """An executor in which every job behaves as the test says."""

    def __init__(self, behave: Behaviour) -> None:
        self._behave = behave
        self.jobs: list[Job] = []

    def start(self) -> None: ...

    def stop(self) -> None: ...

    def close(self) -> None: ...

    def run(self, queue: deque[Job], take: Take) -> None:
        while queue:
            job = queue.popleft()
            self.jobs.append(job)
            take([(job, message) for message in self._behave(job)])


def train(
    folder: Path, behave: Behaviour, *jobs: Job, before: Job | None = None
) -> tuple[journal.Replay, Scripted, Silent, Supervisor]:
    """`before`: what an earlier command has trained of the same plan."""
    runs = {run.run_id: run for one in (*jobs, *filter(None, [before])) for run in one.runs}
    writer, reporter, executor = Journal(folder), Silent(), Scripted(behave)
    training = Supervisor(folder=folder, writer=writer, replay=journal.replay(folder), notes=Notes(reporter), runs=runs)
    try:
        training.run(jobs, executor, lambda: False, lambda: None)
    finally:
        writer.close()
    return journal.replay(folder), executor, reporter, training


def statuses(replay: journal.Replay) -> dict[str, str]:
    return {run: entry.status for run, entry in sorted(replay.entries.items())}


def test_outcomes_reach_the_journal(tmp_path: Path) -> None:
    found, _, _, training = train(tmp_path, ok, job("a", "b"), job("c"))
    assert statuses(found) == {"a": "ok", "b": "ok", "c": "ok"}
    update = training.counts.update()
    assert (update.done, update.total, update.run_steps, update.run_steps_total) == (3, 3, 30, 30)


@pytest.mark.parametrize("names", ["abcdefgh", "abcde", "e", "ae"])
def test_a_run_that_kills_its_worker_is_cornered(tmp_path: Path, names: str) -> None:
    def behave(job: Job) -> list[Message]:
        return [Died("gone")] if any(run.run_id == "e" for run in job.runs) else ok(job)

    found, executor, reporter, _ = train(tmp_path, behave, job(*names))
    assert statuses(found) == {name: "failed" if name == "e" else "ok" for name in names}
    assert found.outcome("e").error == "gone"
    assert found.entries["e"].worker_died
    tried = Counter(one.group.id for one in executor.jobs)
    assert max(tried.values()) == TRIES
    assert sum(count == TRIES for count in tried.values()) == 1  # the halves are tried once each
    assert len(executor.jobs) <= TRIES + 2 * math.ceil(math.log2(len(names)) if len(names) > 1 else 0) + 1
    assert [one.group.engine for one in executor.jobs if {run.run_id for run in one.runs} == {"e"}][-1] == "single"
    assert reporter.notes


def test_a_worker_that_dies_once_costs_nothing(tmp_path: Path) -> None:
    saved = Checkpoint(file="g-1.pt", sha256="0")
    seen: list[Job] = []

    def behave(job: Job) -> list[Message]:
        seen.append(job)
        return [Saved(saved), Ticked(5), Died("gone")] if len(seen) == 1 else ok(job)

    found, _, _, training = train(tmp_path, behave, job("a", "b"))
    assert statuses(found) == {"a": "ok", "b": "ok"}
    assert [one.resume for one in seen] == [None, saved]
    assert seen[0].group == seen[1].group
    assert training.counts.update().run_steps == 20


def test_a_machine_that_is_lost_is_not_held_against_the_group(tmp_path: Path) -> None:
    saved = Checkpoint(file="g-1.pt", sha256="0")
    seen: list[Job] = []

    def behave(job: Job) -> list[Message]:
        seen.append(job)
        if len(seen) == 1:
            return [Saved(saved), Ticked(5), Lost("the machine is gone")]
        return [Lost("the machine is gone")] if len(seen) <= LOSSES else ok(job)

    found, _, reporter, training = train(tmp_path, behave, job("a", "b"))
    assert statuses(found) == {"a": "ok", "b": "ok"}
    assert [one.resume for one in seen] == [None, *[saved] * LOSSES]
    assert len({one.group.id for one in seen}) == 1
    (note,) = reporter.notes
    assert note.startswith("the machine is gone; what it trained is trained elsewhere")
    assert training.counts.update().run_steps == 20


def test_a_group_that_loses_every_machine_is_given_up_in_the_end(tmp_path: Path) -> None:
    found, executor, _, _ = train(tmp_path, lambda job: [Lost("the machine is gone")], job("a"))
    assert statuses(found) == {"a": "failed"}
    assert found.outcome("a").error == "the machine is gone"
    assert len(executor.jobs) == LOSSES + TRIES + LOSSES + 1  # at last in plain torch


def test_groups_that_fell_with_their_workers_are_tried_again_as_groups(tmp_path: Path) -> None:
    """They then come out as in a sweep whose workers lived. What killed a worker by itself is tried alone."""
    jobs = [job("a"), job("b"), job("c"), job("p", "q", "r"), job("s", "t")]

    def behave(job: Job) -> list[Message]:
        return failed(job) if job.runs[0].run_id == "s" else [Died("gone")]

    for run in jobs[-1].runs:
        run.workload_spec.key = "another"
    writer = Journal(tmp_path)
    writer.append([journal.groups_record(one.group for one in jobs)])
    writer.close()
    found, _, _, _ = train(tmp_path, behave, *jobs)
    assert set(statuses(found).values()) == {"failed"}
    plan: Any = SimpleNamespace(runs=tuple(run for one in jobs for run in one.runs))
    retried = [(one.group.engine, "".join(one.group.runs)) for one in pending.pending(plan, found).retry]
    assert sorted(retried) == [
        ("single", "a"),
        ("single", "b"),
        ("single", "c"),
        ("stacked", "pqr"),
        ("stacked", "s"),
        ("stacked", "t"),
    ]


def test_runs_that_all_end_their_workers_are_not_tried_to_the_last(tmp_path: Path) -> None:
    jobs = [replace(job(name), made_at="task.py:3 in make") for name in "abcdefgh"]
    found, executor, reporter, training = train(tmp_path, lambda job: [Died("gone")], *jobs)
    assert statuses(found) == dict.fromkeys("abcdefgh", "failed")
    assert [one.runs[0].run_id for one in executor.jobs] == [name for name in "abc" for _ in range(TRIES + 1)]
    made = "gone; its task was made at task.py:3 in make"
    assert [found.outcome(name).error for name in "cd"] == [
        made,
        f"{made}; not tried: the first 3 runs ended like this",
    ]
    assert any(note.endswith("not tried: 5 runs of the same task and settings") for note in reporter.notes)
    update = training.counts.update()
    assert (update.done, update.failed, update.run_steps) == (8, 8, update.run_steps_total)


def test_one_run_that_was_trained_has_all_others_tried(tmp_path: Path) -> None:
    def behave(job: Job) -> list[Message]:
        return ok(job) if job.runs[0].run_id == "c" else [Died("gone")]

    found, executor, _, _ = train(tmp_path, behave, *map(job, "abcdefg"))
    assert {one.runs[0].run_id for one in executor.jobs} == set("abcdefg")
    assert {found.outcome(name).error for name in "abdefg"} == {"gone"}


def test_one_run_that_an_earlier_command_trained_has_all_others_tried(tmp_path: Path) -> None:
    train(tmp_path, ok, job("a"))
    found, executor, _, _ = train(tmp_path, lambda job: [Died("gone")], *map(job, "bcdefg"), before=job("a"))
    assert {one.runs[0].run_id for one in executor.jobs} == set("bcdefg")
    assert {found.outcome(name).error for name in "bcdefg"} == {"gone"}


def test_out_of_memory_halves_the_group(tmp_path: Path) -> None:
    def behave(job: Job) -> list[Message]:
        return [OutOfMemory("OutOfMemoryError: too big")] if len(job.runs) > 3 else ok(job)

    found, executor, _, _ = train(tmp_path, behave, job(*"abcdefghij"))
    assert set(statuses(found).values()) == {"ok"}
    assert [len(one.runs) for one in executor.jobs] == [10, 5, 5, 2, 3, 2, 3]
    assert {group.runs for group in found.groups.values()} == {
        tuple(text) for text in ("abcde", "fghij", "ab", "cde", "fg", "hij")
    }


def test_out_of_memory_alone_fails_that_run(tmp_path: Path) -> None:
    def behave(job: Job) -> list[Message]:
        return [OutOfMemory("OutOfMemoryError: too big")] if "b" in job.group.runs else ok(job)

    found, _, _, _ = train(tmp_path, behave, job(*"abcd"))
    assert statuses(found) == {"a": "ok", "b": "failed", "c": "ok", "d": "ok"}
    assert found.outcome("b").error == "OutOfMemoryError: too big"


def test_an_engine_that_raises_leaves_the_runs_to_train_alone(tmp_path: Path) -> None:
    def behave(job: Job) -> list[Message]:
        raises = job.group.engine == "stacked" or "b" in job.group.runs
        return [Raised("KeyError: 'x'\n" + "so " * 1000)] if raises else ok(job)

    found, executor, reporter, _ = train(tmp_path, behave, job(*"abc"))
    assert statuses(found) == {"a": "ok", "b": "failed", "c": "ok"}
    assert [one.group.engine for one in executor.jobs] == ["stacked", "single", "single", "single"]
    assert str(found.outcome("b").error).startswith("KeyError: 'x'\nso so")
    (note,) = reporter.notes
    assert note.startswith("at least 3 runs trained one at a time: an error in training them together: KeyError: 'x' ")
    assert len(note) < 400
    assert all(str(found.groups[found.entries[run].group].reason) in note for run in "abc")


def test_an_optimizer_that_raises_together_is_told_from_its_neighbours(tmp_path: Path) -> None:
    """What it has left in its worker reaches nobody."""

    def behave(job: Job) -> list[Message]:
        raises = job.group.engine == "stacked" and any(run.label == "c" for run in job.runs)
        return [Raised("KeyError: 'x'")] if raises else ok(job)

    mixed = job(*"abcd")
    for run in mixed.runs:
        run.label = run.run_id
    found, executor, reporter, _ = train(tmp_path, behave, mixed)
    assert set(statuses(found).values()) == {"ok"}
    groups = [("".join(one.group.runs), one.group.engine, one.unused_worker) for one in executor.jobs]
    assert groups == [
        ("abcd", "stacked", False),
        ("ab", "stacked", True),
        ("cd", "stacked", True),
        ("c", "stacked", True),
        ("d", "stacked", True),
        ("c", "single", True),
    ]
    assert [note.partition(" trained")[0] for note in reporter.notes] == ["at least 1 run"]


def test_what_is_left_of_a_group_that_raised_goes_to_workers_that_have_trained_nothing(tmp_path: Path) -> None:
    """What the class of an optimizer kept until then must not reach it."""

    def behave(job: Job) -> list[Message]:
        return [*with_losses(job, {})[:1], Raised("KeyError: 'x'")] if job.group.engine == "stacked" else ok(job)

    _, executor, _, _ = train(tmp_path, behave, job(*"abc"))
    assert [(one.group.runs, one.unused_worker) for one in executor.jobs] == [
        (("a", "b", "c"), False),
        (("b",), True),
        (("c",), True),
    ]


@pytest.mark.parametrize("fails", [False, True])
def test_why_a_resumed_sweep_trains_one_at_a_time_is_said_unless_all_fails(tmp_path: Path, fails: bool) -> None:
    reason = "an error in training them together: KeyError: 'x'"
    jobs = [
        replace(one, group=replace(one.group, reason=reason, raised=True))
        for one in (job("a", engine="single"), job("b"))
    ]
    _, _, reporter, _ = train(tmp_path, lambda job: failed(job) if fails else ok(job), *jobs)
    assert reporter.notes == ([] if fails else [f"at least 2 runs trained one at a time: {reason}"])


def test_a_failed_audit_throws_away_all_that_was_trained_together(tmp_path: Path) -> None:
    def behave(job: Job) -> list[Message]:
        if job.group.engine == "single":
            return with_losses(job, {})
        return with_losses(job, {}) if job.group.runs == ("a", "b") else [AuditFailed("step 7: loss is 1 and 2")]

    found, executor, reporter, training = train(tmp_path, behave, job("a", "b"), job("c"), job("d"))
    assert [one.group.engine for one in executor.jobs] == ["stacked", "stacked", *["single"] * 4]
    assert sorted(found.entries) == ["a", "b", "c", "d"]
    assert {found.groups[entry.group].engine for entry in found.entries.values()} == {"single"}
    assert "step 7" in found.distrusted["k", None]
    assert training.counts.done == 4
    assert training.audits.failed == ["step 7: loss is 1 and 2"]
    assert sum("an audit failed at step 7" in note for note in reporter.notes) == 1


def test_only_the_runs_of_an_optimizer_are_thrown_away_for_what_its_class_keeps(tmp_path: Path) -> None:
    other = job("x")
    vars(other.runs[0])["label"] = "adam"

    def behave(job: Job) -> list[Message]:
        together = job.group.engine != "single" and job.runs[0].label == "sgd"
        return [AuditFailed("step 2: sgd keeps state", "sgd")] if together else with_losses(job, {})

    found, _, _, _ = train(tmp_path, behave, other, job("a", "b"))
    alone = {run for run, entry in found.entries.items() if entry.group in found.groups}
    assert alone == {"a", "b"}
    assert found.entries["x"].group == other.group.id


def test_a_group_of_several_optimizers_is_thrown_away_for_any_of_them(tmp_path: Path) -> None:
    mixed = job("x", "y")
    vars(mixed.runs[0])["label"] = "adam"  # not to blame, but in one process with the other

    def behave(job: Job) -> list[Message]:
        if job.group.engine == "single" or job.group.runs == ("x", "y"):
            return with_losses(job, {})
        return [AuditFailed("step 2: sgd keeps state", "sgd")]

    first = job("a", steps=50)  # longer, so trained before the mixed one
    found, executor, _, training = train(tmp_path, behave, first, mixed)
    assert [one.group.engine for one in executor.jobs] == ["stacked", "single", "single", "single"]
    assert sorted(found.entries) == ["a", "x", "y"]
    assert training.trained == 3


def test_a_failed_audit_counts_all_runs_that_were_trained_with_the_one_to_blame(tmp_path: Path) -> None:
    mixed = job(*"abcd")
    for run, label in zip(mixed.runs, ("sgd", "adam", "adam", "lion"), strict=True):
        vars(run)["label"] = label

    def behave(job: Job) -> list[Message]:
        together = job.group.engine != "single"
        return [AuditFailed("step 2: sgd keeps state", "sgd")] if together else with_losses(job, {})

    _, executor, reporter, _ = train(tmp_path, behave, mixed)
    assert [one.group.engine for one in executor.jobs] == ["stacked", *["single"] * 4]
    assert reporter.notes == ["4 runs trained one at a time: an audit failed at step 2: sgd keeps state"]


def test_untrained_losses_are_compared_with_those_of_earlier_commands(tmp_path: Path) -> None:
    train(tmp_path, lambda job: with_losses(job, {}), job("a", engine="single"))

    def behave(job: Job) -> list[Message]:
        return with_losses(job, {"b": 1.5})[1:]  # of the other there is news no more

    _, _, reporter, _ = train(tmp_path, behave, job("a", "b", engine="single"))
    assert sum("untrained losses of seed 0 differ" in note for note in reporter.notes) == 1


def test_untrained_losses_that_differ_mean_state(tmp_path: Path) -> None:
    def behave(job: Job) -> list[Message]:
        return with_losses(job, {} if job.group.engine == "single" else {"c": 1.5})

    found, _, reporter, training = train(tmp_path, behave, job("a", "b"), job("c"))
    assert {found.groups[entry.group].engine for entry in found.entries.values()} == {"single"}
    assert found.outcome("c").history["train_loss"] == [1.0]
    assert len(training.audits.failed) == 1
    assert any("untrained losses of seed 0 differ" in note for note in reporter.notes)


def test_untrained_losses_that_differ_alone_are_told(tmp_path: Path) -> None:
    jobs = [job(name, engine="single") for name in "abc"]
    found, executor, reporter, _ = train(tmp_path, lambda job: with_losses(job, {"b": 1.5}), *jobs)
    assert len(executor.jobs) == 3
    assert found.outcome("b").history["train_loss"] == [1.5]
    assert sum("these results cannot be repeated" in note for note in reporter.notes) == 1


def test_silence_is_told(tmp_path: Path) -> None:
    _, _, reporter, _ = train(tmp_path, lambda job: [Quiet(60.0), *ok(job)], job("a", "b"))
    assert reporter.notes == ["no word for 60 s from the worker that trains sgd, lr 0.1, seed 0 and 1 more run"]


def test_runs_that_are_done_are_not_written_again(tmp_path: Path) -> None:
    train(tmp_path, ok, job("a", "b"))
    before = sum(path.stat().st_size for path in journal.paths(tmp_path))
    found, _, _, training = train(tmp_path, ok, job("a", "b"))
    assert sum(path.stat().st_size for path in journal.paths(tmp_path)) == before
    assert training.trained == 0
    assert statuses(found) == {"a": "ok", "b": "ok"}


def test_a_failed_run_that_succeeds_later_is_ok(tmp_path: Path) -> None:
    train(tmp_path, lambda job: [Raised("flaky")], job("a", engine="single"))
    found, _, _, _ = train(tmp_path, ok, job("a", engine="single"))
    assert statuses(found) == {"a": "ok"}


def test_checkpoints_are_deleted_when_they_are_of_no_use(tmp_path: Path) -> None:
    folder = tmp_path / "checkpoints"
    group = job("a").group.id
    saved = [checkpoints.write(tmp_path, group, {"step": step}) for step in (1, 2)]

    def behave(job: Job) -> list[Message]:
        assert len(list(folder.iterdir())) == 2
        return [*(Saved(checkpoint) for checkpoint in saved), *ok(job)]

    found, _, _, _ = train(tmp_path, behave, job("a"))
    assert list(folder.iterdir()) == []
    assert found.checkpoints[group] == saved[-1]


def test_a_checkpoint_that_cannot_be_written_ends_the_sweep(tmp_path: Path) -> None:
    with pytest.raises(StorageError, match="disk is full"):
        train(tmp_path, lambda job: [Unwritable("the disk is full")], job("a"))


def test_a_checkpoint_comes_back_or_is_refused(tmp_path: Path) -> None:
    state = {"step": 3, "tensors": {"w": torch.tensor([math.nan, 1.0])}, "none": None, "list": [1.5, "x"]}
    checkpoint = checkpoints.write(tmp_path, "g", state)
    path = tmp_path / journal.CHECKPOINTS / checkpoint.file
    back = checkpoints.read(tmp_path, checkpoint)
    assert back is not None
    assert repr(back) == repr(state)
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(bytes(data))
    assert checkpoints.read(tmp_path, checkpoint) is None
    path.unlink()
    assert checkpoints.read(tmp_path, checkpoint) is None


def test_unknown_devices_say_what_to_do() -> None:
    with pytest.raises(UsageError, match="auto, cpu, cuda"):
        worker.device_of("tpu")


# The worker processes. The engine is forked along, so it may live here.


def fake_engine(job: Job, problem: Any, hooks: Any) -> Iterator[RunResult]:
    for run in job.runs:
        if run.run_id == "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        if run.run_id == "leave":
            os._exit(7)
        if run.run_id == "memory":
            raise MemoryError("no")
        if run.run_id == "bug":
            raise KeyError("x")
        if run.run_id == "long":
            hooks.tick(1)
            while not hooks.stopping:
                time.sleep(0.01)
            hooks.save({"step": 1})
            raise StoppedError
        if run.run_id == "print":
            print("from the user's code")
        assert torch.get_num_threads() == 1
        yield RunResult(run_id=run.run_id, status="ok", history={"train_loss": [math.nan]})


@pytest.fixture
def pool(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[int], Local]]:
    if sys.platform != "linux":
        pytest.skip("workers are forked on Linux only")
    monkeypatch.setattr(child, "can_fork", lambda: True)  # whatever threads other tests have left here
    cache = SimpleNamespace(get=lambda workload_spec, device: None)
    monkeypatch.setattr(worker, "workloads", lambda: cache)
    monkeypatch.setitem(worker.ENGINES, "stacked", fake_engine)
    made: list[Local] = []

    def make(count: int) -> Local:
        made.append(
            Local(WorkerConfig(folder=str(tmp_path), device="cpu", parent=os.getpid(), checkpoint_seconds=1.0), count)
        )
        made[-1].start()
        return made[-1]

    yield make
    for one in made:
        one.close()


def collect(pool: Local, *jobs: Job) -> dict[str, list[Any]]:
    found: dict[str, list[Any]] = {one.group.runs[0]: [] for one in jobs}
    for events in pool.events(deque(jobs)):
        for one, message in events:
            if not isinstance(message, Taken | Ticked):
                found[one.group.runs[0]].append(message)
    return found


def test_jobs_go_to_forked_workers_and_outcomes_come_back(pool: Callable[[int], Local]) -> None:
    found = collect(pool(2), *(job(f"{i}", f"{i}'") for i in range(7)))
    assert len(found) == 7
    for name, messages in found.items():
        assert [type(message) for message in messages] == [Trained, Trained, Ended]
        assert [message.outcome.run_id for message in messages[:-1]] == [name, f"{name}'"]
        assert math.isnan(messages[0].outcome.history["train_loss"][0])


def test_every_end_of_a_job_is_told(pool: Callable[[int], Local]) -> None:
    found = collect(pool(1), job("memory"), job("bug"), job("fine"), job("print"))
    assert isinstance(found["memory"][0], OutOfMemory)
    assert found["memory"][0].text.startswith("MemoryError: no")
    assert isinstance(found["bug"][0], Raised)
    assert "KeyError" in found["bug"][0].text
    assert isinstance(found["fine"][-1], Ended)
    assert isinstance(found["print"][-1], Ended)


@pytest.mark.parametrize(("name", "text"), [("kill", "killed by SIGKILL"), ("leave", "exited with code 7")])
def test_a_dead_worker_is_told_with_its_cause(pool: Callable[[int], Local], name: str, text: str) -> None:
    found = collect(pool(2), job(name), job("other"))
    assert isinstance(found[name][-1], Died)
    assert text in found[name][-1].text
    assert isinstance(found["other"][-1], Ended)


def test_stop_lets_workers_save_and_starts_nothing_new(pool: Callable[[int], Local], tmp_path: Path) -> None:
    local = pool(2)
    queue = deque([job("long"), job("long", "b"), job("never")])
    messages: list[Message] = []
    for events in local.events(queue):
        messages += [message for _, message in events if not isinstance(message, Taken | Ticked)]
        local.stop()
    assert Counter(type(message) for message in messages) == {Saved: 2, Left: 2}
    assert len(queue) == 1
    assert len(list((tmp_path / "checkpoints").iterdir())) == 2


def test_close_leaves_no_process(pool: Callable[[int], Local]) -> None:
    local = pool(2)
    next(local.events(deque([job("long")])))
    pids = [one.process.pid for one in local._workers]
    local.close()
    for pid in pids:
        assert pid is not None
        with pytest.raises(ProcessLookupError):
            os.kill(pid, 0)
