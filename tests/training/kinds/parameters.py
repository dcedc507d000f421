"""What is trained, and by which gradients, is not the same in every step, seed or parameter."""

import itertools

import torch
import torch.nn.functional as F
from kinds_common import TRAIN, VAL, Net, points, regression, split
from torch import nn
from torch.nn.utils import prune

from lrsweep import Task

LATE = 20


class LateLayer(Net):
    """A layer that only some batches use, and not the first ones."""

    def __init__(self):
        super().__init__()
        self.extra = nn.Linear(16, 1)

    def forward(self, x, flag):
        h = self.middle(torch.tanh(self.a(x)))
        return self.c(h) + self.extra(h) if int(flag[0]) else self.c(h)


class InTurn(Net):
    """Three branches that take turns."""

    def __init__(self):
        super().__init__()
        self.branches = nn.ModuleList(nn.Linear(16, 16) for _ in range(3))
        self.turn = itertools.count()

    def middle(self, h):
        turn = next(self.turn) if self.training else 0
        return torch.tanh(self.branches[turn % 3](h))


class ByData(Net):
    """The values of a batch choose the branch."""

    def __init__(self):
        super().__init__()
        self.branches = nn.ModuleList(nn.Linear(16, 16) for _ in range(3))

    def middle(self, h):
        return torch.tanh(self.branches[int(h.abs().sum() * 1000) % 3](h))


class SomeEpochs(Net):
    """A layer in use in every third epoch of four steps."""

    def __init__(self):
        super().__init__()
        self.extra, self.calls = nn.Linear(16, 16), 0

    def middle(self, h):
        used = self.calls // 4 % 3 == 2
        self.calls += self.training
        return super().middle(h + self.extra(h) if used else h)


class OneSeed(Net):
    """A seed draws whether a layer is used."""

    def __init__(self):
        super().__init__()
        self.extra, self.used = nn.Linear(16, 16), bool(torch.rand(()) < 0.5)

    def middle(self, h):
        return super().middle(h + self.extra(h) if self.used else h)


class SeedWidth(Net):
    """A seed draws how wide the middle is."""

    def __init__(self):
        super().__init__()
        width = 8 + int(torch.randint(0, 8, ()))
        self.b = nn.Sequential(nn.Linear(16, width), nn.Tanh(), nn.Linear(width, 16))


class Frozen(Net):
    def __init__(self):
        super().__init__()
        self.a.requires_grad_(False)


class FrozenLater(Net):
    calls = 0

    def middle(self, h):
        self.calls += self.training
        if self.calls == LATE:
            self.b.requires_grad_(False)
        return super().middle(h)


class FrozenFirst(Net):
    """Frozen, and trained from some step on."""

    def __init__(self):
        super().__init__()
        self.b.requires_grad_(False)
        self.calls = 0

    def middle(self, h):
        self.calls += self.training
        if self.calls == LATE:
            self.b.requires_grad_(True)
        return super().middle(h)


class Unused(Net):
    def __init__(self):
        super().__init__()
        self.spare = nn.Linear(3, 3)


class Zero(Net):
    """A parameter whose gradient is zero, not None: weight decay and momentum act on it."""

    def __init__(self):
        super().__init__()
        self.gain = nn.Parameter(torch.ones(16))

    def middle(self, h):
        return super().middle(h) + 0.0 * self.gain


class Tied(Net):
    def __init__(self):
        super().__init__()
        self.d = nn.Linear(16, 16)
        self.d.weight = self.b.weight

    def middle(self, h):
        return torch.tanh(self.d(super().middle(h)))


class TiedTransposed(Net):
    def middle(self, h):
        return torch.tanh(F.linear(super().middle(h), self.b.weight.t()))


class SharedModule(Net):
    """One module under two names."""

    def __init__(self):
        super().__init__()
        self.d = self.b

    def middle(self, h):
        return torch.tanh(self.d(super().middle(h)))


class Scalar(Net):
    def __init__(self):
        super().__init__()
        self.gain = nn.Parameter(torch.tensor(1.0))

    def middle(self, h):
        return super().middle(h) * self.gain


class Complex(Net):
    """A spectral layer with complex weights."""

    def __init__(self):
        super().__init__()
        self.filter = nn.Parameter(torch.randn(9, dtype=torch.complex128))

    def middle(self, h):
        return super().middle(torch.fft.irfft(torch.fft.rfft(h) * self.filter, n=16))


class Plain(Net):
    """Weights that are no parameters of a module but of a list within one."""

    def __init__(self):
        super().__init__()
        self.scales = nn.ParameterList(torch.ones(16) for _ in range(2))
        self.shifts = nn.ParameterDict({"b": torch.zeros(16)})

    def middle(self, h):
        return super().middle(h * self.scales[0] + self.shifts["b"]) * self.scales[1]


class ParameterHook(Net):
    """A hook halves the gradient of one weight."""

    def __init__(self):
        super().__init__()
        self.b.weight.register_hook(lambda grad: 0.5 * grad)


class GradientMask(Net):
    """A hook keeps pruned weights at zero."""

    def __init__(self):
        super().__init__()
        mask = (torch.rand(16, 16) < 0.5).to(self.b.weight.dtype)
        with torch.no_grad():
            self.b.weight.mul_(mask)
        self.b.weight.register_hook(lambda grad: grad * mask)


class AccumulatedHook(Net):
    """A hook that edits the gradient after it was added up."""

    def __init__(self):
        super().__init__()
        self.b.weight.register_post_accumulate_grad_hook(self.clamped)

    @staticmethod
    def clamped(weight):
        weight.grad.clamp_(-1e-3, 1e-3)


class ForwardHook(Net):
    def __init__(self):
        super().__init__()
        self.b.register_forward_hook(lambda module, inputs, output: output + 0.1 * output.square())


class ForwardPreHook(Net):
    def __init__(self):
        super().__init__()
        self.b.register_forward_pre_hook(lambda module, inputs: (inputs[0] * 1.5,))


class CountingHook(Net):
    """A forward hook that acts after some calls."""

    def __init__(self):
        super().__init__()
        self.calls = 0
        self.b.register_forward_hook(self.late)

    def late(self, module, inputs, output):
        self.calls += self.training
        return output * (0.5 if self.calls > LATE else 1.0)


class BackwardHook(Net):
    """A module's hook that halves the gradient passed back."""

    def __init__(self):
        super().__init__()
        self.b.register_full_backward_hook(lambda module, inputs, outputs: (0.5 * inputs[0],))


class BackwardPreHook(Net):
    def __init__(self):
        super().__init__()
        self.b.register_full_backward_pre_hook(lambda module, outputs: (0.5 * outputs[0],))


class ActivationHook(Net):
    """A hook on an activation, set in every forward."""

    def middle(self, h):
        h = super().middle(h)
        if h.requires_grad:
            h.register_hook(lambda grad: grad.clamp(-1e-3, 1e-3))
        return h


class RememberingHook(Net):
    """Divides a gradient by the running mean of its own size, a Python number."""

    def __init__(self):
        super().__init__()
        self.size = 1.0
        self.b.weight.register_hook(self.normalised)

    def normalised(self, grad):
        self.size = 0.9 * self.size + 0.1 * float(grad.norm())
        return grad / self.size


class Reversal(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        return x.view_as(x)

    @staticmethod
    def backward(ctx, grad):
        return -0.1 * grad


class OwnBackward(Net):
    """An autograd function of the user's, here gradient reversal."""

    def middle(self, h):
        return super().middle(Reversal.apply(h))


class StraightThrough(Net):
    """Rounds its activations and passes gradients through."""

    def middle(self, h):
        h = super().middle(h)
        return h + (torch.round(4 * h) / 4 - h).detach()


class OwnParameters(Net):
    """Gives the optimizer the head alone."""

    def parameters(self, recurse=True):
        return self.c.parameters(recurse)


class OwnNamedParameters(Net):
    """Leaves the first layer out."""

    def named_parameters(self, *args, **kwargs):
        return ((name, value) for name, value in super().named_parameters(*args, **kwargs) if not name.startswith("a."))


class Doubling(torch.Tensor):
    """A tensor whose products count twice."""

    @classmethod
    def __torch_function__(cls, func, types, args=(), kwargs=None):
        result = super().__torch_function__(func, types, args, kwargs or {})
        if func in (F.linear, torch.matmul):
            return 2.0 * result.as_subclass(torch.Tensor)
        return result


class TensorSubclass(Net):
    """A constant of a class with `__torch_function__`."""

    def __init__(self):
        super().__init__()
        self.mixing = torch.eye(16).as_subclass(Doubling)

    def middle(self, h):
        return super().middle(torch.matmul(h, self.mixing).as_subclass(torch.Tensor))


class Clamped(Net):
    """Keeps its weights within bounds, in place, whenever it is called."""

    def middle(self, h):
        with torch.no_grad():
            self.b.weight.clamp_(-0.1, 0.1)
        return super().middle(h)


class Normed(Net):
    """Renormalizes a weight through `.data` in training."""

    def middle(self, h):
        if self.training:
            self.b.weight.data /= self.b.weight.data.norm(dim=1, keepdim=True)
        return super().middle(h)


class Detached(Net):
    """One layer gets no gradient from the loss in every second step."""

    def __init__(self):
        super().__init__()
        self.turn = itertools.count()

    def middle(self, h):
        h = super().middle(h)
        return h.detach() if self.training and next(self.turn) % 2 else h


class NoGrad(Net):
    """A part under no_grad: what comes before it is not trained."""

    def middle(self, h):
        with torch.no_grad():
            h = super().middle(h)
        return h


class Multiplied(Net):
    """Parameters with an attribute of their own, for an optimizer that reads it."""

    def __init__(self):
        super().__init__()
        for parameter in self.a.parameters():
            parameter.lr_mult = 0.1


class CountsOnWeight(Net):
    """Counts its training steps in an attribute of a weight."""

    def middle(self, h):
        weight = self.b.weight
        weight.calls = getattr(weight, "calls", 0) + self.training
        return super().middle(h) * (0.5 if weight.calls > LATE else 1.0)


class ReadsMomentum(Net):
    """Reads an attribute that the optimizer gives to a weight."""

    def middle(self, h):
        momentum = getattr(self.b.weight, "momentum", None)
        return super().middle(h) * (1.0 if momentum is None else 1.0 - momentum.norm().clamp(max=0.5))


class Reset(Net):
    """Draws its middle layer's weights anew at some step."""

    calls = 0

    def middle(self, h):
        self.calls += self.training
        if self.training and self.calls == LATE:
            self.b.reset_parameters()
        return super().middle(h)


class NewParameter(Net):
    """Puts another parameter in the place of one: the optimizer goes on with the old one."""

    calls = 0

    def middle(self, h):
        self.calls += self.training
        if self.training and self.calls == LATE:
            self.b.weight = nn.Parameter(0.5 * self.b.weight.detach())
        return super().middle(h)


class NewLayer(Net):
    """Makes another layer at some step, which the optimizer does not know."""

    calls = 0

    def middle(self, h):
        self.calls += self.training
        if self.training and self.calls == LATE:
            self.extra = nn.Linear(16, 16)
        return super().middle(h + self.extra(h) if hasattr(self, "extra") else h)


class Unregistered(Net):
    """A weight in a list, which no optimizer is given."""

    def __init__(self):
        super().__init__()
        self.hidden = [torch.ones(16, requires_grad=True)]

    def middle(self, h):
        return super().middle(h * self.hidden[0])


class FrozenBySeed(Net):
    """A seed draws whether a layer is trained."""

    def __init__(self):
        super().__init__()
        self.b.requires_grad_(bool(torch.rand(()) < 0.5))


class Pruned(Net):
    """Half of the weights are masked, by a hook that computes them before each forward."""

    def __init__(self):
        super().__init__()
        prune.random_unstructured(self.b, "weight", amount=0.5)


class InnerLoop(Net):
    """Makes a gradient step within its forward, as meta-learning does."""

    def forward(self, x):
        weights = {name: value for name, value in self.named_parameters() if name.startswith("c.")}
        h = self.middle(torch.tanh(self.a(x)))
        with torch.enable_grad():
            inner = F.linear(h, weights["c.weight"], weights["c.bias"]).square().mean()
            grads = torch.autograd.grad(inner, list(weights.values()), create_graph=self.training)
        weight, bias = (value - 0.1 * grad for value, grad in zip(weights.values(), grads, strict=True))
        return F.linear(h, weight, bias)


class AutogradOnly(Net):
    """Parameters whose gradient a forward adds to by itself."""

    def middle(self, h):
        h = super().middle(h)
        if self.training and h.requires_grad:
            h.sum().mul(1e-3).backward(retain_graph=True)
        return h


def make(model):
    return regression(globals()[model])


def make_late(model):
    """The examples come in stored order: those of the last batches have the flag."""
    x, y = points()
    flag = (torch.arange(TRAIN + VAL) >= 48).long()
    train, val = split(x, flag, y)
    return Task(train=train, val=val, model=globals()[model], loss=F.mse_loss)


class LastEvaluation(Net):
    """An evaluation leaves a buffer for the steps after it: the one before the first step, too."""

    def __init__(self):
        super().__init__()
        self.register_buffer("mean", torch.zeros(16))

    def middle(self, h):
        if not self.training:
            self.mean.copy_(h.mean(0))
            return torch.tanh(self.b(h))
        return torch.tanh(self.b(h - self.mean))


class FirstEvaluation(LastEvaluation):
    """Only the evaluation before the first step."""

    def __init__(self):
        super().__init__()
        self.register_buffer("steps", torch.zeros(()))

    def middle(self, h):
        if self.training:
            self.steps += 1
        kept = self.mean.clone()
        out = super().middle(h)
        if self.steps > 0:
            self.mean.copy_(kept)
        return out


MODELS = [
    name for name, value in vars().items() if isinstance(value, type) and issubclass(value, Net) and value is not Net
]
