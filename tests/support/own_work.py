"""The examples of configs/own, for the test that compares them with plain torch and the bench that times them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

FOLDER = Path(__file__).parents[2] / "configs" / "own"


@dataclass(frozen=True, kw_only=True)
class Example:
    """`alone`: why its runs are not trained together, as lrsweep says it. `needs`: packages it imports.

    `differentiates`: see plain_loop.Recipe.
    """

    alone: str = ""
    needs: tuple[str, ...] = ()
    differentiates: bool = False


EXAMPLES = {
    "resnet": Example(),
    "hugging_face": Example(
        alone="the code changes Python state between steps: BertConfig.problem_type",
        needs=("transformers",),
    ),
    "lstm": Example(alone="the model has a layer that torch cannot batch over runs: LSTM"),
    "vae": Example(),
    "lora": Example(),
    "contrastive": Example(),
    "physics": Example(alone="the step of the task calls requires_grad_()", differentiates=True),
    "diffusion": Example(),
    "layerwise": Example(),
    "mup": Example(),
    "entrants": Example(needs=("schedulefree", "prodigyopt")),
}


def path(name: str) -> Path:
    return FOLDER / f"{name}.yaml"
