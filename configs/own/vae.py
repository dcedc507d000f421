"""A variational autoencoder on handwritten digits: it samples in every step, and the loss has two parts."""

import torch
import torch.nn.functional as F
from sklearn.datasets import load_digits
from torch import Tensor, nn

from lrsweep import Task


class VAE(nn.Module):
    def __init__(self, latent: int) -> None:
        super().__init__()
        self.encoder = nn.Sequential(nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 2 * latent))
        self.decoder = nn.Sequential(nn.Linear(latent, 64), nn.ReLU(), nn.Linear(64, 64))

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        mean, log_variance = self.encoder(x).chunk(2, dim=1)
        z = mean + torch.exp(0.5 * log_variance) * torch.randn_like(mean)  # seeded by lrsweep: same noise in all runs
        return self.decoder(z), mean, log_variance


def step(model: nn.Module, batch: tuple[Tensor]) -> dict[str, Tensor]:
    (x,) = batch
    pixels, mean, log_variance = model(x)
    reconstruction = F.binary_cross_entropy_with_logits(pixels, x, reduction="sum") / len(x)
    kl = 0.5 * (mean**2 + log_variance.exp() - 1 - log_variance).sum() / len(x)
    return {"loss": reconstruction + kl, "kl": kl}  # everything but the loss is a metric


def make_task(latent: int = 8) -> Task:
    x = torch.tensor(load_digits().data, dtype=torch.float32) / 16
    return Task(train=(x[:1024],), val=(x[1024:],), model=lambda: VAE(latent), step=step)
