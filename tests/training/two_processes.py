"""Work on two processes; what both one process and the ranks of torchrun train: `python -m` runs one rank."""

import os
import socket
import sys
from functools import partial

import pytest
import torch
import torch.multiprocessing as mp

import diffeo
from diffeo.families import Affine
from diffeo.nets import ConvResNet
from diffeo.transforms import (
    ActNorm,
    BatchNorm,
    Chain,
    Checkerboard,
    Coupling,
    Flatten,
)
from diffeo.zoo.preprocessing import preprocessing

GLOO = pytest.mark.skipif(
    not torch.distributed.is_gloo_available(), reason="torch was built without gloo"
)


def on_two(work):
    """The tensors that `work(rank)`, a function of a module, returns on each of two processes that gloo joins."""
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        port = s.getsockname()[1]
    context = mp.get_context("spawn")
    queue = context.Queue()
    processes = [context.Process(target=_rank, args=(r, port, queue, work)) for r in (0, 1)]
    for p in processes:
        p.start()
    found = [queue.get(timeout=120) for _ in processes]
    for p in processes:
        p.join(60)
        assert p.exitcode == 0
    return [[torch.tensor(t, dtype=torch.float64) for t in each] for each in found]


def _rank(rank, port, queue, work):
    os.environ.update(MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port))
    torch.distributed.init_process_group("gloo", rank=rank, world_size=2)
    torch.set_num_threads(1)
    queue.put([t.tolist() for t in work(rank)])
    queue.close()
    queue.join_thread()
    leave()


def flow():
    torch.manual_seed(0)
    net = partial(ConvResNet, width=4, blocks=1, batch_norm=True)
    couplings = [
        part
        for flip in (False, True)
        for part in (
            partial(Coupling, family=Affine(), net=net, partition=partial(Checkerboard, flip=flip)),
            BatchNorm,
            ActNorm,
        )
    ]
    parts = [*preprocessing((1, 4, 4), 16), *couplings, Flatten]
    return diffeo.Flow(Chain((1, 4, 4), parts)).double()


def data(n):
    """101 rows in batches of 20: the last of an epoch has one, and leaves a process with none."""
    g = torch.Generator().manual_seed(n)
    return torch.randint(0, 16, (n, 1, 4, 4), generator=g, dtype=torch.uint8)


def trained(folder=None):
    model = flow()
    run = diffeo.fit(
        model,
        data(101),
        validation=data(31),
        folder=folder,
        batch_size=20,
        steps=50,
        validate_every=10,
        checkpoint_steps=25,
        ema=0.9,
        warmup=5,
        lr=1e-3,
        progress=False,
        threads=1,
    )
    return model, run


def leave():
    """End this rank, when all have come here, without ending the interpreter.

    Gloo's threads may still hold tensors of Python then, and abort the process (pytorch/pytorch#179291).
    """
    torch.distributed.barrier()
    torch.distributed.destroy_process_group()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(0)


if __name__ == "__main__":
    (where,) = sys.argv[1:]
    model, run = trained(f"{where}/run")
    rank = torch.distributed.get_rank()
    curves = run.history["train"], run.history["validation"]
    torch.save((model.state_dict(), curves), f"{where}/{rank}.pt")
    leave()
