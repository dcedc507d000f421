"""Operations whose derivative, batching or state is special."""

import warnings

import torch
import torch.nn.functional as F
from kinds_common import TRAIN, VAL, Net, points, regression, split
from torch import nn
from torch.nn.utils import parametrizations, parametrize
from torch.utils.checkpoint import checkpoint

from lrsweep import Task

WORDS = 9
CLASSES = 3


class Bag(nn.Module):
    """Mean of the words' vectors."""

    def __init__(self, **embedding):
        super().__init__()
        self.words, self.out = nn.Embedding(WORDS, 8, **embedding), nn.Linear(8, CLASSES)

    def forward(self, ids):
        return self.out(self.words(ids).mean(1))


class PaddingIndex(Bag):
    def __init__(self):
        super().__init__(padding_idx=0)


class NegativePaddingIndex(Bag):
    """Counted from the end."""

    def __init__(self):
        super().__init__(padding_idx=-1)


class PaddingFunction(Bag):
    """The same by the function, with weights that are a plain parameter."""

    def forward(self, ids):
        return self.out(F.embedding(ids, self.words.weight, padding_idx=2).mean(1))


class MaxNorm(Bag):
    """Vectors longer than 1 are shortened in place when they are looked up."""

    def __init__(self):
        super().__init__(max_norm=1.0)


class ScaledByFrequency(Bag):
    def __init__(self):
        super().__init__(scale_grad_by_freq=True)


class SparseEmbedding(Bag):
    def __init__(self):
        super().__init__(sparse=True)


class EmbeddingBag(Bag):
    def __init__(self):
        super().__init__()
        self.words, self.out = nn.EmbeddingBag(WORDS, 8, mode="max", padding_idx=0), nn.Linear(8, CLASSES)

    def forward(self, ids):
        return self.out(self.words(ids))


class OneHot(Bag):
    def forward(self, ids):
        return self.out((F.one_hot(ids, WORDS).to(self.words.weight.dtype) @ self.words.weight).mean(1))


class IndexAdd(Bag):
    """Counts words by `index_add_`."""

    def forward(self, ids):
        counts = torch.zeros(len(ids) * WORDS, dtype=self.words.weight.dtype)
        where = (ids + WORDS * torch.arange(len(ids))[:, None]).flatten()
        counts.index_add_(0, where, torch.ones(len(where), dtype=counts.dtype))
        return self.out(counts.view(len(ids), WORDS) @ self.words.weight / ids.shape[1])


class Scatter(Bag):
    def forward(self, ids):
        counts = torch.zeros(len(ids), WORDS, dtype=self.words.weight.dtype)
        counts = counts.scatter_add(1, ids, torch.ones_like(ids, dtype=counts.dtype))
        return self.out(counts @ self.words.weight / ids.shape[1])


class IndexPut(Bag):
    """Writes by index, with values added up."""

    def forward(self, ids):
        sums = torch.zeros(len(ids), 8, dtype=self.words.weight.dtype)
        rows = torch.arange(len(ids)).repeat_interleave(ids.shape[1])
        return self.out(sums.index_put((rows,), self.words(ids).flatten(0, 1), accumulate=True))


class Gather(Bag):
    def forward(self, ids):
        vectors = self.words(ids)
        order = ids.argsort(dim=1, stable=True)[..., None].expand_as(vectors)
        return self.out(vectors.gather(1, order)[:, 0])


class Selected(Bag):
    """As many rows as there are words that are no padding: another number in every batch."""

    def forward(self, ids):
        vectors, sums = self.words(ids), torch.zeros(len(ids), 8, dtype=self.words.weight.dtype)
        rows = (ids > 0).nonzero()[:, 0]
        return self.out(sums.index_add(0, rows, vectors[ids > 0]))


class Recurrent(Bag):
    def __init__(self):
        super().__init__()
        self.mixing = nn.GRU(8, 8, batch_first=True)

    def forward(self, ids):
        return self.out(self.mixing(self.words(ids))[0][:, -1])


class RecurrentDropout(Bag):
    """Two layers with dropout between them."""

    def __init__(self):
        super().__init__()
        self.mixing = nn.LSTM(8, 8, num_layers=2, dropout=0.3, batch_first=True)

    def forward(self, ids):
        return self.out(self.mixing(self.words(ids))[0][:, -1])


class Attention(Bag):
    """A transformer layer with dropout, blind to padding."""

    def __init__(self):
        super().__init__()
        self.mixing = nn.TransformerEncoderLayer(8, 2, 16, dropout=0.2, batch_first=True)

    def forward(self, ids):
        padding = ids == 0
        padding[:, 0] = False
        return self.out(self.mixing(self.words(ids), src_key_padding_mask=padding).mean(1))


class Classifier(nn.Module):
    def __init__(self):
        super().__init__()
        self.a, self.b = nn.Linear(4, 16), nn.Linear(16, CLASSES)

    def forward(self, x):
        return self.b(torch.tanh(self.a(x)))


IgnoreIndex = nn.CrossEntropyLoss(ignore_index=2)
ClassWeights = nn.CrossEntropyLoss(weight=torch.tensor([1.0, 2.0, 5.0]))
Smoothing = nn.CrossEntropyLoss(label_smoothing=0.1)
MultiMargin = nn.MultiMarginLoss()


class BatchNorm(Net):
    def __init__(self, **norm):
        super().__init__()
        self.norm = nn.BatchNorm1d(16, **norm)

    def middle(self, h):
        return self.norm(super().middle(h))


class CumulativeBatchNorm(BatchNorm):
    """Running statistics that are the mean of all batches."""

    def __init__(self):
        super().__init__(momentum=None)


class BatchStatistics(BatchNorm):
    def __init__(self):
        super().__init__(track_running_stats=False)


class FrozenBatchNorm(BatchNorm):
    """Its statistics stay as they are after eight steps, by an overridden `train`."""

    steps = 0

    def train(self, mode=True):
        super().train(mode)
        if self.steps >= 8:
            self.norm.eval()
        return self

    def middle(self, h):
        self.steps += self.training
        return super().middle(h)


class InstanceNorm(Net):
    def __init__(self):
        super().__init__()
        self.norm = nn.InstanceNorm1d(4, affine=True, track_running_stats=True)

    def middle(self, h):
        return self.norm(super().middle(h).view(-1, 4, 4)).flatten(1)


class SpectralNorm(Net):
    """The old one, by a hook with buffers that a forward in training changes."""

    def __init__(self):
        super().__init__()
        self.b = torch.nn.utils.spectral_norm(self.b)


class ParametrizedSpectralNorm(Net):
    def __init__(self):
        super().__init__()
        self.b = parametrizations.spectral_norm(self.b)


class WeightNorm(Net):
    def __init__(self):
        super().__init__()
        self.b = parametrizations.weight_norm(self.b)


class OldWeightNorm(Net):
    """By a hook, which computes the weight before each forward."""

    def __init__(self):
        super().__init__()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            self.b = torch.nn.utils.weight_norm(self.b)


class Orthogonal(Net):
    def __init__(self):
        super().__init__()
        self.b = parametrizations.orthogonal(self.b)


class Symmetric(nn.Module):
    def forward(self, weight):
        return weight.triu() + weight.triu(1).mT


class OwnParametrization(Net):
    def __init__(self):
        super().__init__()
        parametrize.register_parametrization(self.b, "weight", Symmetric())


class Dropout(Net):
    layer = staticmethod(lambda: nn.Dropout(0.3))

    def __init__(self):
        super().__init__()
        self.drop = self.layer()

    def middle(self, h):
        return self.drop(super().middle(h))


class AlphaDropout(Dropout):
    layer = staticmethod(lambda: nn.AlphaDropout(0.3))


class FeatureDropout(Dropout):
    layer = staticmethod(lambda: nn.Dropout1d(0.3))

    def middle(self, h):
        return super().middle(h.view(-1, 4, 4).flatten(1)).view(-1, 16)


class RandomSlope(Dropout):
    """Leaky ReLU with random slopes."""

    layer = staticmethod(lambda: nn.RReLU())


class TransposedDropout(Net):
    """Masks of tensors that do not lie in order, among others, drawn in three ways."""

    def middle(self, h):
        h = F.dropout(super().middle(F.dropout(h.t(), 0.3, self.training).t()), 0.1, self.training)
        h = F.dropout(h.t().clone(), 0.2, training=self.training, inplace=True).t()
        h = torch.dropout(h.unflatten(1, (4, 4)).transpose(0, 2), 0.1, self.training).transpose(0, 2).flatten(1)
        return torch.dropout_(h.t().clone(), p=0.1, train=self.training).t()


class TransposedDropoutAlways(Net):
    """In evaluation too."""

    def middle(self, h):
        return F.dropout(super().middle(h).t(), 0.3).t()


class TransposedNoise(Net):
    """Of numbers that are drawn in the order of memory by other functions."""

    def middle(self, h):
        return super().middle(h + 0.1 * torch.randn_like(h.t()).t() if self.training else h)


class EncoderLayers(Net):
    """Two layers of a transformer, with dropout in several places."""

    def __init__(self):
        super().__init__()
        layer = nn.TransformerEncoderLayer(4, 2, 8, dropout=0.2, batch_first=True)
        self.layers = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)

    def middle(self, h):
        return self.layers(h.unflatten(1, (4, 4))).flatten(1)


def script(function):
    """Compiled, without the word that this is going out of use."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        return torch.jit.script(function)


@script
def scripted(h: torch.Tensor) -> torch.Tensor:
    return torch.tanh(h) * torch.sigmoid(h)


class Scripted(Net):
    def middle(self, h):
        return scripted(self.b(h))


@script
def scripted_branch(h: torch.Tensor) -> torch.Tensor:
    if bool(h.mean() > 0):
        return torch.tanh(h)
    return torch.sigmoid(h)


class ScriptedBranch(Net):
    """Differs from run to run."""

    def middle(self, h):
        return scripted_branch(self.b(h))


@script
def scripted_list(h: torch.Tensor) -> torch.Tensor:
    first: list[float] = h.detach().to(torch.float64).mean(1).tolist()
    return torch.tanh(h) * first[0]


class ScriptedList(Net):
    """Makes Python values where nothing sees it."""

    def middle(self, h):
        return scripted_list(self.b(h))


class DropoutAlways(Net):
    """Dropout in evaluation too."""

    def middle(self, h):
        return F.dropout(super().middle(h), 0.3)


class WeightDropout(Net):
    """One mask on the weights, drawn in each step."""

    def middle(self, h):
        return torch.tanh(F.linear(h, F.dropout(self.b.weight, 0.3, self.training), self.b.bias))


class Sampled(Net):
    """Bernoulli, multinomial and Gumbel draws."""

    def middle(self, h):
        h = super().middle(h)
        if not self.training:
            return h
        gate = torch.bernoulli(torch.full_like(h, 0.8))
        chosen = torch.multinomial(h.detach().softmax(1), 4)
        kept = torch.zeros_like(h).scatter(1, chosen, 1.0)
        return h * gate + 0.1 * kept * h + 0.1 * F.gumbel_softmax(h, hard=True)


class Permuted(Net):
    """Mixes examples of a batch in a random order."""

    def middle(self, h):
        h = super().middle(h)
        return 0.9 * h + 0.1 * h[torch.randperm(len(h))] if self.training else h


class OwnBuffer(Net):
    """Keeps a running mean in a buffer, in place."""

    def __init__(self):
        super().__init__()
        self.register_buffer("mean", torch.zeros(16))

    def middle(self, h):
        if self.training:
            self.mean.lerp_(h.detach().mean(0), 0.1)
        return super().middle(h - self.mean)


class SlowWeights(Net):
    """Keeps a moving average of the weights, which takes part in the output."""

    def __init__(self):
        super().__init__()
        self.slow = nn.Linear(16, 16)
        self.slow.load_state_dict(self.b.state_dict())
        self.slow.requires_grad_(False)

    @torch.no_grad()
    def average(self):
        for slow, fast in zip(self.slow.parameters(), self.b.parameters(), strict=True):
            slow.lerp_(fast, torch.tensor(0.1))

    def middle(self, h):
        if self.training:
            self.average()
        return torch.tanh(self.b(h) + 0.5 * self.slow(h))


class SlowLists(SlowWeights):
    """By functions of lists of tensors."""

    @torch.no_grad()
    def average(self):
        slow, fast = list(self.slow.parameters()), list(self.b.parameters())
        torch._foreach_lerp_(slow, fast, 0.1)
        torch._foreach_mul_(slow, [0.9, 0.8])
        torch._foreach_add_(slow, fast, alpha=0.1)


class NewBuffer(OwnBuffer):
    """As a new tensor in every step."""

    def middle(self, h):
        if self.training:
            self.mean = 0.9 * self.mean + 0.1 * h.detach().mean(0)
        return Net.middle(self, h - self.mean)


class HiddenBuffer(Net):
    """In a buffer outside the state dict, written by `.data`."""

    def __init__(self):
        super().__init__()
        self.register_buffer("mean", torch.zeros(16), persistent=False)

    def middle(self, h):
        if self.training:
            self.mean.data = 0.9 * self.mean + 0.1 * h.detach().mean(0)
        return super().middle(h - self.mean)


class CountingBuffer(Net):
    """A whole number in a buffer decides."""

    def __init__(self):
        super().__init__()
        self.register_buffer("calls", torch.zeros((), dtype=torch.long))

    def middle(self, h):
        if self.training:
            self.calls += 1
        return h if int(self.calls) > 20 else super().middle(h)


class WhereBuffer(CountingBuffer):
    """The same without Python."""

    def middle(self, h):
        if self.training:
            self.calls += 1
        return torch.where(self.calls > 20, h, Net.middle(self, h))


class Quantized(Net):
    """Observes its range in training, as fake quantization does."""

    def __init__(self):
        super().__init__()
        self.register_buffer("top", torch.zeros(()))

    def middle(self, h):
        h = super().middle(h)
        if self.training:
            self.top.copy_(torch.maximum(self.top, h.detach().abs().max()))
        step = self.top.clamp_min(1e-6) / 8
        return h + (torch.round(h / step) * step - h).detach()


class Checkpointed(Net):
    def middle(self, h):
        return checkpoint(super().middle, h, use_reentrant=False)


class CheckpointedDropout(Net):
    """The recomputation draws the same mask."""

    def middle(self, h):
        return checkpoint(
            lambda x: F.dropout(super(CheckpointedDropout, self).middle(x), 0.3, self.training), h, use_reentrant=False
        )


class SortedActivations(Net):
    def middle(self, h):
        return super().middle(h).sort(1).values


class TopK(Net):
    """Only the four largest activations pass."""

    def middle(self, h):
        h = super().middle(h)
        top = h.topk(4, 1)
        return torch.zeros_like(h).scatter(1, top.indices, top.values)


class Median(Net):
    def middle(self, h):
        h = super().middle(h)
        return h - h.median(0).values


class Unique(Net):
    """Its shape depends on the values."""

    def middle(self, h):
        h = super().middle(h)
        return h / torch.unique(torch.round(8 * h.detach())).numel()


class Masked(Net):
    def middle(self, h):
        h = super().middle(h)
        return h + h[h > 0].mean()


class InPlace(Net):
    """Writes into its own activations."""

    def middle(self, h):
        h = self.b(h)
        h.add_(1.0)
        h[:, ::2] *= 0.5
        return h.tanh_()


class InputInPlace(Net):
    """Writes into the batch."""

    def forward(self, x):
        x.clamp_(-1, 1)
        return super().forward(x)


class Solved(Net):
    def middle(self, h):
        gram = self.b.weight @ self.b.weight.mT + torch.eye(16)
        return torch.linalg.solve(gram, h.mT).mT


class Determinant(Net):
    def middle(self, h):
        gram = self.b.weight @ self.b.weight.mT + torch.eye(16)
        return super().middle(h) * torch.linalg.slogdet(gram).logabsdet / 16


class InnerGradient(Net):
    """A force: the gradient of an energy, computed within the model."""

    def forward(self, x):
        with torch.enable_grad():
            x = x.requires_grad_(True)
            energy = super().forward(x).sum()
            (force,) = torch.autograd.grad(energy, x, create_graph=self.training)
        return force.sum(1, keepdim=True)


class FunctionalGradient(Net):
    """The same through torch.func."""

    def forward(self, x):
        energy = super().forward
        return torch.func.vmap(torch.func.grad(lambda one: energy(one).sum()))(x).sum(1, keepdim=True)


class Iterated(Net):
    """A fixed point, until it moves less than a bound."""

    def middle(self, h):
        z = torch.zeros_like(h)
        for _ in range(30):
            new = torch.tanh(0.5 * self.b(z) + h)
            if float((new - z).abs().max().detach()) < 1e-2:
                break
            z = new
        return new


class ByBatchSize(Net):
    """Another path for a batch that is not full."""

    def middle(self, h):
        return super().middle(h) if len(h) % 16 == 0 else h


def make(model):
    return regression(globals()[model])


def make_words(model):
    """Sequences of five of nine words, 0 being padding; three classes."""
    ids = torch.randint(0, WORDS, (TRAIN + VAL, 5), generator=torch.Generator().manual_seed(1))
    train, val = split(ids, ids.sum(1) % CLASSES)
    return Task(train=train, val=val, model=globals()[model], loss=F.cross_entropy)


def make_classes(loss):
    x, _ = points()
    label = (x.sum(1) > 0).long() + (x[:, 0] > 1).long()
    train, val = split(x, label)
    return Task(train=train, val=val, model=Classifier, loss=globals()[loss])


TEXTS = [
    name for name, value in vars().items() if isinstance(value, type) and issubclass(value, Bag) and value is not Bag
]
LOSSES = ["IgnoreIndex", "ClassWeights", "Smoothing", "MultiMargin"]
MODELS = [
    name for name, value in vars().items() if isinstance(value, type) and issubclass(value, Net) and value is not Net
]
