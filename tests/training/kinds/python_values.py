"""Python values and random numbers decide what a training step computes."""

import array
import collections
import contextlib
import contextvars
import ctypes
import enum
import functools
import io
import itertools
import logging
import operator
import os
import queue
import random
import threading
import types
import weakref
from dataclasses import dataclass, field

import kinds_counter
import kinds_made
import numpy as np
import torch
from kinds_common import Net, regression
from torch import nn

LATE = 20  # training steps: more than any trial makes
LATER = 40  # more than all models of a trial make together
CALLS = 0
SEEN = []


class Skipping(Net):
    """Leaves its middle layer out in the training steps in which `skips` says so."""

    def skips(self):
        raise NotImplementedError

    def middle(self, h):
        return h if self.training and self.skips() else super().middle(h)


class PythonRandom(Skipping):
    def skips(self):
        return random.random() < 0.1


class NumpyRandom(Skipping):
    def skips(self):
        return np.random.rand() < 0.1


class TorchRandom(Skipping):
    def skips(self):
        return torch.rand(()).item() < 0.1


class OwnRandom(Skipping):
    def __init__(self):
        super().__init__()
        self.own = random.Random(5)

    def skips(self):
        return self.own.random() < 0.1


class OwnNumpy(Skipping):
    def __init__(self):
        super().__init__()
        self.own = np.random.default_rng(5)

    def skips(self):
        return self.own.random() < 0.1


class OwnTorch(Skipping):
    def __init__(self):
        super().__init__()
        self.own = torch.Generator().manual_seed(5)

    def skips(self):
        return bool(torch.rand((), generator=self.own) < 0.1)


class SharedRandom(Skipping):
    """One generator for all models, made when the file is loaded."""

    own = random.Random(5)

    def skips(self):
        return self.own.random() < 0.1


class Attribute(Skipping):
    calls = 0

    def skips(self):
        self.calls += 1
        return self.calls > LATE


class ClassAttribute(Skipping):
    calls = 0

    def skips(self):
        type(self).calls += 1
        return self.calls > LATE


class Array(Skipping):
    def __init__(self):
        super().__init__()
        self.calls = np.zeros(1)

    def skips(self):
        self.calls[0] += 1
        return self.calls[0] > LATE


class ArrayInPlace(Skipping):
    def __init__(self):
        super().__init__()
        self.calls = np.zeros(())

    def skips(self):
        np.add(self.calls, 1, out=self.calls)
        return self.calls > LATE


class CArray(Skipping):
    def __init__(self):
        super().__init__()
        self.calls = array.array("l", [0])

    def skips(self):
        self.calls[0] += 1
        return self.calls[0] > LATE


class Count(Skipping):
    def __init__(self):
        super().__init__()
        self.count = itertools.count()

    def skips(self):
        return next(self.count) >= LATE


class Cycle(Skipping):
    def __init__(self):
        super().__init__()
        self.cycle = itertools.cycle([False] * 7 + [True])

    def skips(self):
        return next(self.cycle)


class Iterator(Skipping):
    def __init__(self):
        super().__init__()
        self.left = iter(range(LATE))

    def skips(self):
        return next(self.left, None) is None


class PythonGenerator(Skipping):
    def __init__(self):
        super().__init__()
        self.plan = self.planned()

    @staticmethod
    def planned():
        yield from [False] * LATE
        while True:
            yield True

    def skips(self):
        return next(self.plan)


class Deque(Skipping):
    def __init__(self):
        super().__init__()
        self.past = collections.deque()

    def skips(self):
        self.past.append(1)
        return len(self.past) > LATE


class Counter(Skipping):
    def __init__(self):
        super().__init__()
        self.past = collections.Counter()

    def skips(self):
        self.past["steps"] += 1
        return self.past["steps"] > LATE


class Slots(Skipping):
    class Box:
        __slots__ = ("calls",)

    def __init__(self):
        super().__init__()
        self.box = self.Box()
        self.box.calls = 0

    def skips(self):
        self.box.calls += 1
        return self.box.calls > LATE


class Bytes(Skipping):
    def __init__(self):
        super().__init__()
        self.calls = bytearray(1)

    def skips(self):
        self.calls[0] += 1
        return self.calls[0] > LATE


class Text(Skipping):
    """What has been written into a file in memory."""

    def __init__(self):
        super().__init__()
        self.log = io.StringIO()

    def skips(self):
        return self.log.tell() >= LATE or not self.log.write(".")


class Deep(Skipping):
    def __init__(self):
        super().__init__()
        self.deep = {"a": [({"b": [[[[0]]]]},)]}

    def skips(self):
        inner = self.deep["a"][0][0]["b"][0][0][0]
        inner[0] += 1
        return inner[0] > LATE


@dataclass
class History:
    losses: list = field(default_factory=list)


class Dataclass(Skipping):
    def __init__(self):
        super().__init__()
        self.history = History()

    def skips(self):
        self.history.losses.append(0.0)
        return len(self.history.losses) > LATE


class Namespace(Skipping):
    def __init__(self):
        super().__init__()
        self.config = types.SimpleNamespace(inner=types.SimpleNamespace(step=0))

    def skips(self):
        self.config.inner.step += 1
        return self.config.inner.step > LATE


class ThreadLocal(Skipping):
    def __init__(self):
        super().__init__()
        self.local = threading.local()

    def skips(self):
        self.local.calls = getattr(self.local, "calls", 0) + 1
        return self.local.calls > LATE


class Queue(Skipping):
    """A queue written in C, without attributes that could be looked at."""

    def __init__(self):
        super().__init__()
        self.past = queue.SimpleQueue()

    def skips(self):
        self.past.put(1)
        return self.past.qsize() > LATE


class Lines(Skipping):
    """The lines of an open file: it ends at some step."""

    def __init__(self):
        super().__init__()
        self.lines = iter(io.StringIO("go on\n" * LATE))

    def skips(self):
        return not next(self.lines, "")


class OwnRandomState(Skipping):
    def __init__(self):
        super().__init__()
        self.own = np.random.RandomState(5)

    def skips(self):
        return self.own.rand() < 0.1


class CNumber(Skipping):
    def __init__(self):
        super().__init__()
        self.calls = ctypes.c_long(0)

    def skips(self):
        self.calls.value += 1
        return self.calls.value > LATE


class Context(Skipping):
    """A context variable."""

    calls = contextvars.ContextVar("calls", default=0)

    def skips(self):
        self.calls.set(self.calls.get() + 1)
        return self.calls.get() > LATE


class Environment(Skipping):
    """An environment variable."""

    def skips(self):
        calls = int(os.environ.get("LRSWEEP_TEST_KIND", "0")) + 1
        os.environ["LRSWEEP_TEST_KIND"] = str(calls)
        return calls > LATE


class LastOfMany(Skipping):
    """The last of thousands of values."""

    def __init__(self):
        super().__init__()
        self.table = [0] * 5000

    def skips(self):
        self.table[-1] += 1
        return self.table[-1] > LATE


class Chain(Skipping):
    """An object in an object, ten times over."""

    def __init__(self):
        super().__init__()
        self.first = types.SimpleNamespace(calls=0)
        for _ in range(10):
            self.first = types.SimpleNamespace(inner=self.first)

    def skips(self):
        last = self.first
        while hasattr(last, "inner"):
            last = last.inner
        last.calls += 1
        return last.calls > LATE


class Partial(Skipping):
    """A list bound to a function."""

    def __init__(self):
        super().__init__()
        self.late = functools.partial(self.counted, [])

    @staticmethod
    def counted(past):
        past.append(1)
        return len(past) > LATE

    def skips(self):
        return self.late()


class SharedMemory(Net):
    """A tensor that shares its memory with an array, which changes."""

    def __init__(self):
        super().__init__()
        self.array = np.ones(16)

    def middle(self, h):
        if self.training:
            self.array *= 0.99
        return super().middle(h) * torch.from_numpy(self.array)


class InnerTensor(Net):
    """A tensor in a list, changed in place."""

    def __init__(self):
        super().__init__()
        self.kept = [torch.ones(16)]

    def middle(self, h):
        if self.training:
            self.kept[0].mul_(0.99)
        return super().middle(h) * self.kept[0]


class NewForward(Net):
    """Puts another function in the place of its own."""

    calls = 0

    def middle(self, h):
        self.calls += self.training
        if self.calls == LATE:
            self.middle = lambda h: h
        return super().middle(h)


class FunctionAttribute(Skipping):
    def skips(self):
        return advance()


def advance():
    advance.calls += 1
    return advance.calls > LATE


advance.calls = 0


class Global(Skipping):
    """A global of this file, changed in a method that a method calls."""

    def skips(self):
        self._advance()
        return CALLS > LATE

    def _advance(self):
        global CALLS
        CALLS += 1


class GlobalList(Skipping):
    def skips(self):
        SEEN.append(1)
        return len(SEEN) > LATE


class OtherModule(Skipping):
    def skips(self):
        kinds_counter.CALLS += 1
        return kinds_counter.CALLS > LATE


class DefaultArgument(Skipping):
    def skips(self, past=[]):  # noqa: B006 - a mistake that users make
        past.append(1)
        return len(past) > LATE


class Closure(Skipping):
    def __init__(self):
        super().__init__()
        calls = 0

        def late():
            nonlocal calls
            calls += 1
            return calls > LATE

        self.late = late

    def skips(self):
        return self.late()


class Cached(Skipping):
    """The first call of a cached function leaves a mark that later ones do not."""

    def __init__(self):
        super().__init__()
        self.marks = []
        self.mark = functools.cache(self.marks.append)
        self.calls = itertools.count()

    def skips(self):
        self.mark(min(next(self.calls), LATE))
        return len(self.marks) > LATE


class Property(Skipping):
    """A value that changes whenever it is read."""

    @property
    def late(self):
        vars(self)["reads"] = vars(self).get("reads", 0) + 1
        return vars(self)["reads"] > LATE

    def skips(self):
        return self.late


def counting():
    calls = itertools.count()
    return lambda model: next(calls) >= LATE


class PropertyClosure(Skipping):
    """A property of a class made for this model alone, with a counter in the closure of its getter."""

    def __init__(self):
        super().__init__()
        self.__class__ = type("Counting", (PropertyClosure,), {"late": property(counting())})

    def skips(self):
        return self.late


class Owner:
    calls = 0


class WeakReference(Skipping):
    """Counts in an object to which only a weak reference leads."""

    def __init__(self):
        super().__init__()
        owner = Owner()
        self.owner = weakref.ref(owner)
        weakref.finalize(self, vars, owner)  # it lives as long as the model

    def skips(self):
        self.owner().calls += 1
        return self.owner().calls > LATE


@functools.cache
def progress():
    return types.SimpleNamespace(steps=0)


class CachedObject(Skipping):
    """Counts in the one object that a cached function gives."""

    def skips(self):
        progress().steps += 1
        return progress().steps > LATER


class Phase(enum.Enum):
    TRAINING = "training"


Phase.TRAINING.steps = 0


class EnumMember(Skipping):
    """Counts on a member of an enum."""

    def skips(self):
        Phase.TRAINING.steps += 1
        return Phase.TRAINING.steps > LATER


torch.steps_of_kinds = 0


class LibraryModule(Skipping):
    """Counts on a module of a library."""

    def skips(self):
        torch.steps_of_kinds += 1
        return torch.steps_of_kinds > LATER


class Box:
    calls = 0

    def late(self):
        self.calls += 1
        return self.calls > LATER


WRAPPED = Box()


@functools.wraps(torch.nn.functional.relu)
def wrapper():
    return WRAPPED.late()


class Wraps(Skipping):
    """Calls a wrapper that has taken the name of a function of torch."""

    def skips(self):
        return wrapper()


class Meta(type):
    box = Box()


class Metaclass(Skipping, metaclass=Meta):
    """Counts on its metaclass."""

    def skips(self):
        return type(type(self)).box.late()


WRITTEN = {"Skipping": Skipping, "BOX": Box()}
exec("class Executed(Skipping):\n    def skips(self): return BOX.late()", WRITTEN)


class Executed(WRITTEN["Executed"]):
    """A class that exec makes, of a module that has no name."""


class ModuleGetattr(Skipping):
    """Counts in what a module makes of a name that it does not hold."""

    def skips(self):
        return kinds_made.counter.late()


GETTER = operator.attrgetter("BESIDE")


class Attrgetter(Skipping):
    """Counts in a global of another module, which a getter gives."""

    def skips(self):
        return GETTER(kinds_made).late()


VARIABLES = vars(kinds_made)
ITEM = operator.itemgetter("EDISEB"[::-1])


class Itemgetter(Skipping):
    """Counts in a global of another module, which a getter of items gives."""

    def skips(self):
        return ITEM(VARIABLES).late()


class OnTorch(Skipping):
    """Counts in an object that was put on a module of torch."""

    torch.box_of_kinds = Box()

    def skips(self):
        return torch.box_of_kinds.late()


LOG = logging.getLogger("lrsweep_kinds")
LOG.steps = 0


class LoggerAttribute(Skipping):
    """Counts on a logger."""

    def skips(self):
        LOG.steps += 1
        return LOG.steps > LATER


class ReadOnlyMapping(Skipping):
    """Counts in a list of a mapping that cannot be changed."""

    kept = types.MappingProxyType({"calls": []})

    def skips(self):
        self.kept["calls"].append(1)
        return len(self.kept["calls"]) > LATER


class AttributeOfTensor(Skipping):
    """On a tensor that the model keeps."""

    def __init__(self):
        super().__init__()
        self.ones = torch.ones(16)
        self.ones.calls = 0

    def skips(self):
        self.ones.calls += 1
        return self.ones.calls > LATE


class ContextManager(Skipping):
    def __init__(self):
        super().__init__()
        self.entered = 0

    @contextlib.contextmanager
    def counted(self):
        self.entered += 1
        yield self.entered

    def skips(self):
        with self.counted() as entered:
            return entered > LATE


class NumpyBranch(Net):
    def middle(self, h):
        return h if h.detach().numpy()[0].sum() > 0 else super().middle(h)


class ListBranch(Net):
    def middle(self, h):
        return h if sum(h[0].tolist()) > 0 else super().middle(h)


class ItemBranch(Net):
    def middle(self, h):
        return h if h[0].sum().item() > 0 else super().middle(h)


class BoolBranch(Net):
    def middle(self, h):
        return h if h[0].sum() > 0 else super().middle(h)


class WeightBranch(Net):
    """Decides by its weights, once they have grown a little."""

    def __init__(self):
        super().__init__()
        self.limit = 1.002 * self.b.weight.norm().item()

    def middle(self, h):
        return super().middle(h) * (2.0 if self.b.weight.norm().item() > self.limit else 1.0)


class RunningNumber(Net):
    """Divides by a running mean kept as a Python number."""

    size = 1.0

    def middle(self, h):
        h = super().middle(h)
        if self.training:
            self.size = 0.9 * self.size + 0.1 * h.abs().mean().item()
        return h / self.size


class TensorAttribute(Net):
    """A running mean in a tensor that is no buffer."""

    def __init__(self):
        super().__init__()
        self.mean = torch.zeros(16)

    def middle(self, h):
        if self.training:
            self.mean = 0.9 * self.mean + 0.1 * h.detach().mean(0)
        return super().middle(h - self.mean)


class TensorList(Net):
    """The mean of the last outputs, in a list of tensors."""

    def __init__(self):
        super().__init__()
        self.past = []

    def middle(self, h):
        if self.training:
            self.past = [*self.past[-4:], h.detach().mean(0)]
        return super().middle(h - (torch.stack(self.past).mean(0) if self.past else 0.0))


class Noise(Net):
    """A number drawn outside torch scales the activations."""

    def middle(self, h):
        return super().middle(h) * (random.gauss(1.0, 0.1) if self.training else 1.0)


class NumpyNoise(Net):
    def middle(self, h):
        h = super().middle(h)
        return h + 0.1 * torch.from_numpy(np.random.randn(*h.shape)) if self.training else h


class TorchNoise(Net):
    def middle(self, h):
        h = super().middle(h)
        return h + 0.1 * torch.randn_like(h) if self.training else h


class EvaluationDraws(Net):
    """Random numbers in evaluation alone."""

    def middle(self, h):
        h = super().middle(h)
        return h if self.training else h * random.uniform(0.5, 1.5) + 0.1 * torch.randn(())


class EvaluationOwnDraws(Net):
    def __init__(self):
        super().__init__()
        self.own = np.random.default_rng(0)

    def middle(self, h):
        h = super().middle(h)
        return h if self.training else h * self.own.uniform(0.5, 1.5)


class EvaluationCount(Net):
    """Counts evaluations, and trains otherwise after the fourth."""

    evaluations = 0

    def middle(self, h):
        self.evaluations += not self.training
        return super().middle(h) if self.evaluations < 8 else h


SIGNS = {}


class DrawnWhenNeeded(Net):
    """Random signs, drawn in the first forward pass of all and kept for later models."""

    def middle(self, h):
        if "middle" not in SIGNS:
            SIGNS["middle"] = torch.randn(16).sign()
        return super().middle(h * SIGNS["middle"])


@functools.cache
def random_features(rows, columns):
    return torch.randn(rows, columns)


class CachedFeatures(Net):
    """Random features from a cached function: the first model that is built draws them for all."""

    def __init__(self):
        super().__init__()
        self.register_buffer("features", random_features(16, 16))

    def middle(self, h):
        return super().middle(h + 0.3 * torch.tanh(h @ self.features))


class SeedValue(Net):
    """A Python number that the seed draws: that of seed 40 is another one than those of the seeds below 23."""

    def __init__(self):
        super().__init__()
        self.gain = 0.5 if torch.rand(()) < 0.05 else 1.0

    def middle(self, h):
        return self.gain * super().middle(h)


class NewPart(Net):
    """Replaces its activation after some steps."""

    def __init__(self):
        super().__init__()
        self.act, self.calls = nn.Tanh(), 0

    def middle(self, h):
        self.calls += self.training
        if self.calls == LATE:
            self.act = nn.ReLU()
        return self.act(self.b(h))


class Grows(Net):
    """Repeats its middle layer once more every ten steps."""

    calls = 0

    def middle(self, h):
        self.calls += self.training
        for _ in range(1 + self.calls // 10):
            h = super().middle(h)
        return h


def make(model):
    return regression(globals()[model])


MODELS = [name for name, value in vars().items() if isinstance(value, type) and issubclass(value, Net)]
MODELS = [name for name in MODELS if name not in ("Net", "Skipping")]
