"""Memory reversible and checkpoint: the gradients of plain backpropagation, without its activations."""

import copy
from functools import partial

import pytest
import torch
from tests.training.two_processes import GLOO, on_two
from torch import nn

import diffeo
from diffeo.errors import ConfigError, DirectionError
from diffeo.families import Affine, RationalQuadraticSpline
from diffeo.nets import MLP, Conditioner
from diffeo.testing.randomize import draw_context, randomize
from diffeo.transforms import (
    ActNorm,
    Autoregressive,
    BatchNorm,
    Chain,
    Coupling,
    Dequantize,
    Elementwise,
    Halves,
    Inverse,
    Rotation,
)
from diffeo.transforms.reversible import runs

mlp = partial(MLP, hidden=(8,))


def coupling(shape, net=mlp, context_shape=None, flip=False):
    return Coupling(shape, Affine(), net, partial(Halves, flip=flip), context_shape=context_shape)


def stack(depth=3, context_shape=None, net=mlp, embedding=None):
    """Actnorm, rotation, coupling, `depth` times."""
    parts = [
        part
        for i in range(depth)
        for part in (
            ActNorm,
            partial(Rotation, learned=True),
            partial(coupling, net=net, context_shape=context_shape, flip=i % 2 == 1),
        )
    ]
    given = {} if embedding is None else {"embedding": embedding(), "context_shape": (5,)}
    return diffeo.Flow(Chain((4,), parts), **given)


def two_contexts():
    shape = {"a": (2,), "b": (3,)}
    spline = partial(Coupling, family=RationalQuadraticSpline(4), net=mlp, context_shape=shape)
    own = partial(Elementwise, family=Affine(), net=mlp, context_shape=shape)
    return diffeo.Flow(Chain((4,), [ActNorm, spline, own, spline]))


def zoo(name, shape, **kw):
    return lambda: diffeo.zoo.build(name, shape, size="tiny", **kw)


FLOWS = {
    "stack": stack,
    "context": partial(stack, context_shape=(3,)),
    "embedded": partial(stack, context_shape=(2,), embedding=partial(nn.Linear, 5, 2)),
    "two contexts": two_contexts,
    "inverse": lambda: diffeo.Flow(Chain((4,), [ActNorm, Inverse(stack().transform), ActNorm])),
    "multi-scale": zoo("realnvp", (3, 4, 8), batch_norm=False, split="conditional"),
    "batch norm": zoo("realnvp", (3, 4, 8)),
    "glow": zoo("glow", (3, 8, 4)),
    "glow with labels": zoo("glow", (1, 4, 4), context_shape=(3,), condition="all"),
    "autoregressive": zoo("maf", (3,)),
    "numeric inverse": zoo("gaussianization", (3,)),
}


def built(make):
    """The flow far from its start, rows, a context and noise."""
    torch.manual_seed(0)
    flow = make().double()
    n = 6
    g = torch.Generator().manual_seed(1)
    if flow.discrete:
        x = torch.randint(0, 256, (n, *flow.event_shape), generator=g, dtype=torch.uint8)
    else:
        x = torch.randn(n, *flow.event_shape, generator=g).double()
    context = draw_context(flow.context_shape, n, 2)
    flow.initialize(x, context)
    randomize(flow, scale=0.3).train()
    return flow, x, context, flow.transform.draw(n, generator=g, like=flow.base.like)


def gradients(flow, x, context=None, noise=None, memory="plain", autocast=False):
    """log_prob, and its gradients to parameters, x and context; buffers are left as they were."""
    buffers = copy.deepcopy(dict(flow.named_buffers()))
    flow.memory = memory
    leaf = partial(torch.Tensor.requires_grad_)
    x = x.clone() if flow.discrete else leaf(x.clone())
    if isinstance(context, dict):
        context = {k: leaf(v.clone()) for k, v in context.items()}
    elif context is not None:
        context = leaf(context.clone())
    contexts = context.values() if isinstance(context, dict) else [context]
    inputs = [t for t in (x, *contexts) if t is not None and t.requires_grad]
    with torch.autocast("cpu", dtype=torch.bfloat16, enabled=autocast):
        log_prob = flow(x, context, noise=noise)
    weights = torch.linspace(1, 2, len(log_prob), dtype=log_prob.dtype)
    found = torch.autograd.grad(
        (weights * log_prob).sum(), [*flow.parameters(), *inputs], allow_unused=True
    )
    for name, b in flow.named_buffers():
        b.copy_(buffers[name])
    return log_prob.detach(), found


def worst(found, expected):
    pairs = list(zip(found, expected, strict=True))
    assert [a is None for a, _ in pairs] == [b is None for _, b in pairs]
    norms = [(float((a - b).norm()), float(b.norm())) for a, b in pairs if b is not None]
    # A gradient that is zero but for rounding is compared with the largest.
    least = 1e-6 * max(size for _, size in norms)
    return max(error / max(size, least) for error, size in norms)


@pytest.mark.parametrize("name", FLOWS)
def test_gradients_are_those_of_plain_backpropagation(name):
    inputs = built(FLOWS[name])
    log_prob, expected = gradients(*inputs)
    for memory in ("checkpoint", "reversible"):
        found_log_prob, found = gradients(*inputs, memory=memory)
        assert torch.allclose(found_log_prob, log_prob, rtol=1e-13, atol=1e-10)
        assert worst(found, expected) < 1e-10, memory


def test_float32_gradients_are_as_near_to_float64_as_plain_ones():
    flow, x, _, _ = built(partial(stack, depth=8))
    _, exact = gradients(flow, x)
    flow.float()
    errors = {}
    for memory in ("plain", "reversible"):
        _, found = gradients(flow, x.float(), memory=memory)
        errors[memory] = worst([g.double() for g in found], exact)
    assert errors["reversible"] < max(10 * errors["plain"], 1e-4), errors


def test_what_is_stored_follows_the_declared_properties():
    def storage(transform):
        return [storage for storage, _ in runs(transform)]

    assert storage(stack().transform) == ["reversible"]
    assert storage(Autoregressive((3,), Affine())) == ["checkpoint"]
    assert storage(Inverse(Autoregressive((3,), Affine()))) == ["reversible"]
    assert storage(Dequantize((3,))) == ["checkpoint"]
    assert storage(Chain((3,), [ActNorm, BatchNorm, ActNorm])) == [
        "reversible",
        "plain",
        "reversible",
    ]
    # The two levels of a chain in a chain in a split are one run.
    flow = diffeo.zoo.build("realnvp", (3, 8, 8), size="tiny", batch_norm=False)
    assert storage(flow.transform) == ["checkpoint", "reversible"]


@pytest.mark.parametrize("name", ["autoregressive", "numeric inverse"])
def test_other_inverses_are_never_used(name, monkeypatch):
    def refuse(*args):
        raise AssertionError("inverted")

    flow, x, *_ = built(FLOWS[name])
    for module in flow.transform.modules():
        if getattr(getattr(module, "properties", None), "inverse", "analytic") != "analytic":
            monkeypatch.setattr(module, "inverse", refuse)
    gradients(flow, x, memory="reversible")


class Counted(Conditioner):
    """One linear layer that counts its evaluations."""

    def __init__(self, *shapes):
        super().__init__(*shapes)
        self.map = nn.Linear(2, 4)
        self.calls = 0

    def forward(self, x, context=None):
        self.calls += 1
        return self.map(x).reshape(-1, 2, 2)


def test_recomputing_a_coupling_evaluates_its_network_once():
    flow, x, *_ = built(partial(stack, net=Counted))
    nets = [m for m in flow.modules() if isinstance(m, Counted)]
    before = [m.calls for m in nets]
    gradients(flow, x, memory="reversible")
    assert [m.calls - b for m, b in zip(nets, before, strict=True)] == [2, 2, 2]


def stored(depth, memory):
    """Entries that the graph of one forward pass keeps, parameters aside."""
    flow, x, *_ = built(partial(stack, depth=depth))
    flow.memory = memory
    owned = {p.untyped_storage().data_ptr() for p in flow.parameters()}
    sizes = {}

    def pack(t):
        if t.untyped_storage().data_ptr() not in owned:
            sizes[t.untyped_storage().data_ptr()] = t.untyped_storage().nbytes()
        return t

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda t: t):
        out = flow(x).sum()
    assert out.requires_grad
    return sum(sizes.values())


def test_what_is_stored_does_not_grow_with_depth():
    assert stored(16, "reversible") == stored(2, "reversible")
    assert stored(16, "plain") > 6 * stored(2, "plain")
    assert stored(16, "checkpoint") < stored(16, "plain") / 2


@pytest.mark.parametrize("memory", ["checkpoint", "reversible"])
def test_dropout_draws_the_same_again(memory):
    shape = (2,)
    net = partial(MLP, hidden=(64,), dropout=0.5)
    own = partial(Elementwise, family=Affine(), net=net, context_shape=shape)
    parts = [own, partial(coupling, net=net, context_shape=shape), ActNorm]
    inputs = built(lambda: diffeo.Flow(Chain((4,), parts * 2)))
    results = []
    for kind in ("plain", memory):
        torch.manual_seed(3)
        results.append((*gradients(*inputs, memory=kind), torch.rand(3)))
    (log_prob, expected, after), (found_log_prob, found, found_after) = results
    assert torch.equal(found_log_prob, log_prob)
    assert worst(found, expected) < 1e-10
    assert torch.equal(found_after, after), "backward moved the generator"


def test_autocast_is_that_of_forward():
    flow, x, *_ = built(partial(stack, net=partial(MLP, hidden=(64,))))
    flow.float()
    _, expected = gradients(flow, x.float(), autocast=True)
    _, found = gradients(flow, x.float(), memory="reversible", autocast=True)
    _, full = gradients(flow, x.float())
    assert worst(found, expected) < 0.1 * worst(full, expected)


def test_weights_cast_in_forward_keep_their_gradient():
    flow, x, *_ = built(stack)
    flow.float().memory = "reversible"
    with torch.autocast("cpu", dtype=torch.bfloat16):
        flow(x.float()).sum().backward()
    assert all(p.grad is not None and p.grad.dtype == torch.float32 for p in flow.parameters())


def test_second_derivatives_are_refused():
    flow, x, *_ = built(stack)
    flow.memory = "reversible"
    x.requires_grad_()
    with pytest.raises(DirectionError, match="use memory = 'plain' with create_graph"):
        torch.autograd.grad(flow(x).sum(), x, create_graph=True)


def test_a_parameter_changed_before_backward_is_an_error():
    flow, x, *_ = built(stack)
    flow.memory = "reversible"
    loss = flow(x).sum()
    with torch.no_grad():
        next(flow.parameters()).add_(1)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        loss.backward()


@pytest.mark.parametrize("memory", ["checkpoint", "reversible"])
def test_parameters_that_only_forward_had_are_refused(memory):
    flow = randomize(stack().double())
    x = torch.randn(5, 4, dtype=torch.float64)
    flow.memory = memory
    others = {k: (2 * p.detach()).requires_grad_() for k, p in flow.named_parameters()}
    loss = torch.func.functional_call(flow, others, (x,)).sum()
    with pytest.raises(DirectionError, match="functional_call"):
        torch.autograd.grad(loss, list(others.values()))
    # Detached, as for path gradients, they have the same values: with respect to x that is no obstacle.
    detached = {k: p.detach() for k, p in flow.named_parameters()}
    found = []
    for flow.memory in ("reversible", "plain"):
        y = x.clone().requires_grad_()
        torch.func.functional_call(flow, detached, (y,)).sum().backward()
        found.append(y.grad)
    assert torch.allclose(*found, rtol=1e-10, atol=1e-10)


def test_an_unknown_memory_is_refused():
    flow = stack()
    flow.memory = "reversable"
    with pytest.raises(ConfigError, match="one of plain, checkpoint, reversible"):
        flow(torch.zeros(2, 4))


def test_it_is_no_part_of_a_saved_model(tmp_path):
    flow = diffeo.zoo.build("nice", (2,), size="tiny")
    flow.memory = "reversible"
    flow.save(tmp_path / "m")
    assert diffeo.load(tmp_path / "m").memory == "plain"
    assert copy.deepcopy(flow).memory == "reversible"
    flow = diffeo.zoo.build("glow", (1, 4, 4), size="tiny")
    flow.memory = "reversible"
    assert flow.resized((1, 8, 8)).memory == "reversible"


@pytest.mark.slow
@pytest.mark.parametrize("backend", ["aot_eager", "inductor"])
def test_layers_may_be_compiled(backend):
    flow, x, *_ = built(stack)
    _, expected = gradients(flow, x)
    torch._dynamo.reset()
    for part in flow.transform:
        part.compile(backend=backend)
        if isinstance(part, Coupling):
            part.net.compile(backend=backend)
    _, found = gradients(flow, x, memory="reversible")
    assert worst(found, expected) < 1e-10
    torch._dynamo.reset()


@pytest.mark.slow
def test_a_flow_compiled_as_a_whole_leaves_memory_to_the_compiler():
    flow, x, *_ = built(stack)
    _, expected = gradients(flow, x)
    flow.memory = "reversible"
    torch._dynamo.reset()
    compiled = torch.compile(flow, fullgraph=True, backend="aot_eager")
    weights = torch.linspace(1, 2, len(x), dtype=x.dtype)
    found = torch.autograd.grad((weights * compiled(x)).sum(), list(flow.parameters()))
    assert worst(found, expected[:-1]) < 1e-10
    torch._dynamo.reset()


def shared_gradients(rank):
    from torch.nn.parallel import DistributedDataParallel

    flow, x, *_ = built(stack)
    flow.memory = "reversible"
    # It must outlive the graph, and averages over the processes.
    parallel = DistributedDataParallel(flow)
    (2 * parallel(x[:2] if rank == 0 else x[2:]).sum()).backward()
    return [p.grad for p in flow.parameters()]


@pytest.mark.slow
@GLOO
def test_two_processes_have_the_gradients_of_one():
    flow, x, *_ = built(stack)
    flow(x).sum().backward()
    for theirs in on_two(shared_gradients):
        for p, its in zip(flow.parameters(), theirs, strict=True):
            assert torch.allclose(p.grad, its, atol=1e-10)
