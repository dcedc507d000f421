"""The studies of configs/studies show what was published; those that do not are named in results/README.md."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import nn

from lrsweep import user_imports
from lrsweep.spec.load import load_spec
from lrsweep.workers import worker
from tests.support import studies, sweeps, theory
from tests.support.oracle import double
from tests.support.studies import CLAIMS, Study

ROOT = Path(__file__).parents[2]
SPECS = sorted((ROOT / "configs/studies").glob("*.yaml"))
COURSE = (ROOT / "results/README.md").read_text(encoding="utf-8")


@pytest.fixture(autouse=True)
def one_thread() -> None:
    worker.one_thread()


@pytest.mark.parametrize("path", SPECS, ids=lambda path: path.stem)
def test_every_study_says_what_it_shows(path: Path) -> None:
    head = path.read_text(encoding="utf-8").split("\ntask:")[0]
    assert head.startswith("# ")
    assert head.splitlines()[0].endswith("?") or "? " in head.splitlines()[0]
    for word in ("# Shows: ", "# Source: ", "# Time: "):
        assert word in head
    assert load_spec(path).name == path.stem


def test_every_study_is_listed_and_has_claims() -> None:
    cookbook = (ROOT / "configs/README.md").read_text(encoding="utf-8")
    assert {claim.study for claim in CLAIMS} == {path.stem for path in SPECS}
    for path in SPECS:
        assert f"](studies/{path.name})" in cookbook
        assert f"](../configs/studies/{path.name})" in COURSE
        assert (ROOT / "results" / path.stem / "summary.csv").exists()


def verdicts(text: str) -> dict[tuple[str, str], str]:
    """By study and claim, of the table in a Markdown text."""
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in text.splitlines()]
    rows = [row for row in rows if len(row) == 7 and re.match(r"\d\d_|exact answers", row[1])]
    found = {(row[1], row[2]): row[-1] for row in rows}
    assert len(found) == len(rows)
    return found


def test_every_claim_is_in_the_course() -> None:
    exact = {("exact answers", claim.claim) for claim in theory.CLAIMS}
    told = verdicts(COURSE)
    assert set(told) == {(claim.study, claim.claim) for claim in CLAIMS} | exact
    assert all(told[name] == "holds" for name in exact)


def test_every_experiment_and_every_closed_form_has_a_claim() -> None:
    found = {claim.id for claim in (*CLAIMS, *theory.CLAIMS)} - {""}
    wanted = {"B": 5, "T": 10, "P": 1, "E": 2, "L": 4}
    assert found == {f"{kind}{number}" for kind, count in wanted.items() for number in range(1, count + 1)}


# --- Reduced forms


def short(folder: Path, study: str, *changes: str) -> Study:
    path = ROOT / f"configs/studies/{study}.yaml"
    return Study(sweeps.run(folder, path, set=list(changes)).path)


Measure = Callable[[Study], studies.Measured]


@pytest.mark.process
@pytest.mark.parametrize(
    ("study", "changes", "measures"),
    [
        (
            "01_learning_rate",
            ("lr=[1, 0.1, 0.01, 0.001]", "seeds=3"),
            (studies._good_rates, studies._large_rate, studies._finite, studies._best_rate, studies._ceiling),
        ),
        ("02_momentum", ("seeds=5",), (studies._momentum_speed, studies._momentum_steadier)),
        ("03_decay", ("seeds=3",), (studies._decays, studies._decays_tested, studies._decayed_rates)),
        ("04_plateau", ("seeds=3",), (studies._patience, studies._cuts)),
        (
            "05_optimizers",
            ("seeds=3",),
            (studies._adaptive_level, studies._adaptive_steadier),
        ),
        ("13_quadratic", (), (studies._limits,)),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_in_short(study: str, changes: tuple[str, ...], measures: tuple[Measure, ...], tmp_path: Path) -> None:
    found = short(tmp_path, study, *changes)
    for measure in measures:
        measured, held = measure(found)
        assert held, f"{measure.__name__}: {measured}"


EDGE = "edge_of_stability.py"
OF_ADAM: tuple[str, float] = ("exp_avg_sq", 0.999)
OF_RMSPROP: tuple[str, float] = ("square_avg", 0.0)
"""Where torch keeps the mean squares, and the base of the correction of their bias."""


@pytest.mark.filterwarnings("ignore:.*torch.jit:DeprecationWarning")  # torch.func's own
@pytest.mark.parametrize(("kind", "squares", "base"), [("Adam", *OF_ADAM), ("RMSprop", *OF_RMSPROP)])
@double()
def test_the_scaled_sharpness_is_that_of_torchs_own_optimizers(kind: str, squares: str, base: float) -> None:
    """Study 19, over a hundred steps: the Hessian by two backward passes, the scale from the state of the optimizer."""
    task = user_imports.resolve(f"{EDGE}:make_task", SPECS[0].parent)(scaled=True)
    torch.manual_seed(0)
    model = task.model()
    optimizer = user_imports.resolve(f"{EDGE}:{kind}", SPECS[0].parent)(model.parameters(), lr=0.001)
    for _ in range(100):
        train_once(model, optimizer)
    model.eval()
    found = task.step(model, task.val)["sharpness"].item()
    assert found == pytest.approx(sharpness(model, optimizer, squares, 1 - base**100), rel=1e-6)


@pytest.mark.process
def test_the_scale_reaches_the_task_where_runs_train_together(tmp_path: Path) -> None:
    """Two steps only, and to 1 %: by symmetry the gradients of the biases are zero but for rounding, and these
    optimizers make steps of full size of that."""
    changes = ("train.steps=2", "train.eval_every.steps=1", "train.dtype=float64", "seeds=1", "optimizers[1].alpha=0.9")
    curves = short(tmp_path, "19_adam_at_the_edge", *changes).curves
    found = curves[curves.step == 2].set_index("lr").val_sharpness
    assert found[0.003] == pytest.approx(after_two_steps(torch.optim.Adam, *OF_ADAM, lr=0.003), rel=0.01)
    assert found[3e-4] == pytest.approx(after_two_steps(torch.optim.RMSprop, *OF_RMSPROP, lr=3e-4, alpha=0.9), rel=0.01)


@double()
def after_two_steps(kind: type[torch.optim.Optimizer], squares: str, base: float, **arguments: float) -> float:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(1, 100), nn.Tanh(), nn.Linear(100, 1, bias=False))
    nn.init.xavier_normal_(model[0].weight, gain=1.9)
    nn.init.zeros_(model[0].bias)
    nn.init.xavier_normal_(model[2].weight)
    optimizer = kind(model.parameters(), **arguments)
    for _ in range(2):
        train_once(model, optimizer)
    return sharpness(model, optimizer, squares, 1 - base**2)


def loss_of(model: nn.Module) -> torch.Tensor:
    x = torch.linspace(-1, 1, 20).unsqueeze(1)
    return 0.5 * (model(x) - torch.cos(5 * torch.arccos(x))).square().mean()


def train_once(model: nn.Module, optimizer: torch.optim.Optimizer) -> None:
    optimizer.zero_grad()
    loss_of(model).backward()
    optimizer.step()


def sharpness(model: nn.Module, optimizer: torch.optim.Optimizer, squares: str, correction: float) -> float:
    """The largest eigenvalue of P^-1 H, with P = sqrt(squares / correction) + 1e-8."""
    weights = [weight for weight in model.parameters() if weight.requires_grad]
    slopes = torch.cat([slope.flatten() for slope in torch.autograd.grad(loss_of(model), weights, create_graph=True)])
    rows = [torch.autograd.grad(slope, weights, retain_graph=True) for slope in slopes]
    hessian = torch.stack([torch.cat([part.flatten() for part in row]) for row in rows])
    scale = torch.cat([(optimizer.state[weight][squares] / correction).sqrt().flatten() + 1e-8 for weight in weights])
    return torch.linalg.eigvals(hessian / scale.unsqueeze(1)).real.max().item()


# --- Whole studies


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("results")


@pytest.mark.slow
@pytest.mark.process
@pytest.mark.parametrize("path", SPECS, ids=lambda path: path.stem)
def test_a_study_comes_out_as_the_course_tells(path: Path, results: Path) -> None:
    claims = [claim for claim in CLAIMS if claim.study == path.stem]
    for study in {claim.beside for claim in claims} - {""} | {path.stem}:
        sweeps.run(results, path.with_stem(study), workers=2)
    told = verdicts(COURSE)
    for claim in claims:
        measured, held = claim.measure(Study(results / path.stem))
        assert studies.VERDICTS[held] == told[claim.study, claim.claim], (claim.claim, measured)
