"""A model of Hugging Face, built from a config (nothing is downloaded), dict batches and its own loss."""

import torch
from torch import Tensor, nn
from torch.utils.data import Dataset
from transformers import BertConfig, BertForSequenceClassification

from lrsweep import Task


class Sentences(Dataset[dict[str, Tensor]]):
    """Random tokens of different lengths, padded; the label says whether one of them is 7."""

    def __init__(self, count: int, seed: int, length: int = 12, vocabulary: int = 20) -> None:
        generator = torch.Generator().manual_seed(seed)
        ids = torch.randint(1, vocabulary, (count, length), generator=generator)
        lengths = torch.randint(4, length + 1, (count, 1), generator=generator)
        self.mask = (torch.arange(length) < lengths).long()
        self.ids = ids * self.mask
        self.labels = (self.ids == 7).any(1).long()

    def __len__(self) -> int:
        return len(self.ids)

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        return {"input_ids": self.ids[index], "attention_mask": self.mask[index], "labels": self.labels[index]}


def step(model: nn.Module, batch: dict[str, Tensor]) -> dict[str, Tensor]:
    output = model(**batch)
    accuracy = (output.logits.argmax(1) == batch["labels"]).float().mean()
    return {"loss": output.loss, "accuracy": accuracy}


def make_task(layers: int = 1, hidden: int = 32) -> Task:
    config = BertConfig(
        vocab_size=20,
        hidden_size=hidden,
        num_hidden_layers=layers,
        num_attention_heads=2,
        intermediate_size=2 * hidden,
        max_position_embeddings=16,
    )
    return Task(
        train=Sentences(256, seed=1),
        val=Sentences(128, seed=2),
        model=lambda: BertForSequenceClassification(config),
        step=step,
    )
