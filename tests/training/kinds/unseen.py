"""What the trial of a model does not see: a value that is read in a way nobody watches, and decides late."""

import torch
from kinds_common import Net, regression


class Printed(Net):
    """Takes a branch once its last weights have grown, by the text that torch prints of them."""

    modes = (True, False)  # in training, in evaluation

    def middle(self, h):
        h = super().middle(h)
        grown = self.training in self.modes and "True" in str(self.c.weight.detach().square().sum() > 0.4)
        return torch.sin(h) if grown else h


class InTraining(Printed):
    modes = (True,)


class InEvaluation(Printed):
    modes = (False,)


class Recorded(InTraining):
    """For an optimizer whose runs train one at a time."""


MODELS = {cls.__name__: cls for cls in (Printed, InTraining, InEvaluation, Recorded)}


def make(model):
    return regression(MODELS[model])
