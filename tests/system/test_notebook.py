"""What is done differently in the kernel of a notebook, tried with the parts of one that are used."""

from __future__ import annotations

import subprocess
import sys
from types import SimpleNamespace
from typing import Any

import pytest

from lrsweep.sweep import progress
from lrsweep.sweep.progress import Start, Update
from lrsweep.system import notebook


class Shell:
    """Of IPython: what shows something, and what names the cells."""

    def __init__(self) -> None:
        self.kernel = object()
        self.shown: list[dict[str, Any]] = []
        self.display_pub = SimpleNamespace(publish=lambda **what: self.shown.append(what))
        names = {"/tmp/ipykernel_1/2.py": ("Cell", "In[2]")}
        self.compile = SimpleNamespace(format_code_name=names.get)

    def texts(self) -> list[str]:
        return [one["data"]["text/plain"] for one in self.shown]


@pytest.fixture
def shell(monkeypatch: pytest.MonkeyPatch) -> Shell:
    found = Shell()
    monkeypatch.setitem(sys.modules, "IPython", SimpleNamespace(get_ipython=lambda: found))  # type: ignore[arg-type]
    monkeypatch.setattr(progress, "NOTEBOOK_SECONDS", 0.0)
    return found


START = Start(
    name="small", folder="results/small", tasks=("blobs: <600> train",), total=12, done_before=4, groups=2, workers=2,
    device="cpu", run_steps=80,
)  # fmt: skip


def update(done: int, steps: int) -> Update:
    return Update(done=done, total=12, diverged=1, failed=0, run_steps=steps, run_steps_total=80)


def test_without_ipython_or_on_its_terminal_there_is_no_notebook(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (None, SimpleNamespace(), SimpleNamespace(get_ipython=lambda: None)):
        monkeypatch.setitem(sys.modules, "IPython", module)  # type: ignore[arg-type]
        assert notebook.shell() is None
    terminal = SimpleNamespace(get_ipython=SimpleNamespace)
    monkeypatch.setitem(sys.modules, "IPython", terminal)  # type: ignore[arg-type]
    assert notebook.shell() is None
    assert notebook.name_of("/tmp/ipykernel_1/2.py") == "2.py"


def test_a_cell_is_called_by_its_number(shell: Shell) -> None:
    assert notebook.name_of("/tmp/ipykernel_1/2.py") == "Cell In[2]"
    assert notebook.name_of("/home/me/mytask.py") == "mytask.py"
    del shell.compile  # of IPython 7, which Colab had for long
    assert notebook.name_of("/tmp/ipykernel_1/2.py") == "cell"
    assert notebook.name_of("/home/me/mytask.py") == "mytask.py"


@pytest.mark.parametrize("style", ["auto", "rich"])
def test_a_sweep_is_one_output_that_ends_without_its_bar(shell: Shell, style: str) -> None:
    with progress.reporter(style) as reporter:
        reporter.note("a note")
        reporter.start(START)
        reporter.update(update(4, 0))
        reporter.update(update(8, 40))
        reporter.note("another")
        reporter.update(update(12, 80))
    assert [one["update"] for one in shell.shown] == [False] + [True] * (len(shell.shown) - 1)
    assert len({one["transient"]["display_id"] for one in shell.shown}) == 1
    head = ["a note", "small: 8 runs in 2 groups on cpu (2 processes); 4 of 12 done before", "blobs: <600> train"]
    assert shell.texts()[1].splitlines() == head
    assert any("8/12 runs, 1 diverged" in text and text.endswith("left (50%)") for text in shell.texts())
    assert ["<progress" in one["data"]["text/html"] for one in shell.shown][2:] == [True] * (len(shell.shown) - 3) + [
        False
    ]
    assert all("&lt;600&gt;" in one["data"]["text/html"] for one in shell.shown[1:])
    lines = shell.texts()[-1].splitlines()
    assert lines[:4] == [*head, "another"]
    assert lines[4:] == ["12/12 runs, 1 diverged, 0 s of training"]


def test_the_bar_is_full_only_after_the_last_run(shell: Shell) -> None:
    with progress.reporter("auto") as reporter:
        reporter.update(update(11, 80))
        assert shell.texts()[-1].endswith("(99%)")
        reporter.update(update(12, 80))
        assert shell.texts()[-1].endswith("(100%)")


def test_what_changes_nothing_is_not_sent_again(shell: Shell) -> None:
    output = notebook.CellOutput(shell)
    for _ in range(3):
        output.show(["one line"])
    assert len(shell.shown) == 1


COPY = """
import sys
from types import SimpleNamespace
from lrsweep.system import child, notebook

class Torn:
    def write(self, text):
        raise AssertionError("the stream of the kernel was used in a copy")
    flush = lambda self: None

shell = SimpleNamespace(kernel=object())
sys.modules["IPython"] = SimpleNamespace(get_ipython=lambda: shell)
kernels = sys.stdout, sys.stderr = Torn(), Torn()

def talk():
    print("one", "line")
    print("and one", file=sys.stderr)
    return 3

assert child.call(talk) == 3
assert (sys.stdout, sys.stderr) == kernels
"""


def test_a_copy_of_a_kernel_prints_whole_lines_by_its_descriptors() -> None:
    done = subprocess.run([sys.executable, "-c", COPY], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, ""), done.stderr
    assert sorted(done.stderr.splitlines()) == ["and one", "one line"]
