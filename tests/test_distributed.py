"""Statistics are the same on every rank: two processes that see half a batch each agree with one that sees it whole."""

import os
import subprocess
import sys
from functools import partial

import pytest
import torch
from tests.training import two_processes
from tests.training.two_processes import GLOO, on_two

from diffeo.transforms import ActNorm, BatchNorm, Chain, Checkerboard, Standardize


def data():
    g = torch.Generator().manual_seed(0)
    scale = torch.arange(1, 4)[:, None, None]
    return torch.randn(10, 3, 2, 4, generator=g).double() * scale + 5


def chain():
    torch.manual_seed(0)
    parts = [Standardize, ActNorm, BatchNorm, partial(BatchNorm, partition=Checkerboard)]
    return Chain((3, 2, 4), parts).double()


def outcome(x, share):
    """Initialize, then one training pass; the statistics left, and the gradient of the whole batch's mean."""
    flow = chain()
    flow.initialize(x)
    flow.train()
    z, ladj = flow(x)
    loss = (z.square().flatten(1).sum(1) - ladj).sum() / share
    loss.backward()
    grads = [p.grad for p in flow.parameters()]
    return [b.double() for b in flow.buffers()], grads


def work(rank):
    # Unequal halves: means of means would be wrong.
    x = data()[:3] if rank == 0 else data()[3:]
    buffers, grads = outcome(x, 10)
    for g in grads:
        torch.distributed.all_reduce(g)
    return [*buffers, *grads]


@GLOO
def test_two_ranks_agree_with_one():
    buffers, grads = outcome(data(), 10)
    for theirs in on_two(work):
        for mine, its in zip((*buffers, *grads), theirs, strict=True):
            assert torch.allclose(mine, its, atol=1e-9)


@pytest.fixture(scope="module")
def ranks(tmp_path_factory):
    """Where two processes under torchrun left what they trained.

    In float64: a bias in front of a batch norm has no gradient but rounding, which Adam divides by itself.
    """
    folder = tmp_path_factory.mktemp("ranks")
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    command += ["-m", "tests.training.two_processes", str(folder)]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, env=environment, capture_output=True, timeout=300)
    assert done.returncode == 0, done.stderr.decode()[-3000:]
    return folder


@GLOO
def test_two_processes_train_as_one(ranks):
    model, run = two_processes.trained()
    for rank in (0, 1):
        state, (train, validation) = torch.load(ranks / f"{rank}.pt", weights_only=True)
        for name, value in model.state_dict().items():
            error = float((value.double() - state[name].double()).abs().max())
            assert error <= 1e-5, f"{name} of rank {rank} is off by {error}"
        for mine, theirs in (
            (run.history["train"], train),
            (run.history["validation"], validation),
        ):
            assert [p[0] for p in mine] == [p[0] for p in theirs]
            assert [p[1] for p in mine] == pytest.approx([p[1] for p in theirs], abs=1e-4)


@GLOO
def test_only_the_first_process_writes(ranks):
    run = ranks / "run"
    assert sorted(p.relative_to(run).as_posix() for p in run.rglob("*") if p.is_file()) == [
        "checkpoints/last.ckpt",
        "metrics.csv",
    ]
    steps = [line.split(",")[0] for line in (run / "metrics.csv").read_text().splitlines()[1:]]
    assert steps.count("10") == 2  # the loss and the validation, once each


def test_the_noise_of_an_example_does_not_depend_on_the_shares():
    from diffeo.training.noise import noise_of
    from diffeo.training.rows import Batch

    model = two_processes.flow()
    x = two_processes.data(7)
    (whole, *_) = noise_of(model, Batch(x, None, None, 3, 0, 7), 0, 3)
    shares = [
        noise_of(model, Batch(x[a:b], None, None, 3, a, 7), 0, 3)[0] for a, b in ((0, 3), (3, 7))
    ]
    assert torch.equal(torch.cat(shares), whole)
    assert not torch.equal(noise_of(model, Batch(x, None, None, 4, 0, 7), 0, 4)[0], whole)
