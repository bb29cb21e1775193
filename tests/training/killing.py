"""A child that trains and kills itself: python -m tests.training.killing MOMENT COUNT ARGUMENTS OF DIFFEO..."""

import os
import signal
import sys

from diffeo import cli, files
from diffeo.training.averages import Best
from diffeo.training.module import MaximumLikelihood


def kill_at(owner, name, count, *, before):
    """SIGKILL this process at the count-th call of owner.name, before or after it."""
    original = getattr(owner, name)
    calls = 0

    def call(*args, **kwargs):
        nonlocal calls
        calls += 1
        if before and calls == count:
            os.kill(os.getpid(), signal.SIGKILL)
        out = original(*args, **kwargs)
        if not before and calls == count:
            os.kill(os.getpid(), signal.SIGKILL)
        return out

    setattr(owner, name, call)


MOMENTS = {
    "in a step": (MaximumLikelihood, "configure_gradient_clipping", True),
    "in a checkpoint": (files.os, "fsync", True),
    "before the rename": (files.os, "replace", True),
    "after a validation": (Best, "see", False),
    "never": (os, "abort", True),
}

if __name__ == "__main__":
    moment, count, *arguments = sys.argv[1:]
    owner, name, before = MOMENTS[moment]
    kill_at(owner, name, int(count), before=before)
    sys.argv = ["diffeo", *arguments]
    cli.main()
