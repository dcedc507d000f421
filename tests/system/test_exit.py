"""The end of a command: quick, but nothing that was meant to happen at the end is left out."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

TEARDOWN = """
import sys
class Torch:
    def __del__(self):
        sys.stderr.write("taken apart")
held = Torch()
"""


def leaving(before: str, code: int = 0, stdout: str = "") -> subprocess.CompletedProcess[str]:
    """A process that runs `before` and leaves with `code`."""
    command = (
        f"{before}\nfrom lrsweep.system.process import exit_without_teardown\n"
        f"print('said', end='')\nexit_without_teardown({code})"
    )
    shell = 'exec "$0" -c "$1"' + (f" > {stdout}" if stdout else "")
    line = ["sh", "-c", shell, sys.executable, command]
    env = {name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"}
    return subprocess.run(line, capture_output=True, text=True, timeout=120, env=env, check=False)


@pytest.mark.parametrize("code", [0, 4, 143])
def test_the_code_and_the_output_arrive_and_nothing_is_taken_apart(code: int) -> None:
    ran = leaving(TEARDOWN, code)
    assert (ran.returncode, ran.stdout, ran.stderr) == (code, "said", "")


def test_what_was_registered_for_the_end_happens() -> None:
    ran = leaving("import atexit\natexit.register(print, ' and registered', end='')")
    assert (ran.returncode, ran.stdout) == (0, "said and registered")


def test_a_file_that_the_users_code_left_open_is_written(tmp_path: Path) -> None:
    (tmp_path / "task.py").write_text("kept = open('kept.txt', 'w')\nkept.write('theirs')\ndef make(): ...\n")
    ran = leaving(
        f"import os\nos.chdir({str(tmp_path)!r})\n"
        "from lrsweep.user_imports import resolve\nresolve('task.py:make', '.')"
    )
    assert ran.returncode == 0, ran.stderr
    assert (tmp_path / "kept.txt").read_text() == "theirs"


def test_a_thread_is_waited_for() -> None:
    thread = "def work():\n    time.sleep(0.3)\n    print(' and worked', end='')\n"
    ran = leaving(f"import threading, time\n{thread}threading.Thread(target=work).start()", 3)
    assert (ran.returncode, ran.stdout) == (3, "said and worked")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full here")
def test_an_output_that_cannot_be_written_is_told() -> None:
    ran = leaving("", 0, stdout="/dev/full")
    assert ran.returncode != 0
    assert "No space left" in ran.stderr
