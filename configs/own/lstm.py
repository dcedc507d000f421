"""An LSTM over waves of different lengths: a Dataset, a collate_fn that pads, and packed sequences."""

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_sequence
from torch.utils.data import Dataset

from lrsweep import Task

Example = tuple[Tensor, int]


class Waves(Dataset[Example]):
    """Noisy sine waves of 8 to 24 points with a random phase; the class is one of four frequencies."""

    def __init__(self, count: int, seed: int) -> None:
        generator = torch.Generator().manual_seed(seed)
        lengths = torch.randint(8, 25, (count,), generator=generator)
        self.examples = [self.wave(int(length), k % 4, generator) for k, length in enumerate(lengths)]

    @staticmethod
    def wave(length: int, kind: int, generator: torch.Generator) -> Example:
        phase = 6.28 * torch.rand(1, generator=generator)
        noise = 0.1 * torch.randn(length, generator=generator)
        return torch.sin((0.4 + 0.3 * kind) * torch.arange(length) + phase) + noise, kind

    def __len__(self) -> int:
        return len(self.examples)

    def __getitem__(self, index: int) -> Example:
        return self.examples[index]


def collate(examples: list[Example]) -> tuple[Tensor, Tensor, Tensor]:
    waves, kinds = zip(*examples, strict=True)
    lengths = torch.tensor([len(wave) for wave in waves])
    return pad_sequence(list(waves), batch_first=True).unsqueeze(2), lengths, torch.tensor(kinds)


class Net(nn.Module):
    def __init__(self, hidden: int) -> None:
        super().__init__()
        self.lstm = nn.LSTM(1, hidden, batch_first=True)
        self.head = nn.Linear(hidden, 4)

    def forward(self, waves: Tensor, lengths: Tensor) -> Tensor:
        packed = pack_padded_sequence(waves, lengths, batch_first=True, enforce_sorted=False)
        _, (last, _) = self.lstm(packed)
        return self.head(last[0])


def make_task(hidden: int = 32) -> Task:
    return Task(
        train=Waves(256, seed=1),
        val=Waves(128, seed=2),
        collate_fn=collate,  # the model is called with all that it returns but the last
        model=lambda: Net(hidden),
        loss=nn.functional.cross_entropy,
    )
