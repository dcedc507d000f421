"""Optimizer classes that are right alone, each with an idea that another way of training could miss."""

import collections
import functools
import itertools
import logging
import math
import random
import types

import kinds_counter
import numpy as np
import torch
from torch.optim import Optimizer

CALLS = 0


class Each(Optimizer):
    """Calls `one` for every parameter that has a gradient, with its count of steps in `state`."""

    def __init__(self, params, lr=1e-2, **args):
        super().__init__(params, {"lr": lr, **args})

    @torch.no_grad()
    def step(self, closure=None):
        for group in self.param_groups:
            for p in group["params"]:
                if p.grad is not None:
                    state = self.state[p]
                    state["n"] = state.get("n", 0) + 1
                    self.one(p, p.grad, group, state)

    def one(self, p, grad, group, state):
        p.add_(grad, alpha=-group["lr"] * self.factor(p, grad, state))

    def factor(self, p, grad, state):
        return 1.0


class Whole(Each):
    """Asks `whole` for one factor for all parameters before each step."""

    def step(self, closure=None):
        self.now = self.whole([p for group in self.param_groups for p in group["params"] if p.grad is not None])
        super().step()

    def factor(self, p, grad, state):
        return self.now

    def whole(self, params):
        raise NotImplementedError


def norm_of(tensors):
    return float(torch.stack([tensor.detach().norm() for tensor in tensors]).norm())


class AsksAutograd(Whole):
    """Half the step where autograd is off; after `loss.backward()` it is on."""

    def whole(self, params):
        return 1.0 if torch.is_grad_enabled() else 0.5


class GoesOnFromMean(Each):
    """An evaluation moves the weights to their mean since the last one, and training goes on from there."""

    def one(self, p, grad, group, state):
        super().one(p, grad, group, state)
        state["sum"] = state.get("sum", 0) + p

    @torch.no_grad()
    def eval(self):
        for p, state in self.state.items():
            if "sum" in state:
                p.copy_(state.pop("sum") / state["n"])
                state["n"] = 0

    def train(self):
        pass


# ---------------------------------------------------------------------- all weights


class Normalised(Whole):
    """The gradient of all weights has length 1."""

    def whole(self, params):
        return 1.0 / (norm_of([p.grad for p in params]) + 1e-12)


class DistanceFromStart(Whole):
    """A step as long as the way from the start, estimated over all weights."""

    start = None

    def whole(self, params):
        if self.start is None:
            self.start, self.far, self.sum = [p.detach().clone() for p in params], 1e-3, 0.0
        self.far = max(self.far, norm_of([p - s for p, s in zip(params, self.start, strict=True)]))
        self.sum += norm_of([p.grad for p in params]) ** 2
        return 10 * self.far / math.sqrt(self.sum)


class WeightNorm(Whole):
    """By the size of all weights over that of all gradients."""

    def whole(self, params):
        return norm_of(params) / (norm_of([p.grad for p in params]) + 1e-3) * 0.05


class SpectralSum(Whole):
    """By how the loss's gradient turned since the step before."""

    past = None

    def whole(self, params):
        now = torch.cat([p.grad.flatten() for p in params])
        turned = 1.0 if self.past is None else float(torch.cosine_similarity(now, self.past, dim=0))
        self.past = now
        return 1.0 if turned > 0 else 0.3


class InOrder(Each):
    """A parameter's step depends on those before it."""

    def step(self, closure=None):
        self.sum = 0.0
        super().step()

    def factor(self, p, grad, state):
        self.sum += float(grad.norm())
        return 1.0 / (1.0 + self.sum)


# ---------------------------------------------------------------------- the rate


class BuildRate(Each):
    """Goes by the rate it was built with, as final rates do."""

    def __init__(self, params, lr=1e-2):
        super().__init__(params, lr)
        self.base = [group["lr"] for group in self.param_groups]

    def one(self, p, grad, group, state):
        p.add_(grad.clamp(-self.base[0], self.base[0]), alpha=-0.5 * group["lr"] / self.base[0])


class SelfHalving(Each):
    """Halves its own rate every 15 steps."""

    def step(self, closure=None):
        super().step()
        self.steps = getattr(self, "steps", 0) + 1
        if self.steps % 15 == 0:
            for group in self.param_groups:
                group["lr"] *= 0.5


class SelfSetting(Each):
    """Sets its rate from the one it was built with."""

    def __init__(self, params, lr=1e-2):
        super().__init__(params, lr)
        self.base, self.count = lr, itertools.count(1)

    def step(self, closure=None):
        for group in self.param_groups:
            group["lr"] = self.base / math.sqrt(next(self.count))
        super().step()


class OwnWarmup(Each):
    """A schedule of its own, by its count of steps."""

    def factor(self, p, grad, state):
        return min(1.0, state["n"] / 20)


class OwnCosine(Each):
    """One of torch's schedulers on itself."""

    def __init__(self, params, lr=1e-2):
        super().__init__(params, lr)
        self.schedule = torch.optim.lr_scheduler.CosineAnnealingLR(self, 48)

    @torch.no_grad()
    def step(self, closure=None):
        super().step()
        self.schedule.step()


class Quadratic(Each):
    """A step that is not proportional to the rate."""

    def one(self, p, grad, group, state):
        p.add_(grad, alpha=-(math.sqrt(group["lr"]) / 4 + group["lr"] ** 2))


class TensorRate(Each):
    """Keeps the rate in a tensor."""

    def __init__(self, params, lr=1e-2):
        super().__init__(params, lr)
        self.rate = torch.tensor(float(lr))

    def one(self, p, grad, group, state):
        p.sub_(self.rate * grad)
        self.rate.mul_(0.999)


# ---------------------------------------------------------------------- shapes


class BySize(Each):
    """Momentum of large tensors is kept in a few levels per block."""

    def one(self, p, grad, group, state):
        m = state.get("m", torch.zeros_like(p)) * 0.9 + grad
        p.add_(m, alpha=-group["lr"])
        if p.numel() >= 100:
            blocks = m.reshape(-1, 64)
            top = blocks.abs().amax(1, keepdim=True).clamp_min(1e-30)
            m = (torch.round(blocks / top * 8) / 8 * top).reshape(m.shape)
        state["m"] = m


class Factored(Each):
    """Second moments by rows and columns where both sides are 16 and more."""

    def one(self, p, grad, group, state):
        v = grad * grad
        if p.dim() >= 2 and min(p.shape[-2:]) >= 16:
            rows, columns = v.mean(-1, keepdim=True), v.mean(-2, keepdim=True)
            v = rows * columns / rows.mean(-2, keepdim=True).clamp_min(1e-30)
        u = grad / (v.sqrt() + 1e-3)
        p.add_(u / max(1.0, float(u.square().mean().sqrt())), alpha=-group["lr"])


class ByDimension(Each):
    """Matrices by their sign, the rest as they are."""

    def one(self, p, grad, group, state):
        p.add_(0.1 * grad.sign() if p.dim() == 2 else grad, alpha=-group["lr"])


class Orthogonalised(Each):
    """The polar factor of a matrix's gradient."""

    def one(self, p, grad, group, state):
        if p.dim() == 2:
            u, _, v = torch.linalg.svd(grad + 1e-9, full_matrices=False)
            grad = 0.1 * u @ v
        p.add_(grad, alpha=-group["lr"])


class Centralised(Each):
    """The mean of each row of a gradient is taken off."""

    def one(self, p, grad, group, state):
        p.add_(grad - grad.mean(-1, keepdim=True) if p.dim() > 1 else grad, alpha=-group["lr"])


class FirstByIndex(Each):
    """The first and the last parameter have their own factor."""

    def factor(self, p, grad, state):
        params = self.param_groups[0]["params"]
        return 0.1 if p is params[0] else 2.0 if p is params[-1] else 1.0


class ReadsAttribute(Each):
    """Scales the step of a parameter by an attribute that the model gave it."""

    def factor(self, p, grad, state):
        return getattr(p, "lr_mult", 1.0)


# ---------------------------------------------------------------------- late


class Lookahead(Each):
    """Half way back to the weights of 20 steps ago, every 20 steps."""

    def one(self, p, grad, group, state):
        state.setdefault("slow", p.clone())
        p.add_(grad, alpha=-group["lr"])
        if state["n"] % 20 == 0:
            p.copy_(state["slow"].lerp_(p, 0.5))


class LateDecay(Each):
    """Weight decay from step 21 on."""

    def one(self, p, grad, group, state):
        p.add_(grad, alpha=-group["lr"])
        if state["n"] > 20:
            p.mul_(1 - 0.5 * group["lr"])


class LateGroup(Each):
    """Changes its own group after some steps."""

    def __init__(self, params, lr=1e-2):
        super().__init__(params, lr, momentum=0.0)

    def one(self, p, grad, group, state):
        if state["n"] == 20:
            group["momentum"] = 0.9
        state["m"] = state.get("m", torch.zeros_like(p)) * group["momentum"] + grad
        p.add_(state["m"], alpha=-group["lr"])


class EverySecond(Each):
    """Adds up gradients and steps every second time."""

    def one(self, p, grad, group, state):
        state["sum"] = state.get("sum", 0.0) + grad
        if state["n"] % 2 == 0:
            p.add_(state["sum"], alpha=-group["lr"])
            state["sum"] = torch.zeros_like(p)


class NewGroup(Each):
    """Moves the last layer into a group of its own."""

    def step(self, closure=None):
        super().step()
        self.made = getattr(self, "made", 0) + 1
        if self.made == 20:
            last = self.param_groups[0]["params"].pop()
            self.add_param_group({"params": [last], "lr": 0.1 * self.param_groups[0]["lr"]})


# ---------------------------------------------------------------------- gradients


class ClipsLarge(Each):
    """A gradient longer than 10 is scaled down to 10."""

    def factor(self, p, grad, state):
        return min(1.0, 10.0 / (float(grad.norm()) + 1e-12))


class ClipsAll(Each):
    """Clips by torch's own function, which writes into the gradients."""

    def step(self, closure=None):
        torch.nn.utils.clip_grad_norm_(self.param_groups[0]["params"], 0.1)
        super().step()


class EditsGradients(Each):
    """Changes gradients in place."""

    def one(self, p, grad, group, state):
        grad.mul_(0.5).add_(p, alpha=0.01)
        p.grad.sub_(grad.mean())
        p.add_(p.grad, alpha=-group["lr"])


class ReplacesGradients(Each):
    """Puts another tensor in a gradient's place, and passes it to one of torch's optimizers."""

    def __init__(self, params, lr=1e-2):
        super().__init__(params, lr)
        self.inner = torch.optim.SGD(self.param_groups, lr=lr, momentum=0.9)

    @torch.no_grad()
    def step(self, closure=None):
        for p in self.param_groups[0]["params"]:
            p.grad = p.grad.sign() * 0.1
        self.inner.step()


class RememberedGradients(Each):
    """Keeps the gradient tensor itself, not a copy."""

    def one(self, p, grad, group, state):
        p.add_(grad + 0.5 * state.get("before", torch.zeros_like(grad)), alpha=-group["lr"])
        state["before"] = p.grad


class Hooked(Each):
    """Hooks on its parameters, which scale gradients."""

    def __init__(self, params, lr=1e-2):
        super().__init__(params, lr)
        for p in self.param_groups[0]["params"]:
            p.register_hook(lambda grad: grad * 0.5)


class StepHooks(Each):
    """Hooks on its own step, before and after."""

    def __init__(self, params, lr=1e-2):
        super().__init__(params, lr)
        self.register_step_pre_hook(self.before)
        self.register_step_post_hook(self.after)

    @staticmethod
    @torch.no_grad()
    def before(self, args, kwargs):
        for p in self.param_groups[0]["params"]:
            p.grad.clamp_(-0.01, 0.01)

    @staticmethod
    @torch.no_grad()
    def after(self, args, kwargs):
        for p in self.param_groups[0]["params"]:
            p.mul_(0.999)


class HookFromFirstStep(Each):
    """Its first step registers a hook, which is called after that step already."""

    def step(self, closure=None):
        super().step()
        if not self._optimizer_step_post_hooks:
            self.register_step_post_hook(self.shrink)

    @staticmethod
    @torch.no_grad()
    def shrink(self, args, kwargs):
        for p in self.param_groups[0]["params"]:
            p.mul_(0.98)


class ReplacesStep(Each):
    """Goes over to another step at the tenth."""

    def one(self, p, grad, group, state):
        p.add_(grad, alpha=-group["lr"])
        if state["n"] == 10:
            self.step = self.by_sign

    @torch.no_grad()
    def by_sign(self, closure=None):
        for p in self.param_groups[0]["params"]:
            p.add_(p.grad.sign(), alpha=-0.1 * self.param_groups[0]["lr"])


class KeepsGradients(Each):
    """Halves gradients where others clear them: a momentum."""

    @torch.no_grad()
    def zero_grad(self, set_to_none=True):
        for p in self.param_groups[0]["params"]:
            if p.grad is not None:
                p.grad.mul_(0.5)


class ForgetsAtRandom(Each):
    """Keeps a random share of the gradients where others clear them."""

    @torch.no_grad()
    def zero_grad(self, set_to_none=True):
        for p in self.param_groups[0]["params"]:
            if p.grad is not None:
                p.grad.mul_(torch.rand_like(p))


class InBackward(Each):
    """Steps as soon as a gradient is there, in a hook."""

    def __init__(self, params, lr=1e-2):
        super().__init__(params, lr)
        for p in self.param_groups[0]["params"]:
            p.register_post_accumulate_grad_hook(self.apply)

    @torch.no_grad()
    def apply(self, p):
        p.add_(p.grad, alpha=-self.param_groups[0]["lr"])
        p.grad = None

    def step(self, closure=None):
        pass


# ---------------------------------------------------------------------- what it keeps


class Inner(Optimizer):
    """Wraps one of torch's."""

    def __init__(self, params, lr=1e-2):
        super().__init__(params, {"lr": lr})
        self.inner = torch.optim.Adam(self.param_groups[0]["params"], lr=lr)

    def step(self, closure=None):
        self.inner.param_groups[0]["lr"] = 0.1 * self.param_groups[0]["lr"]
        self.inner.step()


class Kept(Whole):
    """A running size of the gradients, kept in one way or another."""

    def __init__(self, params, lr=1e-2):
        super().__init__(params, lr)
        self.keep()

    def whole(self, params):
        return 0.1 / self.running(norm_of([p.grad for p in params]))


class KeptDeque(Kept):
    def keep(self):
        self.past = collections.deque(maxlen=10)

    def running(self, norm):
        self.past.append(norm)
        return sum(self.past) / len(self.past)


class KeptNumber(Kept):
    def keep(self):
        self.mean = np.float64(1.0)

    def running(self, norm):
        self.mean = 0.9 * self.mean + 0.1 * norm
        return float(self.mean)


class KeptArray(Kept):
    def keep(self):
        self.mean = np.ones(1)

    def running(self, norm):
        self.mean[0] = 0.9 * self.mean[0] + 0.1 * norm
        return float(self.mean[0])


class KeptObject(Kept):
    def keep(self):
        self.box = types.SimpleNamespace(mean=1.0)

    def running(self, norm):
        self.box.mean = 0.9 * self.box.mean + 0.1 * norm
        return self.box.mean


class KeptGroup(Kept):
    def keep(self):
        self.param_groups[0]["mean"] = 1.0

    def running(self, norm):
        self.param_groups[0]["mean"] = 0.9 * self.param_groups[0]["mean"] + 0.1 * norm
        return self.param_groups[0]["mean"]


class KeptClass(Kept):
    """In its class."""

    mean = 1.0

    def keep(self):
        pass

    def running(self, norm):
        type(self).mean = 0.9 * type(self).mean + 0.1 * norm
        return type(self).mean


class KeptState(Kept):
    """In `state`, under a key that is no parameter."""

    def keep(self):
        self.state["mean"] = 1.0

    def running(self, norm):
        self.state["mean"] = 0.9 * self.state["mean"] + 0.1 * norm
        return self.state["mean"]


class GlobalCount(Each):
    """Counts in globals of its file and of another one."""

    def step(self, closure=None):
        global CALLS
        CALLS += 1
        kinds_counter.CALLS += 1
        super().step()

    def factor(self, p, grad, state):
        return 1.0 / (1 + 0.01 * CALLS + 0.01 * kinds_counter.CALLS)


class ReassignsData(Each):
    """Gives its parameters new memory."""

    def one(self, p, grad, group, state):
        p.data = p.data - group["lr"] * grad


class ReassignsLate(Each):
    def one(self, p, grad, group, state):
        if state["n"] % 10 == 0:
            p.data = 0.99 * p.data
        p.add_(grad, alpha=-group["lr"])


class FlatBuffer(Each):
    """Joins its parameters in one tensor, of which they become views."""

    def __init__(self, params, lr=1e-2):
        super().__init__(params, lr)
        params = self.param_groups[0]["params"]
        self.flat = torch.cat([p.data.flatten() for p in params])
        place = 0
        for p in params:
            p.data = self.flat[place : place + p.numel()].view_as(p)
            place += p.numel()

    @torch.no_grad()
    def step(self, closure=None):
        group = self.param_groups[0]
        self.flat.sub_(group["lr"] * torch.cat([p.grad.flatten() for p in group["params"]]))


class FreezesLater(Each):
    """Ends the training of a parameter."""

    def one(self, p, grad, group, state):
        p.add_(grad, alpha=-group["lr"])
        if state["n"] == 20 and p is group["params"][0]:
            p.requires_grad_(False)
            p.grad = None


class ById(Each):
    """Keeps its state under the identity of parameters."""

    def __init__(self, params, lr=1e-2):
        super().__init__(params, lr)
        self.momentum = {id(p): torch.zeros_like(p) for p in self.param_groups[0]["params"]}

    def one(self, p, grad, group, state):
        p.sub_(group["lr"] * self.momentum[id(p)].mul_(0.9).add_(grad))


class Duck:
    """No subclass of torch's optimizer."""

    def __init__(self, params, lr=1e-2):
        self.params, self.lr = list(params), lr
        self.param_groups = [{"params": self.params, "lr": lr}]

    def zero_grad(self):
        for p in self.params:
            p.grad = None

    @torch.no_grad()
    def step(self):
        for p in self.params:
            p.sub_(self.lr * p.grad)


class NoisyAdam(torch.optim.Adam):
    """One of torch's, changed."""

    def step(self, closure=None):
        for p in self.param_groups[0]["params"]:
            p.grad.add_(p.grad.sign(), alpha=0.01)
        return super().step(closure)


class SameAdam(torch.optim.Adam):
    """One of torch's, by another name."""


class AllAtOnce(Each):
    """Computes by lists of tensors."""

    @torch.no_grad()
    def step(self, closure=None):
        group = self.param_groups[0]
        params = [p for p in group["params"] if p.grad is not None]
        torch._foreach_add_(params, [p.grad for p in params], alpha=-group["lr"])


class OneVector(Each):
    """Joins all weights in one vector."""

    @torch.no_grad()
    def step(self, closure=None):
        params = self.param_groups[0]["params"]
        weights = torch.nn.utils.parameters_to_vector(params)
        grads = torch.nn.utils.parameters_to_vector([p.grad for p in params])
        self.mean = 0.9 * getattr(self, "mean", torch.zeros_like(grads)) + grads
        torch.nn.utils.vector_to_parameters(weights - self.param_groups[0]["lr"] * self.mean, params)


class TwoGroups(Each):
    """Sorts its parameters into groups with rates of their own."""

    def __init__(self, params, lr=1e-2):
        params = list(params)
        flat = [p for p in params if p.dim() < 2]
        super().__init__([{"params": [p for p in params if p.dim() == 2]}, {"params": flat, "lr": 0.1 * lr}], lr)


# ---------------------------------------------------------------------- random numbers and modes


class TorchNoise(Each):
    """Adds noise to each step."""

    def one(self, p, grad, group, state):
        p.add_(grad + 0.1 * torch.randn_like(p), alpha=-group["lr"])


class PythonNoise(Each):
    def factor(self, p, grad, state):
        return random.uniform(0.5, 1.5)


class OwnNoise(Each):
    """From generators of its own."""

    def __init__(self, params, lr=1e-2):
        super().__init__(params, lr)
        self.generator, self.random = torch.Generator().manual_seed(0), random.Random(0)

    def one(self, p, grad, group, state):
        noise = torch.randn(p.shape, generator=self.generator)
        p.add_(grad + 0.1 * noise, alpha=-group["lr"] * self.random.random())


class Averaged(Each):
    """Evaluates at the mean of its weights: two sets, and a switch between them."""

    def one(self, p, grad, group, state):
        p.add_(grad, alpha=-group["lr"])
        state["mean"] = p.clone() if state["n"] == 1 else state["mean"].lerp_(p, 1 / state["n"])

    @torch.no_grad()
    def swap(self, training):
        if getattr(self, "training", True) == training:
            return
        self.training = training
        for p, state in self.state.items():
            p_now = p.clone()
            p.copy_(state["mean"])
            state["mean"] = p_now

    def train(self):
        self.swap(True)

    def eval(self):
        self.swap(False)


class Sampled(Each):
    """Evaluates at weights drawn around those that it trains."""

    def __init__(self, params, lr=1e-2):
        super().__init__(params, lr)
        self.trained = None

    @torch.no_grad()
    def eval(self):
        if self.trained is None:
            self.trained = [p.clone() for p in self.param_groups[0]["params"]]
            for p in self.param_groups[0]["params"]:
                p.add_(torch.randn_like(p), alpha=0.05)

    @torch.no_grad()
    def train(self):
        if self.trained is not None:
            for p, trained in zip(self.param_groups[0]["params"], self.trained, strict=True):
                p.copy_(trained)
            self.trained = None


class StrictModes(Each):
    """Refuses to step in evaluation mode."""

    training = False

    def train(self):
        self.training = True

    def eval(self):
        self.training = False

    def step(self, closure=None):
        assert self.training
        super().step()


# ---------------------------------------------------------------------- the memory of the weights


class SparseUpdate(Each):
    """Moves only the largest entries of its matrices, by a sparse tensor."""

    def one(self, p, grad, group, state):
        if p.dim() == 2:
            smallest = grad.abs().flatten().topk(8).values[-1]
            grad = torch.where(grad.abs() >= smallest, grad, 0.0).to_sparse()
        p.add_(grad, alpha=-group["lr"])


class SwappedMean(Each):
    """Evaluates at a moving mean of its weights, and exchanges the two by pointer."""

    training = True

    def one(self, p, grad, group, state):
        p.add_(grad, alpha=-group["lr"])
        state["mean"] = p.clone() if state["n"] == 1 else state["mean"].lerp_(p, 0.1)

    def swap(self, training):
        if self.training != training:
            self.training = training
            for p, state in self.state.items():
                p.data, state["mean"] = state["mean"], p.data

    def train(self):
        self.swap(True)

    def eval(self):
        self.swap(False)


class ExchangesMemory(Each):
    """Two biases change places by pointer every fifth step."""

    def step(self, closure=None):
        super().step()
        one, two = (p for p in self.param_groups[0]["params"] if p.shape == (16,))
        if self.state[one]["n"] % 5 == 0:
            one.data, two.data = two.data, one.data


class KeptData(Each):
    """Writes into the `data` that its parameters had when it was built."""

    def __init__(self, params, lr=1e-2):
        super().__init__(params, lr)
        self.kept = [p.data for p in self.param_groups[0]["params"]]

    @torch.no_grad()
    def step(self, closure=None):
        group = self.param_groups[0]
        for data, p in zip(self.kept, group["params"], strict=True):
            data.sub_(p.grad, alpha=group["lr"])


# ---------------------------------------------------------------------- state outside its objects

SETTINGS = {}


class GlobalSetting(Each):
    """Leaves its rate in a global, from where each step takes it."""

    def __init__(self, params, lr=1e-2):
        super().__init__(params, lr)
        SETTINGS["lr"] = lr

    def one(self, p, grad, group, state):
        p.add_(grad, alpha=-SETTINGS["lr"])


class CountsObjects(Each):
    """Seeds its own generator by how many objects there have been."""

    objects = 0

    def __init__(self, params, lr=1e-2):
        super().__init__(params, lr)
        CountsObjects.objects += 1
        self.generator = torch.Generator().manual_seed(CountsObjects.objects)

    def one(self, p, grad, group, state):
        p.add_(grad + 0.1 * torch.randn(p.shape, generator=self.generator), alpha=-group["lr"])


class FirstNorm(Whole):
    """Divides by the length of the first gradient, which its class keeps."""

    first = None

    def whole(self, params):
        if FirstNorm.first is None:
            FirstNorm.first = norm_of([p.grad for p in params])
        return 0.5 / FirstNorm.first


@functools.cache
def drawn_mask(shape):
    return torch.randint(0, 2, shape)


class CachedMask(Each):
    """Trains half of the weights: those that a cached function has drawn for their shape."""

    def one(self, p, grad, group, state):
        p.add_(grad * drawn_mask(p.shape), alpha=-group["lr"])


@functools.cache
def shared_clock():
    return types.SimpleNamespace(steps=0)


class Clocked(Each):
    """The rate falls with the steps of a clock."""

    def step(self, closure=None):
        self.time = self.tick()
        super().step()

    def factor(self, p, grad, state):
        return 1.0 / math.sqrt(self.time)


class CachedClock(Clocked):
    """The one object that a cached function gives."""

    def tick(self):
        shared_clock().steps += 1
        return shared_clock().steps


CLOCK = torch.zeros(1)
CLOCK.steps = 0


class TensorClock(Clocked):
    """An attribute of a tensor of its file."""

    def tick(self):
        CLOCK.steps += 1
        return CLOCK.steps


Optimizer.steps_of_all = 0


class TorchsClassClock(Clocked):
    """An attribute of torch's base class."""

    def tick(self):
        Optimizer.steps_of_all += 1
        return Optimizer.steps_of_all


LOG = logging.getLogger("lrsweep_kinds")
LOG.steps = 0


class LoggerClock(Clocked):
    """An attribute of a logger."""

    def tick(self):
        LOG.steps += 1
        return LOG.steps


class ReadOnlyClock(Clocked):
    """A list in a mapping that cannot be changed."""

    kept = types.MappingProxyType({"calls": []})

    def tick(self):
        self.kept["calls"].append(1)
        return len(self.kept["calls"])


class KeptOnParameters(Each):
    """Its momentum is an attribute of the parameter."""

    def one(self, p, grad, group, state):
        p.momentum = p.momentum.mul_(0.9).add_(grad) if hasattr(p, "momentum") else grad.clone()
        p.add_(p.momentum, alpha=-group["lr"])


# ---------------------------------------------------------------------- closures


class OptionalClosure(Each):
    """Calls a closure if there is one."""

    def step(self, closure=None):
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        super().step()
        return loss


class TwoPasses(Each):
    """Takes the gradient at a point uphill, as sharpness-aware minimization does."""

    @torch.no_grad()
    def step(self, closure):
        with torch.enable_grad():
            closure()
        params = self.param_groups[0]["params"]
        scale = 0.05 / (norm_of([p.grad for p in params]) + 1e-12)
        moves = [p.grad * scale for p in params]
        torch._foreach_add_(params, moves)
        with torch.enable_grad():
            closure()
        torch._foreach_sub_(params, moves)
        torch._foreach_add_(params, [p.grad for p in params], alpha=-self.param_groups[0]["lr"])


class Searching(Each):
    """Halves a step until the loss falls."""

    @torch.no_grad()
    def step(self, closure):
        with torch.enable_grad():
            before = closure().item()
        params = self.param_groups[0]["params"]
        grads = [p.grad.clone() for p in params]
        rate = 4 * self.param_groups[0]["lr"]
        for _ in range(5):
            torch._foreach_add_(params, grads, alpha=-rate)
            with torch.enable_grad():
                if closure().item() < before:
                    break
            torch._foreach_add_(params, grads, alpha=rate)
            rate /= 2


OPTIMIZERS = [
    name
    for name, value in vars().items()
    if isinstance(value, type) and hasattr(value, "step") and value not in (Optimizer, Each, Whole, Kept, Clocked)
]
