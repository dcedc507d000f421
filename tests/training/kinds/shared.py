"""Objects that model, loss, step and data know together; gradients, data and seeds that are touched on the way."""

import copy
import math
import random

import torch
import torch.nn.functional as F
from kinds_common import Net, points, regression, split
from torch import nn
from torch.utils.data import Dataset

from lrsweep import Task


class Remembering:
    """A loss that other objects read and write."""

    def __init__(self):
        self.model, self.seen, self.extra, self.parts = None, 0, 0.0, {}

    def __call__(self, output, target):
        self.seen += 1
        fit = F.mse_loss(output, target)
        self.parts["fit"] = fit.detach()
        decay = sum(p.square().sum() for p in self.model.parameters()) if self.model else 0.0
        return fit + 0.01 * decay + 0.1 * self.extra

    def fit(self, output, target):
        return self.parts["fit"]


def loss_knows_model():
    """The builder leaves the model in the loss, which penalizes its weights."""
    loss = Remembering()

    def build():
        loss.model = Net()
        return loss.model

    return regression(build, loss=loss)


def model_writes_into_loss():
    """The model leaves a second loss in the loss object."""
    loss = Remembering()

    class Writing(Net):
        def middle(self, h):
            h = super().middle(h)
            loss.extra = h.abs().mean()
            return h

    return regression(Writing, loss=loss)


def metric_of_loss():
    """A metric is a method of the loss object."""
    loss = Remembering()
    return regression(Net, loss=loss, metrics={"fit": loss.fit})


def data_reads_loss():
    """A Dataset whose targets depend on what the loss has counted."""
    loss = Remembering()

    class Annealed(Dataset):
        def __init__(self, part):
            self.x, self.y = split(*points())[part]

        def __len__(self):
            return len(self.x)

        def __getitem__(self, index):
            return self.x[index], self.y[index] * (1 if loss.seen < 20 else 2)

    return Task(train=Annealed(0), val=Annealed(1), model=Net, loss=loss)


class Critic:
    """A step whose second model has an optimizer of its own, made when the first model is built."""

    def __init__(self):
        self.net = self.optimizer = None

    def build(self):
        self.net = nn.Linear(1, 1)
        self.optimizer = torch.optim.SGD(self.net.parameters(), lr=0.05)
        return Net()

    def __call__(self, model, batch):
        x, y = batch
        output = model(x)
        if model.training:
            self.optimizer.zero_grad()
            self.net.to(x.dtype)
            F.mse_loss(self.net(output.detach()), y).backward()
            self.optimizer.step()
        return F.mse_loss(output, y) + 0.1 * self.net(output).square().mean().detach() * output.mean()


def critic():
    step = Critic()
    return regression(step.build, step=step)


class Hooked(Net):
    def __init__(self, change):
        super().__init__()
        self.b.weight.register_post_accumulate_grad_hook(change)


class CriticModule(nn.Module):
    """A step that is a module, whose own weights are made with the model."""

    def build(self):
        self.net = nn.Linear(1, 1).double()
        self.optimizer = torch.optim.SGD(self.net.parameters(), lr=0.05)
        return Net()

    def forward(self, model, batch):
        return Critic.__call__(self, model, batch)


def critic_module():
    step = CriticModule()
    return regression(step.build, step=step)


def copied_deep():
    """A number of the batch, copied."""

    def step(model, batch):
        x, y = batch
        return F.mse_loss(model(x), y) * (1 + copy.deepcopy(y.abs().mean()))

    return regression(Net, step=step)


def made_a_parameter():
    """A parameter made of what a batch gives, in every step."""

    def step(model, batch):
        x, y = batch
        return F.mse_loss(model(x), y) * (1 + nn.Parameter(y.abs().mean().clone()).detach())

    return regression(Net, step=step)


def gradient_transposed():
    """A hook that lays a gradient out in another order."""

    def change(weight):
        weight.grad = weight.grad.t().clone().t() * 0.5

    return regression(lambda: Hooked(change))


def gradient_expanded():
    """A hook that gives all rows one gradient, in the memory of one."""

    def change(weight):
        weight.grad = weight.grad.mean(0, keepdim=True).expand_as(weight)

    return regression(lambda: Hooked(change))


def data_written_by_step():
    """A step that moves the targets of other examples towards what the model says."""
    train, val = split(*points())
    x, y = train[0].double(), train[1].double()

    def step(model, batch):
        x_batch, target, index = batch
        output = model(x_batch)
        if model.training:
            with torch.no_grad():
                later = (index + 1) % len(y)
                y[later] = 0.8 * y[later] + 0.2 * output
        return F.mse_loss(output, target)

    number = torch.arange(len(x)), torch.zeros(len(val[0]), dtype=torch.long)
    return Task(train=(x, y, number[0]), val=(*val, number[1]), model=Net, step=step)


def applied():
    """Targets clipped by a Python function, element by element."""

    def step(model, batch):
        x, y = batch
        return F.mse_loss(model(x), y.clone().apply_(lambda value: min(value, 0.3)))

    return regression(Net, step=step)


def split_by_count():
    """A batch split where its own numbers say."""

    def step(model, batch):
        x, y = batch
        order = torch.argsort((y[:, 0] > 0).long(), descending=True, stable=True)
        count = (y[:, 0] > 0).sum().clamp(min=1).reshape(1)
        x, y = (torch.tensor_split(part.index_select(0, order), count)[0] for part in (x, y))
        return F.mse_loss(model(x), y)

    return regression(Net, step=step)


def tensor_of_tensors():
    """Weights of the parts of a loss, as numbers of a new tensor."""

    def loss(output, target):
        there = torch.tensor([(target > limit).any() for limit in (-0.5, 0.9, 0.99)], dtype=output.dtype)
        parts = torch.stack([(output - target).abs().mean() * k for k in (1, 2, 3)])
        return (parts * there).sum()

    return regression(Net, loss=loss)


def initial_seed():
    """A branch by torch's seed."""

    def step(model, batch):
        x, y = batch
        if model.training and random.Random(torch.initial_seed()).random() < 0.2:
            y = -y
        return F.mse_loss(model(x), y)

    return regression(Net, step=step)


def derivatives_and_count():
    """A step that takes derivatives in evaluations too, and counts its calls."""
    calls = 0

    def step(model, batch):
        nonlocal calls
        calls += 1
        x, y = batch
        x = x.clone().requires_grad_()
        output = model(x)
        (slope,) = torch.autograd.grad(output.sum(), x, create_graph=True)
        return F.mse_loss(output, y) + 0.01 * calls * slope.square().mean()

    step.wants_gradients = True
    return regression(Net, step=step)


class Smoothing(nn.Module):
    """A loss that smooths the target while it is in training mode, which nobody ends."""

    def forward(self, output, target):
        return F.mse_loss(output, 0.9 * target if self.training else target)


class Features(nn.Module):
    """A loss in features of a network with normalization and dropout, which its author put in evaluation mode."""

    def __init__(self):
        super().__init__()
        self.net = nn.Sequential(nn.Linear(1, 8), nn.BatchNorm1d(8), nn.Tanh(), nn.Dropout(0.3)).double()
        with torch.random.fork_rng():
            torch.manual_seed(1)
            nn.init.normal_(self.net[0].weight)
        self.net.eval().requires_grad_(False)

    def forward(self, output, target):
        return F.mse_loss(self.net(output.double()), self.net(target.double())) + F.mse_loss(output, target)


def loss_in_training_mode():
    return regression(Net, loss=Smoothing())


def loss_in_evaluation_mode():
    return regression(Net, loss=Features())


class Normalizing(nn.Module):
    """A loss that normalizes by the batches it sees, those of evaluations too, and drops some of it out."""

    def __init__(self):
        super().__init__()
        self.norm, self.drop = nn.BatchNorm1d(1, affine=False).double(), nn.Dropout(0.2)

    def forward(self, output, target):
        self.norm(target.double())
        scale = self.norm.running_var.sqrt() + 1e-3
        return self.drop((output - target).square() / scale).mean()


def loss_that_normalizes():
    return regression(Net, loss=Normalizing())


def data_of_another_dtype_written():
    """A step that moves targets that are not of the spec's dtype."""
    train, val = split(*points())
    soft = train[1].float().clone()

    def step(model, batch):
        x, target, index = batch
        output = model(x)
        if model.training:
            with torch.no_grad():
                soft[index] = 0.7 * soft[index] + 0.3 * output.to(soft.dtype)
        return F.mse_loss(output, target)

    number = torch.arange(len(soft)), torch.zeros(len(val[0]), dtype=torch.long)
    return Task(train=(train[0], soft, number[0]), val=(*val, number[1]), model=Net, step=step)


class Picking(Net):
    """Features picked by a buffer of integers."""

    def __init__(self):
        super().__init__()
        self.register_buffer("order", torch.randperm(16))

    def middle(self, h):
        return super().middle(h)[:, self.order]


class LateBuffer(Net):
    """A buffer that is None until the first batch."""

    def __init__(self):
        super().__init__()
        self.register_buffer("mean", None)

    def forward(self, x):
        if self.mean is None:
            self.mean = x.detach().mean(0)
        return super().forward(x - self.mean)


def picked_by_integers():
    return regression(Picking)


def buffer_made_later():
    return regression(LateBuffer)


class Collated(Dataset):
    """Whole numbers, or measurements where the index says so."""

    def __init__(self, count, start, measured=()):
        self.count, self.start, self.measured = count, start, measured

    def __len__(self):
        return self.count

    def __getitem__(self, index):
        numbers = random.Random(index + self.start)
        values = [numbers.randint(0, 9) for _ in range(4)]
        target = [math.sin(sum(values))]
        return index, [value / 9 - 0.5 for value in values] if index in self.measured else values, target


def whole_numbers(examples):
    _, values, targets = zip(*examples, strict=True)
    return torch.tensor(values), torch.tensor(targets)


def sometimes_transposed(examples):
    indices, values, targets = zip(*examples, strict=True)
    inputs = torch.tensor(values, dtype=torch.float64)
    return (inputs.T.contiguous().T if 15 in indices else inputs), torch.tensor(targets)


class ByDtype(Net):
    def forward(self, x):
        return super().forward(x if x.is_floating_point() else x / 9 - 0.5)


class ByStrides(Net):
    def forward(self, x):
        return super().forward(x / 9 - 0.5 if x.is_contiguous() else 0.5 - x / 9)


def batch_of_another_dtype():
    """One batch of an epoch is of floats, all others of integers."""
    train, val = Collated(64, 1000, (15,)), Collated(32, 2000)
    return Task(train=train, val=val, collate_fn=whole_numbers, model=ByDtype, loss=F.mse_loss)


def batch_of_another_layout():
    """One batch of an epoch lies transposed in memory."""
    train, val = Collated(64, 1000), Collated(32, 2000)
    return Task(train=train, val=val, collate_fn=sometimes_transposed, model=ByStrides, loss=F.mse_loss)


TASKS = {
    function.__name__: function
    for function in (
        loss_knows_model, model_writes_into_loss, metric_of_loss, data_reads_loss, critic, critic_module,
        copied_deep, made_a_parameter, gradient_transposed,
        gradient_expanded, data_written_by_step, applied, split_by_count, tensor_of_tensors, initial_seed,
        derivatives_and_count, loss_in_training_mode, loss_in_evaluation_mode, loss_that_normalizes,
        data_of_another_dtype_written, picked_by_integers, buffer_made_later,
        batch_of_another_dtype, batch_of_another_layout,
    )
}  # fmt: skip


def make(kind):
    return TASKS[kind]()
