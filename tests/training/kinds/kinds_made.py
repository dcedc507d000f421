"""A module of the user's that makes some of its attributes when they are asked for."""

LATER = 40


class Counter:
    calls = 0

    def late(self):
        self.calls += 1
        return self.calls > LATER


BESIDE = Counter()
_made = {"counter": Counter()}


def __getattr__(name):
    if name not in _made:
        raise AttributeError(name)
    return _made[name]
