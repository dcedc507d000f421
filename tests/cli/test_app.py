"""The command line as a user meets it: exit codes, where messages go, what is imported."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from typer.testing import CliRunner

from lrsweep import plot
from lrsweep.cli.app import app
from tests.support import tables as fabricate

SPEC = """\
task: {name: blobs, n: 120}
lr: [0.01, 0.1]
optimizers: [sgd, adam]
seeds: 2
train: {epochs: 2, batch_size: 32}
"""
COMMANDS = ("run", "submit", "plot", "report", "compare", "check", "status", "range-test", "init", "list", "schema")


def lrsweep(*args: str | Path, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "lrsweep", *map(str, args)]
    return subprocess.run(command, capture_output=True, text=True, cwd=cwd, timeout=300)


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with `tiny.yaml` and its finished sweep in `results/tiny`."""
    folder = tmp_path_factory.mktemp("cli")
    (folder / "tiny.yaml").write_text(SPEC)
    ran = lrsweep("run", "tiny.yaml", cwd=folder)
    assert ran.returncode == 0, ran.stderr
    return folder


def test_run_prints_the_summary_on_stdout_and_progress_on_stderr(tmp_path: Path) -> None:
    (tmp_path / "tiny.yaml").write_text(SPEC)
    ran = lrsweep("run", "tiny.yaml", cwd=tmp_path)
    assert ran.returncode == 0
    assert re.search(r"^optimizer +use lr +val_loss there", ran.stdout, flags=re.M)
    assert "8/8 runs" in ran.stderr
    assert "8/8 runs" not in ran.stdout
    assert "optimal" not in ran.stdout
    assert {"runs.csv", "curves.csv", "summary.csv", "u_curve.png", "loss_curves.png", "report.html"} <= {
        path.name for path in (tmp_path / "results" / "tiny").iterdir()
    }


def test_progress_none_says_nothing_on_stderr(tmp_path: Path) -> None:
    (tmp_path / "tiny.yaml").write_text(SPEC)
    assert lrsweep("run", "tiny.yaml", "--progress", "none", cwd=tmp_path).stderr == ""


def test_the_report_of_a_run_is_that_of_the_report_command(done: Path) -> None:
    report = done / "results/tiny/report.html"
    of_run = report.read_bytes()
    assert b"blobs: 72 train, 24 validation, 24 test examples." in of_run
    assert lrsweep("report", "results/tiny", cwd=done).returncode == 0
    assert report.read_bytes() == of_run


def test_a_report_has_no_pictures_of_another_objective_beside_it(done: Path) -> None:
    folder = done / "results/tiny"
    right = {path.name: path.read_bytes() for path in folder.glob("*.png")}
    assert lrsweep("report", "results", cwd=done).stderr == ""
    # An earlier version wrote plots of another metric in the place of the objective's.
    plot.save(plot.rendered(plot.load(folder, metric="val_accuracy"), ("png",)), folder, ("png",))
    assert (folder / "u_curve.png").read_bytes() != right["u_curve.png"]
    ran = lrsweep("report", "results", cwd=done)
    assert (ran.returncode, ran.stdout) == (0, "results/tiny/report.html\n")
    assert "plots in results/tiny were outdated or showed another metric and were redrawn" in ran.stderr
    assert {path.name: path.read_bytes() for path in folder.glob("*.png")} == right


def test_a_finished_sweep_trains_nothing_again(done: Path) -> None:
    before = (done / "results/tiny/runs.csv").read_bytes()
    again = lrsweep("run", "tiny.yaml", cwd=done)
    assert again.returncode == 0
    assert "done before" not in again.stderr  # the line that opens training
    assert (done / "results/tiny/runs.csv").read_bytes() == before


@pytest.mark.parametrize("width", ["80", "100"])
@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_explains_itself(command: str, width: str) -> None:
    shown = CliRunner().invoke(app, [command, "--help"], prog_name="lrsweep", env={"COLUMNS": width})
    assert shown.exit_code == 0
    lines = shown.output.splitlines()
    assert max(map(len, lines)) <= int(width)
    assert f"Usage: lrsweep {command}" in shown.output
    assert "<bool>" not in shown.output
    example = lines[next(i for i, line in enumerate(lines) if "Example:" in line) + 1].split()
    assert example[:2] == ["lrsweep", command]


def test_a_tilde_is_the_home_folder_wherever_it_is_given(
    tmp_path: Path, done: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    home = tmp_path / "home"
    shutil.copytree(done / "results", home / "sweeps")
    monkeypatch.setenv("HOME", str(home))
    shutil.copy(done / "tiny.yaml", tmp_path)
    ran = lrsweep("run", "tiny.yaml", "--results=~/sweeps", cwd=tmp_path)
    assert (ran.returncode, ran.stderr) == (0, "nothing to train: all 8 runs are done (--fresh retrains)\n")
    for command in ("status", "check", "report"):
        assert lrsweep(command, "~/sweeps/tiny", cwd=tmp_path).returncode == 0
    assert not (tmp_path / "~").exists()


@pytest.mark.parametrize(
    "arguments", [["status", "\udcff"], ["run", "\udcff.yaml"], ["run", "tiny.yaml", "--results", "a\udcff"]]
)
def test_a_path_that_is_not_utf_8_is_told(done: Path, arguments: list[str]) -> None:
    ran = lrsweep(*arguments, cwd=done)
    assert ran.returncode == 2
    assert ran.stderr.endswith("this path has bytes that are not UTF-8; rename it\n")
    assert ran.stderr.count("\n") == 1


def test_the_main_help_lists_the_exit_codes_and_commands() -> None:
    shown = lrsweep("--help")
    assert "Usage: lrsweep [OPTIONS]" in shown.stdout
    for code in ("0", "1", "2", "3", "4", "5", "6", "128 + n"):
        assert re.search(rf"^ +{re.escape(code)}  +\w", shown.stdout, re.MULTILINE), code
    assert all(re.search(rf"│ {command} ", shown.stdout) for command in COMMANDS)
    assert "<bool>" not in shown.stdout


def complete(words: str, cwd: Path) -> list[str]:
    """What the shell offers for the last of the words."""
    env = {"_LRSWEEP_COMPLETE": "complete_bash", "COMP_WORDS": words, "COMP_CWORD": str(len(words.split(" ")) - 1)}
    command = [sys.executable, "-m", "lrsweep"]
    ran = subprocess.run(command, capture_output=True, text=True, cwd=cwd, env={**os.environ, **env}, timeout=60)
    return ran.stdout.split()


def test_the_shell_completes_commands_options_kinds_and_labels(done: Path) -> None:
    assert complete("lrsweep ra", done) == ["range-test"]
    assert complete("lrsweep run --dr", done) == ["--dry-run"]
    assert complete("lrsweep list mo", done) == ["models"]
    assert complete("lrsweep check results/tiny --optimizer a", done) == ["adam"]
    assert complete("lrsweep check nowhere --optimizer a", done) == []


def test_completion_can_be_shown(tmp_path: Path) -> None:
    command = ["bash", "-c", f"{sys.executable} -m lrsweep --show-completion; exit $?"]  # bash stays, to be found
    ran = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, timeout=60)
    assert ran.returncode == 0, ran.stderr
    assert "_LRSWEEP_COMPLETE=complete_" in ran.stdout


def test_help_imports_nothing_heavy() -> None:
    code = "import sys; from lrsweep.cli.app import app\ntry: app(['--help'])\nexcept SystemExit: pass\n"
    code += "print(sorted({'torch', 'pandas', 'matplotlib', 'pydantic'} & set(sys.modules)))"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout
    assert out.rstrip().endswith("[]")


@pytest.mark.parametrize(
    ("args", "code", "said"),
    [
        (["run", "nowhere.yaml"], 2, "nowhere.yaml"),
        (["run", "tiny.yaml", "--workers", "0"], 2, "--workers 0"),
        (["run", "tiny.yaml", "--set", "seeds=3", "--executor", "mail"], 2, "mail"),
        (
            ["run", "tiny.yaml", "--address", "head:6379"],
            2,
            "--address head:6379: only the executor ray has an address",
        ),
        (["run", "tiny.yaml", "--set", "train.epoch=3"], 2, "did you mean epochs"),
        (["run", "tiny.yaml", "--device", "tpu"], 2, "--device"),
        (["plot", "nowhere"], 2, "nowhere"),
        (["plot", "results", "--metric", "val_f1"], 2, "val_accuracy"),
        (["check", "results/tiny", "--max-diverged", "0.5"], 0, ""),
        (["plot", "results", "--only", "u_curves"], 2, "--only u_curves: this sweep has no such plot (have: u_curve"),
        (["plot", "results", "--optimizer", "lion"], 2, "--optimizer lion: no such optimizer label (have: "),
        (["plot", "results", "--width", "0"], 2, "--width 0.0: must be from 2 to 40 inches"),
        (["check", "results/tiny", "--min-basin-decades", "9"], 6, ""),
        (["check", "results/tiny", "--optimizer", "lion"], 2, "--optimizer lion: no such optimizer label (have: sgd"),
        (["check", "results/tiny", "--best-lr-within", "1", "0.1"], 2, "--best-lr-within 1.0 0.1: give two learning"),
        (["compare", "results/tiny", "nowhere"], 2, "nowhere"),
        (["list", "frobs"], 2, "schedules"),
        (["init", "tiny.yaml"], 2, "already exists"),
        (["frob"], 2, "frob"),
    ],
)
def test_exit_codes_and_messages(done: Path, args: list[str], code: int, said: str) -> None:
    ran = lrsweep(*args, cwd=done)
    assert ran.returncode == code, ran.stderr
    assert said in ran.stderr
    assert "Traceback" not in ran.stderr


def test_the_commands_that_read_results_import_no_torch(done: Path) -> None:
    for args in (["plot", "results"], ["report", "results"], ["status", "results"], ["check", "results/tiny"]):
        code = (
            "import sys; from lrsweep.cli.app import app\n"
            f"try: app({args!r})\nexcept SystemExit as end: assert not end.code, end.code\n"
            "assert 'torch' not in sys.modules"
        )
        ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=done)
        assert ran.returncode == 0, (args, ran.stderr)


def test_check_json_is_the_contracts(done: Path) -> None:
    verdict = json.loads(lrsweep("check", "results/tiny", "--max-diverged", "0", "--json", cwd=done).stdout)
    assert verdict["ok"] is True
    assert {"optimizer", "check", "value", "limit", "ok"} == set(verdict["checks"][0])


def test_status_counts(done: Path) -> None:
    assert "8 of 8 runs done, 0 to do" in lrsweep("status", "results", cwd=done).stdout


def test_dry_run_writes_nothing(tmp_path: Path) -> None:
    (tmp_path / "tiny.yaml").write_text(SPEC)
    ran = lrsweep("run", "tiny.yaml", "--dry-run", cwd=tmp_path)
    assert ran.returncode == 0
    assert re.search(r"runs +8: 0 done, 8 to do", ran.stdout)
    assert re.search(r"optimizer steps +48", ran.stdout)  # 72 examples in batches of 32 are 3 steps an epoch
    assert [path.name for path in tmp_path.iterdir()] == ["tiny.yaml"]


def test_range_test_reads_its_rules_against_the_sweep(done: Path) -> None:
    ran = lrsweep("range-test", "tiny.yaml", "--steps", "40", cwd=done)
    assert ran.returncode == 0, ran.stderr
    assert "off the sweep's U-curve" in ran.stdout
    raw = (done / "results/tiny/range_test.csv").read_text().splitlines()
    assert raw[0] == "optimizer,step,lr,train_loss"
    assert raw[1].startswith("sgd,1,1e-07,")
    assert (done / "results/tiny/range_test.png").stat().st_size > 5000


AXES = """\
task: {name: blobs, n: 120}
lr: [0.01, 0.1]
optimizers: [sgd]
seeds: 1
train: {epochs: 1, batch_size: 16}
axes: {train.batch_size: [32, 64], train.clip_norm: [null, 1.0]}
"""


@pytest.mark.slow
def test_range_test_says_which_axis_values_it_uses(tmp_path: Path) -> None:
    (tmp_path / "axes.yaml").write_text(AXES)
    assert lrsweep("run", "axes.yaml", cwd=tmp_path).returncode == 0
    ramps, bests = [], []
    for chosen, said in (
        ((), "axes: train.batch_size=32 (of 32, 64), train.clip_norm=null (of null, 1.0); --set KEY=VALUE chooses"),
        (("--set", "train.batch_size=8"), "train.batch_size=8 (not among 32, 64), train.clip_norm=null"),
    ):
        ran = lrsweep("range-test", "axes.yaml", "--steps", "20", *chosen, cwd=tmp_path)
        assert ran.returncode == 0, ran.stderr
        assert said in ran.stderr
        ramps.append((tmp_path / "results/axes/range_test.csv").read_bytes())
        bests.append("the sweep's best" in ran.stdout)
    assert len(set(ramps)) == 2
    assert bests == [True, False]  # the sweep has nothing to hold against a value it never ran
    refused = lrsweep("run", "axes.yaml", "--set", "train.batch_size=64", cwd=tmp_path)
    assert refused.returncode == 2
    assert "axes.yaml:6:8" in refused.stderr


def test_the_starter_spec_runs(tmp_path: Path) -> None:
    assert lrsweep("init", "mine.yaml", cwd=tmp_path).returncode == 0
    ran = lrsweep("run", "mine.yaml", "--dry-run", cwd=tmp_path)
    assert ran.returncode == 0, ran.stderr
    nowhere = lrsweep("init", "no/such/folder.yaml", cwd=tmp_path)
    assert nowhere.returncode == 4
    assert "Traceback" not in nowhere.stderr


def test_list_states_how_weight_decay_is_coupled() -> None:
    shown = lrsweep("list", "optimizers").stdout
    assert re.search(r"adamw\(.*weight_decay=0.01.*\)\n +default lr 0.001; weight decay is decoupled", shown)
    assert re.search(r"adadelta\(.*\n.*\n.*a different scale", shown)


def test_list_states_what_becomes_of_text_and_missing_cells() -> None:
    shown = lrsweep("list", "tasks").stdout
    assert re.search(r"csv\(.*drop=None, one_hot=None, missing=None.*\)\n", shown)
    for argument in ("`drop: ", "`one_hot: ", "`missing: drop_rows`", "`missing: mean`"):
        assert argument in shown


def test_schema_is_json() -> None:
    schema = json.loads(lrsweep("schema").stdout)
    assert "optimizers" in schema["properties"]


def test_closed_streams_are_no_error(done: Path) -> None:
    command = f"{sys.executable} -m lrsweep run tiny.yaml <&- >&- 2>&-"
    assert subprocess.run(command, shell=True, cwd=done, timeout=300).returncode == 0


def into_nobody(arguments: str, cwd: Path, **env: str) -> tuple[int, str]:
    """The exit code of a command whose pipe nobody reads, and what it says on stderr."""
    reader, writer = os.pipe()
    os.close(reader)
    try:
        ran = subprocess.run(
            f"exec {sys.executable} -m lrsweep {arguments}", shell=True, stdout=writer, stderr=subprocess.PIPE,
            text=True, cwd=cwd, env={**os.environ, **env}, timeout=300,
        )  # fmt: skip
    finally:
        os.close(writer)
    return ran.returncode, ran.stderr


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        ("list", 0),
        ("--help", 0),
        ("status results", 0),
        ("no-such-command 2>&1", 2),
        ("run no-such-file.yaml 2>&1", 2),
        ("check results/tiny --max-sensitivity 0", 6),
    ],
)
def test_a_reader_that_leaves_early_changes_no_exit_code(done: Path, arguments: str, code: int) -> None:
    assert into_nobody(arguments, done) == (code, "")


def test_a_reader_that_leaves_early_changes_nothing_without_buffers(done: Path) -> None:
    assert into_nobody("list", done, PYTHONUNBUFFERED="1") == (0, "")


def test_pictures_of_all_sweeps_are_drawn_for_a_reader_that_leaves_early(done: Path, tmp_path: Path) -> None:
    for name in ("first", "second"):
        shutil.copytree(done / "results/tiny", tmp_path / name, ignore=shutil.ignore_patterns("*.png"))
    assert into_nobody("plot .", tmp_path) == (0, "")
    assert (tmp_path / "second/u_curve.png").read_bytes() == (tmp_path / "first/u_curve.png").read_bytes() != b""


TALKS = """
import torch
from torch import nn
from lrsweep import Task

def loss(output, target):
    print("a word of the user", flush=True)
    return nn.functional.mse_loss(output, target)

def make_task():
    x = torch.ones(8, 2)
    return Task(train=(x, x), val=(x, x), model=lambda: nn.Linear(2, 2), loss=loss, metrics={})
"""


def test_a_sweep_that_nobody_listens_to_is_complete(tmp_path: Path) -> None:
    (tmp_path / "talks.py").write_text(TALKS)
    config = {"task": "talks.py:make_task", "optimizers": ["sgd"], "lr": [0.1, 0.01], "train": {"epochs": 2}}
    (tmp_path / "talks.yaml").write_text(yaml.safe_dump(config))
    assert into_nobody("run talks.yaml --results unheard --workers 2 2>&1", tmp_path) == (0, "")
    heard = lrsweep("run", "talks.yaml", "--results", "heard", "--workers", "2", cwd=tmp_path)
    assert (heard.returncode, "a word of the user" in heard.stderr) == (0, True)
    for name in ("runs.csv", "curves.csv", "summary.csv", "u_curve.png"):
        assert (tmp_path / "unheard/talks" / name).read_bytes() == (tmp_path / "heard/talks" / name).read_bytes(), name
    assert (tmp_path / "unheard/talks/report.html").exists()


def test_a_sweep_may_run_in_a_daemonic_process(done: Path, tmp_path: Path) -> None:
    code = """
import multiprocessing, sys
import lrsweep
process = multiprocessing.get_context("fork").Process(target=lrsweep.run, args=("tiny.yaml",), daemon=True,
                                                      kwargs={"results": sys.argv[1], "workers": 2})
process.start()
process.join()
sys.exit(process.exitcode)
"""
    ran = subprocess.run([sys.executable, "-c", code, tmp_path], capture_output=True, text=True, cwd=done, timeout=300)
    assert ran.returncode == 0, ran.stderr
    assert (tmp_path / "tiny" / "report.html").exists()


BROKEN = """
import torch
from torch import nn
from lrsweep import Task

def build():
    raise RuntimeError(f"no weights for seed {torch.initial_seed() % 2}")

def make_task():
    x = torch.randn(8, 2)
    return Task(train=(x, x), val=(x, x), model=build, loss=nn.functional.mse_loss, metrics={})
"""


def test_an_error_of_many_runs_is_told_once(tmp_path: Path) -> None:
    (tmp_path / "broken.py").write_text(BROKEN)
    config = {"task": "broken.py:make_task", "optimizers": ["sgd"], "lr": [0.1, 0.01, 0.001], "train": {"epochs": 1}}
    (tmp_path / "broken.yaml").write_text(yaml.safe_dump(config | {"seeds": 3}))
    ran = lrsweep("run", "broken.yaml", "--progress", "none", cwd=tmp_path)
    assert ran.returncode == 3, ran.stderr
    told = re.findall(r"^ *(\d+) +[0-9a-f]{8,} .*no weights for seed (\d)", ran.stderr, re.MULTILINE)
    assert told == [("6", "0"), ("3", "1")]
    assert ran.stderr.count("no weights") == 2
    assert ran.stdout.startswith("broken: every run failed; no results\n")
    assert ran.stdout.endswith("results/broken/: report.html, runs.csv\n")
    folder = tmp_path / "results" / "broken"
    assert [path.name for path in folder.glob("*.png")] == ["u_curve.png"]
    page = (folder / "report.html").read_text()
    assert "Every run failed" in page
    assert "no learning rate improved" not in page
    again = lrsweep("run", "broken.yaml", "--progress", "none", cwd=tmp_path)
    assert again.stderr == "9 failed runs will be retried\n" + ran.stderr


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full here")
def test_a_wrong_option_is_told_in_plain_words(done: Path) -> None:
    for command, part in (
        ("run tiny.yaml --device gpu", "'--device': 'gpu' is not one of 'auto'"),
        ("range-test tiny.yaml --low abc", "'--low': must be a number"),
        ("range-test tiny.yaml --steps 3.5", "'--steps': must be a whole number"),
    ):
        ran = lrsweep(*command.split(), cwd=done)
        assert ran.returncode == 2
        assert part in ran.stderr


def test_a_sweep_that_is_done_says_so(done: Path) -> None:
    ran = lrsweep("run", "tiny.yaml", cwd=done)
    assert ran.stderr == "nothing to train: all 8 runs are done (--fresh retrains)\n"
    assert re.search(r"^optimizer +use lr +val_loss there", ran.stdout, flags=re.M)
    assert lrsweep("run", "tiny.yaml", "--progress", "none", cwd=done).stderr == ""


def test_a_spec_that_cannot_be_written_is_told_without_advice_on_runs(done: Path) -> None:
    ran = lrsweep("init", "none/x.yaml", cwd=done)
    assert (ran.returncode, ran.stderr) == (4, "cannot write none/x.yaml: No such file or directory\n")


def test_list_takes_the_singular_and_says_where_a_name_is(done: Path) -> None:
    for kind in ("task", "schedule"):
        assert lrsweep("list", kind).stdout == lrsweep("list", f"{kind}s").stdout != ""
    ran = lrsweep("list", "adam")
    assert ran.returncode == 2
    assert "adam is in `lrsweep list optimizers`" in ran.stderr


def test_an_output_that_cannot_be_written_is_a_matter_of_storage(done: Path) -> None:
    command = f"{sys.executable} -m lrsweep list > /dev/full"
    ran = subprocess.run(command, shell=True, capture_output=True, text=True, cwd=done, timeout=300)
    assert ran.returncode == 4, ran.stderr
    assert "could not be written" in ran.stderr
    assert "Traceback" not in ran.stderr


def test_plot_says_that_no_run_has_finished_and_draws_nothing(tmp_path: Path) -> None:
    folder = fabricate.folder(tmp_path, optimizers=("adam",), rates=[1e-3], seeds=1, rows=4)
    for table in ("runs.csv", "curves.csv", "summary.csv"):
        (folder / table).write_text((folder / table).read_text().split("\n", 1)[0] + "\n")
    ran = lrsweep("plot", folder, "--metric", "val_loss")
    assert (ran.returncode, ran.stdout) == (0, "")
    assert ran.stderr == "made_up: no run has finished yet; nothing was drawn\n"
    assert not list(folder.glob("*.png"))


@pytest.mark.parametrize("command", ["plot", "report"])
def test_plots_of_another_metric_are_redrawn_with_the_others(tmp_path: Path, command: str) -> None:
    folder = fabricate.folder(tmp_path, optimizers=("adam",), rates=[1e-3, 1e-2], seeds=1, rows=4)
    other = folder / "u_curve__val_accuracy.png"
    plot.draw_sweep(plot.load(folder, metric="val_accuracy"), folder, ("png",), ["u_curve"])
    before = other.read_bytes()
    fabricate.folder(tmp_path, optimizers=("adam",), rates=[1e-3, 1e-2], seeds=2, rows=4)
    ran = lrsweep(command, folder)
    assert (ran.returncode, f"{other}\n" in ran.stdout) == (0, command == "plot")
    assert other.read_bytes() != before


def test_a_terminal_that_was_closed_is_no_bug(done: Path) -> None:
    ours, theirs = os.openpty()
    os.close(ours)
    ran = subprocess.run([sys.executable, "-m", "lrsweep", "list"], stdout=theirs, stderr=theirs, cwd=done, timeout=300)
    os.close(theirs)
    assert ran.returncode == 0


# Where it hits: before the sweep has its own handlers, within the import of torch (its C++ aborts the process when an
# exception is thrown into it), within matplotlib's own `except Exception`.
PLACES = {"multiprocessing": "run tiny.yaml", "torch._utils_internal": "run tiny.yaml", "mpl_toolkits": "plot results"}
CAUSES = {signal.SIGINT: "interrupted", signal.SIGHUP: "stopped by SIGHUP"}


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("number", CAUSES)
def test_a_signal_during_the_imports_is_no_bug(done: Path, number: signal.Signals, place: str) -> None:
    command = (
        "import os, sys, builtins\n"
        "from lrsweep.cli import app\n"
        "real, process = builtins.__import__, os.getpid()\n"
        "def importing(name, *rest, **named):\n"
        f"    if name.startswith('{place}') and os.getpid() == process: os.kill(process, {int(number)})\n"
        "    return real(name, *rest, **named)\n"
        "builtins.__import__ = importing\n"
        f"sys.argv = 'lrsweep {PLACES[place]}'.split()\n"
        "app.main()"
    )
    ran = subprocess.run([sys.executable, "-c", command], capture_output=True, text=True, cwd=done, timeout=300)
    assert ran.returncode == 128 + number, ran.stderr
    saved = "finished runs are saved, " if place == "torch._utils_internal" else ""
    resume = " to resume" if saved else ""
    assert ran.stderr.splitlines() == [f"{CAUSES[number]}; {saved}rerun the command{resume}"]
