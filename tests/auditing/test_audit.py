"""The audit passes what is sound, and names the layer, in words, where it is not."""

import json
import math

import pytest
import torch

import diffeo
from diffeo import Flow, zoo
from diffeo.auditing import audit
from diffeo.errors import InputError, ShapeError
from diffeo.families import Affine, Inverted
from diffeo.nets import MLP
from diffeo.parts import register
from diffeo.testing import randomize
from diffeo.transforms import (
    Chain,
    Coupling,
    Elementwise,
    Halves,
    Permutation,
    Rotation,
    Split,
    Standardize,
    Transform,
)


def vectors(d=6, n=60):
    return torch.randn(n, d, generator=torch.Generator().manual_seed(0))


def vector_flow(d=6, parts=(), layers=3):
    """Random couplings with `parts` after the first; the sabotaged layer is transform.parts.1."""

    def coupling(shape):
        return randomize(Coupling(shape, Affine("clamp")), seed=1)

    torch.manual_seed(1)
    return Flow(Chain((d,), [coupling, *parts, *[coupling] * (layers - 1)])).eval()


def image_flow(channels=3, side=8, **settings):
    torch.manual_seed(0)
    settings = {"size": "tiny", "zero_init": False} | settings
    return zoo.build("realnvp", (channels, side, side), levels=17, **settings).eval()


def images(channels=3, side=8, n=12):
    g = torch.Generator().manual_seed(0)
    return torch.randint(0, 17, (n, channels, side, side), generator=g, dtype=torch.uint8)


def errors(found):
    return [f for f in found.findings if f.severity == "error"]


# -- what is sound --------------------------------------------------------------------------------------------------


def test_a_sound_flow_passes_and_says_so():
    x = 0.3 * vectors()
    flow = vector_flow(parts=[Rotation, Permutation, Standardize])
    flow.train()
    before = {k: v.clone() for k, v in flow.state_dict().items()}
    state = torch.get_rng_state()
    found = diffeo.audit(flow, x)
    assert found.findings == ()
    assert found.passes
    assert found.verdict.startswith("Sound: data come back to rounding, ladj agrees with autograd")
    assert found.rows == 60
    assert found.ladj_error < 1e-9
    assert found.data.double < 1e-12 < found.data.relative < 1e-5
    assert [layer.path for layer in found.layers] == [f"transform.parts.{i}" for i in range(6)]
    assert flow.training
    assert torch.equal(state, torch.get_rng_state())
    assert all(torch.equal(v, before[k]) for k, v in flow.state_dict().items())
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in flow.modules())
    assert str(found) == str(diffeo.audit(flow, x))


@pytest.mark.parametrize("name", zoo.names())
def test_zoo_models_pass(name):
    torch.manual_seed(0)
    card = zoo.card(name)
    flow = zoo.build(name, card.event_shape, size="tiny").eval()
    shape = (20, *card.event_shape)
    top = flow.properties.domain.high + 1 if flow.discrete else 0
    x = torch.randint(0, int(top), shape, dtype=torch.uint8) if top else torch.randn(shape)
    found = audit(flow, x)
    assert errors(found) == []
    assert found.layers
    json.dumps(found.to_dict(), allow_nan=False)


def test_nested_layers_have_their_paths_in_the_flow():
    flow = image_flow(split="conditional", batch_norm=False)
    found = audit(flow, images())
    modules = dict(flow.named_modules())
    assert errors(found) == []
    assert all(type(modules[a.path]).__name__ == a.name.split()[0] for a in found.layers)
    assert any(".rest." in a.path for a in found.layers)
    assert not any(isinstance(modules[a.path], Chain | Split) for a in found.layers)


def test_singular_values_are_those_of_the_jacobian():
    flow = vector_flow(layers=2).double()
    x = vectors(n=1).double()
    found = audit(flow, x)
    # The points are the example and one draw of the base.
    g = torch.Generator().manual_seed(0)
    made = flow.decode(flow.base.sample(1, generator=g))
    s = torch.stack(
        [
            torch.linalg.svdvals(torch.func.jacrev(lambda v: flow.encode(v[None])[0])(row))
            for row in torch.cat((x, made))
        ]
    )
    assert found.points == 2
    assert found.lipschitz == pytest.approx(s[:, 0].max().item(), rel=0.05)
    assert found.inverse_lipschitz == pytest.approx(1 / s[:, -1].min().item(), rel=0.05)
    assert found.conditioning == found.lipschitz * found.inverse_lipschitz


def test_a_context_goes_with_its_rows():
    flow = zoo.build("realnvp", (4,), context_shape=(2,), size="tiny", zero_init=False).eval()
    x, context = vectors(4, 24).reshape(4, 6, 4), torch.randn(6, 2)
    found = audit(flow, x, context, rows=10)
    assert found.findings == ()
    assert found.rows == 10
    with pytest.raises(InputError, match="needs a context"):
        audit(flow, x)


# -- sabotage -------------------------------------------------------------------------------------------------------


@register
class _Sabotaged(Transform):
    """An affine coupling whose ladj is multiplied by `sign` and raised by `ladj`, its inverse moved by `shift`, and the
    ladj of its inverse raised by `back`."""

    def __init__(self, event_shape, sign=1.0, ladj=0.0, shift=0.0, back=0.0):
        super().__init__(event_shape)
        self.inner = randomize(Coupling(event_shape, Affine("clamp"), MLP, Halves), seed=3)
        self.sign, self.ladj, self.shift, self.back = sign, ladj, shift, back

    def forward(self, x, context=None):
        z, ladj = self.inner._map(x, context, inverse=False)
        return z, self.sign * ladj + self.ladj

    def inverse(self, z, context=None):
        x, ladj = self.inner._map(z, context, inverse=True)
        return x + self.shift, self.sign * ladj - self.ladj + self.back


def sabotaged(**settings):
    return lambda shape: _Sabotaged(shape, **settings)


def blames(found, path="transform.parts.1"):
    assert not found.passes
    assert found.verdict.startswith("Take care: ")
    assert path in found.verdict
    assert {f.layer for f in errors(found)} <= {path, ""}
    return errors(found)[0].sentence


@pytest.mark.parametrize("d", [6, 300])
def test_a_wrong_sign_is_named(d):
    sentence = blames(audit(vector_flow(d, [sabotaged(sign=-1.0)]), vectors(d)))
    assert "sign is wrong" in sentence
    assert "log|det| by autograd" in sentence


@pytest.mark.parametrize("d", [6, 300])
def test_a_small_constant_in_ladj_is_named(d):
    sentence = blames(audit(vector_flow(d, [sabotaged(ladj=1e-3)]), vectors(d)))
    assert "0.001 nats apart" in sentence


@pytest.mark.parametrize("shift", [0.1, 1e-5])
def test_a_slightly_wrong_inverse_is_named(shift):
    sentence = blames(audit(vector_flow(parts=[sabotaged(shift=shift)]), vectors()))
    assert "does not undo" in sentence


def test_an_exploding_log_scale_is_named():
    def exploding(shape):
        layer = randomize(Coupling(shape, Affine("exp")), seed=4)
        with torch.no_grad():
            list(layer.net.parameters())[-1].add_(15.0)
        return layer

    found = audit(vector_flow(parts=[exploding]), vectors())
    named = [f for f in found.findings if f.layer == "transform.parts.1"]
    assert any("log-scale reaches" in f.sentence for f in named)
    assert any("nearly singular" in f.sentence for f in named)


def test_a_nearly_singular_layer_is_named():
    @register
    class _Squashing(Transform):
        def __init__(self, event_shape):
            super().__init__(event_shape)
            matrix = torch.eye(event_shape[0]) + 1.0
            matrix[0] = matrix[1] + 1e-7 * matrix[2]
            self.register_buffer("matrix", matrix)

        def forward(self, x, context=None):
            ladj = torch.linalg.slogdet(self.matrix)[1]
            return x @ self.matrix.mT, ladj.expand(len(x))

        def inverse(self, z, context=None):
            ladj = torch.linalg.slogdet(self.matrix)[1]
            return torch.linalg.solve(self.matrix, z.mT).mT, -ladj.expand(len(z))

    found = audit(vector_flow(parts=[_Squashing]), vectors())
    assert any(
        f.layer == "transform.parts.1" and "nearly singular" in f.sentence for f in found.findings
    )


def test_a_wrong_ladj_deep_inside_an_image_model_is_named():
    flow = image_flow(side=16, batch_norm=False)
    layers = [m for m in flow.modules() if isinstance(m, Coupling)]
    path = next(p for p, m in flow.named_modules() if m is layers[-2])
    assert ".rest." in path
    honest = layers[-2].partition.sum
    layers[-2].partition.sum = lambda ladj: honest(ladj) * 1.01
    x = images(side=16, n=3)
    assert math.prod(x.shape[1:]) == 768
    assert "apart" in blames(audit(flow, x), path)


def test_the_ladj_of_an_inverse_is_checked_alone():
    sentence = blames(audit(vector_flow(parts=[sabotaged(back=0.01)]), vectors()))
    assert "ladj of its inverse" in sentence


def test_a_container_that_drops_a_term_is_named():
    class _Forgetful(Chain):
        def forward(self, x, context=None, noise=None):
            z, _ = super().forward(x, context, noise)
            return z, x.new_zeros(len(x))

    inner = _Forgetful((6,), [sabotaged()])
    assert "not the sum of its parts" in blames(audit(vector_flow(parts=[inner]), vectors()))


def test_a_container_that_inverts_in_the_wrong_order_is_named():
    class _Disordered(Chain):
        def inverse(self, z, context=None):
            total = z.new_zeros(len(z))
            for part in self:
                z, ladj = part.inverse(z, context)
                total = total + ladj
            return z, total

    parts = [sabotaged(), lambda s: Permutation(s, "reverse")]
    found = audit(vector_flow(parts=[_Disordered((6,), parts)]), vectors())
    assert any(f.layer == "transform.parts.1" and "its parts invert" in f.sentence for f in errors(found))  # fmt: skip


# -- data and latents -----------------------------------------------------------------------------------------------


def test_values_outside_the_support_are_named_with_their_layer():
    flow = image_flow(1, batch_norm=False)
    x = images(1)
    x[7, 0, 0, 0] = 200
    found = audit(flow, x)
    assert found.finite == pytest.approx(11 / 12)
    sentence = blames(found, "transform.parts.0")
    assert "row 7" in sentence
    assert "Dequantize" in sentence


def test_nothing_finite_at_all():
    found = audit(vector_flow(parts=[sabotaged(ladj=math.nan)]), vectors())
    assert found.finite == 0
    assert "not finite on 100.0%" in blames(found)


def test_a_model_that_does_not_cover_the_data_is_told_by_its_tails():
    found = audit(vector_flow(), 20 * vectors())
    assert found.passes
    assert found.tails > 0.1 > 1e-3 > found.expected_tails
    assert any("does not cover" in f.sentence for f in found.findings)


def test_scales_at_their_bound_are_counted():
    family = Affine("clamp", bound=2.0)
    layer = Elementwise((4,), Inverted(family))
    with torch.no_grad():
        layer.params[:2, 1] = 50.0
    found = audit(Flow(layer).eval(), vectors(4))
    assert found.layers[0].clamped == 0.5
    assert found.layers[0].log_scale == pytest.approx(2.0)
    assert any("50% of its entries" in f.sentence for f in found.findings)


@pytest.mark.parametrize(
    ("x", "match"),
    [
        (torch.zeros(0, 6), "at least one example"),
        (torch.tensor([[0.0] * 6, [math.nan] * 6]), "NaN or infinity in row 1"),
        (torch.zeros(3, 5), "event shape"),
        (torch.zeros(3, 6).double(), "float64"),
    ],
)
def test_bad_examples_are_refused(x, match):
    with pytest.raises((InputError, ShapeError), match=match):
        audit(vector_flow(), x)


def test_json_holds_everything():
    found = audit(vector_flow(parts=[sabotaged(shift=math.nan)]), vectors())
    content = json.loads(json.dumps(found.to_dict(), allow_nan=False))
    assert content["data"]["relative"] == "inf"
    assert content["passes"] is False
    assert content["dtype"] == "float32"
    assert content["layers"][1]["path"] == "transform.parts.1"
    assert "transform.parts.1" in str(found)
