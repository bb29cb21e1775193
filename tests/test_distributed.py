"""Statistics are the same on every rank: two processes that see half a batch each agree with one that sees it whole."""

import os
import socket
from functools import partial

import pytest
import torch
import torch.multiprocessing as mp

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


def worker(rank, port, queue):
    os.environ.update(MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port))
    torch.distributed.init_process_group("gloo", rank=rank, world_size=2)
    torch.set_num_threads(1)
    # Unequal halves: means of means would be wrong.
    x = data()[:3] if rank == 0 else data()[3:]
    buffers, grads = outcome(x, 10)
    for g in grads:
        torch.distributed.all_reduce(g)
    if rank == 0:
        queue.put([t.tolist() for t in (*buffers, *grads)])
    torch.distributed.destroy_process_group()


@pytest.mark.skipif(
    not torch.distributed.is_gloo_available(), reason="torch was built without gloo"
)
def test_two_ranks_agree_with_one():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        port = s.getsockname()[1]
    context = mp.get_context("spawn")
    queue = context.Queue()
    processes = [context.Process(target=worker, args=(rank, port, queue)) for rank in (0, 1)]
    for p in processes:
        p.start()
    found = queue.get(timeout=120)
    for p in processes:
        p.join(60)
        assert p.exitcode == 0
    buffers, grads = outcome(data(), 10)
    for mine, theirs in zip((*buffers, *grads), found, strict=True):
        assert torch.allclose(mine, torch.tensor(theirs, dtype=torch.float64), atol=1e-9)
