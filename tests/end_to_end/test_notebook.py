"""What a user of a notebook does, in a real kernel: sweeps of code from cells, plots, mistakes, the stop button.

Needs `pip install ".[notebook-test]"`.
"""

from __future__ import annotations

import os
import queue
import re
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

pytest.importorskip("ipykernel")
nbformat = pytest.importorskip("nbformat")
nbclient = pytest.importorskip("nbclient")

pytestmark = [pytest.mark.slow, pytest.mark.network]  # sockets of this machine alone, to the kernel

ROOT = Path(__file__).parents[2]
EXAMPLE = ROOT / "configs" / "own" / "notebook.ipynb"

CODE = """
import torch, lrsweep
from torch import nn
from lrsweep import Task
X = torch.linspace(-2, 2, 800).reshape(200, 4).sin()
Y = (X.sum(1) > 0).long()

class Net(nn.Module):
    def __init__(self, width=8):
        super().__init__()
        self.a, self.b = nn.Linear(4, width), nn.Linear(width, 2)

    def forward(self, x):
        return self.b(torch.tanh(self.a(x)))

class Plain(torch.optim.Optimizer):
    def __init__(self, params, lr=0.1):
        super().__init__(params, {"lr": lr})

    @torch.no_grad()
    def step(self):
        for group in self.param_groups:
            for p in group["params"]:
                p -= group["lr"] * p.grad

def task(n=150):
    return Task(train=(X[:n], Y[:n]), val=(X[n:], Y[n:]), model=Net, loss=nn.functional.cross_entropy)

def spec(name, **more):
    found = {"name": name, "task": task, "lr": [0.01, 0.1, 1.0], "optimizers": ["sgd", Plain], "seeds": 2}
    return {**found, "train": {"epochs": 3}, **more}
"""


def environment() -> dict[str, str]:
    """Of the kernel: as a user has it, who runs no pytest. (Within pytest ipykernel does not read its descriptors.)"""
    found = {name: value for name, value in os.environ.items() if name != "PYTEST_CURRENT_TEST"}
    return found | {"PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])}


def executed(notebook: Any, folder: Path) -> Any:
    """The outputs of its cells of code."""
    client = nbclient.NotebookClient(notebook, timeout=300, allow_errors=True, resources={"metadata": {"path": folder}})
    client.execute(env=environment())
    return [cell.outputs for cell in notebook.cells if cell.cell_type == "code"]


def run(folder: Path, *cells: str) -> Any:
    return executed(nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(text) for text in cells]), folder)


def plain(output: Any) -> str:
    return str(output.text if output.output_type == "stream" else output.data["text/plain"])


def test_the_example_runs_and_shows_what_it_was_published_with(tmp_path: Path) -> None:
    example = nbformat.read(EXAMPLE, as_version=4)
    published = [[dict(output) for output in cell.outputs] for cell in example.cells if cell.cell_type == "code"]
    outputs = executed(example, tmp_path)
    assert [[one.output_type for one in cell] for cell in outputs] == [
        [one["output_type"] for one in cell] for cell in published
    ]
    (first,), (shown,), (more,), (wrong,) = outputs[3], outputs[4], outputs[8], outputs[-1]
    assert plain(first).startswith("notebook: 42 runs in 2 groups on cpu")
    assert plain(first).splitlines()[-1].startswith("42/42 runs, 3 diverged, ")
    assert "12 runs in 2 groups on cpu (2 processes); 42 of 54 done before" in plain(more)
    assert "Use adam at lr 0.01" in shown.data["text/html"]
    assert "Use adam at lr 0.01" in published[4][0]["data"]["text/html"]
    assert "data:image/png;base64," in shown.data["text/html"]
    assert "image/png" in outputs[6][0].data
    assert "\n".join(wrong.traceback).count("\n") < 4
    assert "did you mean train?" in wrong.evalue
    assert EXAMPLE.stat().st_size < 200_000


def test_what_lies_about_in_a_notebook_does_not_keep_runs_from_training_together(tmp_path: Path) -> None:
    around = (
        "import pandas as pd; frame = pd.DataFrame({'a': [1.0]}); file = open('/dev/null'); figure = first.u_curve()"
    )
    _, _, (output,), (count,) = run(
        tmp_path, CODE, "first = lrsweep.run(spec('one'))", f"{around}\nsecond = lrsweep.run(spec('two'))",
        "len(second.runs)",
    )  # fmt: skip
    assert plain(output).splitlines()[0] == "two: 12 runs in 2 groups on cpu (2 processes); 0 of 12 done before"
    assert "one at a time" not in plain(output)
    assert plain(count) == "12"


def test_a_figure_is_shown_without_pyplot_and_is_not_left_to_it(tmp_path: Path) -> None:
    outputs = run(
        tmp_path, CODE, "results = lrsweep.run(spec('plots'), progress='none')", "results.u_curve()",
        "import matplotlib.pyplot as plt; plt.get_fignums()", "results.u_curve()",
    )  # fmt: skip
    for cell in (outputs[2], outputs[4]):
        assert [set(output.data) for output in cell] == [{"image/png", "text/plain"}]
    assert plain(outputs[3][0]) == "[]"


def test_what_the_users_code_prints_comes_in_whole_lines(tmp_path: Path) -> None:
    talking = """
class Talking(Net):
    def forward(self, x):
        print("one", len(x), "line")
        return super().forward(x) + 0 * float(x.sum())

results = lrsweep.run(spec("talking", model=Talking, seeds=1, train={"epochs": 1, "batch_size": 150}))
"""
    _, outputs = run(tmp_path, CODE, talking)
    printed = "".join(plain(one) for one in outputs if one.output_type == "stream")
    assert len(printed.splitlines()) >= 12
    assert all(re.fullmatch(r"one \d+ line", line) for line in printed.splitlines()), printed
    (bar,) = (one for one in outputs if one.output_type == "display_data")
    assert plain(bar).splitlines()[-1].startswith("6/6 runs, 0 diverged")


def test_a_mistake_in_a_cell_is_told_with_its_cell_and_line(tmp_path: Path) -> None:
    wrong_task = "def wrong():\n    return {}['x']\n\nlrsweep.run(spec('wrong', task=wrong))"
    wrong_step = (
        "class Wrong(Plain):\n    def step(self):\n        self.group\n\nlrsweep.run(spec('step', optimizers=[Wrong]))"
    )
    _, (in_task,), (progress, shown) = run(tmp_path, CODE, wrong_task, wrong_step)
    cell = r"\((Cell In\[\d\]|cell):"
    assert re.fullmatch(rf"UsageError: task: task wrong: KeyError: 'x' {cell}2 in wrong\)", in_task.traceback[-1])
    assert len("\n".join(in_task.traceback).splitlines()) == 3
    assert "6 of 6 runs failed, the first with AttributeError" in plain(progress)
    assert re.search(rf"{cell}3 in step\)", shown.data["text/html"])


def test_a_sweep_runs_from_a_thread_and_beside_the_loop_of_asyncio(tmp_path: Path) -> None:
    thread = """
import threading
found = []
thread = threading.Thread(target=lambda: found.append(lrsweep.run(spec("thread"))))
thread.start(); thread.join()
len(found[0].runs)
"""
    loop = "import asyncio\nlen((await asyncio.to_thread(lrsweep.run, spec('loop'))).runs)"
    within = "async def sweep():\n    return lrsweep.run(spec('within'))\n\nlen((await sweep()).runs)"
    for outputs in run(tmp_path, CODE, thread, loop, within)[1:]:
        bar, count = outputs
        assert plain(bar).splitlines()[-1].startswith("12/12 runs, 0 diverged, ")
        assert plain(count) == "12"


def test_the_stop_button_ends_a_sweep_as_ctrl_c_does(tmp_path: Path) -> None:
    from jupyter_client.manager import start_new_kernel

    manager, client = start_new_kernel(kernel_name="python3", cwd=str(tmp_path), env=environment())

    def execute(code: str, when: Callable[[str], bool] = lambda _: False) -> dict[str, Any]:
        """Run a cell, press stop as soon as `when` holds for what is shown; the error, or nothing."""
        request, error, deadline, pressed = client.execute(code), {}, time.monotonic() + 200, False
        while time.monotonic() < deadline:
            try:
                message = client.get_iopub_msg(timeout=1)
            except queue.Empty:
                continue
            content = message["content"]
            if message["parent_header"].get("msg_id") != request:
                continue
            if message["msg_type"] == "error":
                error = content
            if content.get("execution_state") == "idle":
                return error
            if not pressed and when(content.get("data", {}).get("text/html", "")):
                manager.interrupt_kernel()
                pressed = True
        raise AssertionError("the cell did not end")

    long = "long = spec('long', lr=[0.001 * n for n in range(1, 21)], seeds=4, train={'epochs': 400, 'batch_size': 5})"
    try:
        assert execute(f"{CODE}\n{long}") == {}
        stopped = execute("results = lrsweep.run(long)", lambda html: "<progress" in html)
        assert stopped["ename"] == "StoppedError"
        assert stopped["evalue"].startswith("interrupted: ")
        assert stopped["evalue"].endswith("rerun the command to resume")
        assert len(stopped["traceback"]) == 2
        assert {"runs.csv", "summary.csv"} <= {path.name for path in (tmp_path / "results" / "long").iterdir()}
        assert len(pd.read_csv(tmp_path / "results" / "long" / "runs.csv")) < 160
        assert execute("assert set(lrsweep.run(spec('short')).runs.status) == {'ok'}") == {}
    finally:
        client.stop_channels()
        manager.shutdown_kernel(now=True)
