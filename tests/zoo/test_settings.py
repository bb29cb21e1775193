"""Settings of the models: what is refused, in one sentence, and what all image models share."""

import pytest
import torch

import diffeo
from diffeo.errors import ConfigError

IMAGES = (1, 8, 8)
WRONG = [
    ("glow", {"depth": "many"}, "depth = 'many': .*integer"),
    ("glow", {"depth": 1.5}, "depth = 1.5"),
    ("glow", {"depth": 0}, "depth"),
    ("glow", {"scales": 0}, "scales"),
    ("glow", {"dropout": 2}, "dropout"),
    ("glow", {"mixing": ["conv1x1"]}, "mixing"),
    ("glow", {"split": 3}, "split = 3"),
    ("glow", {"levels": "many"}, "levels = 'many'"),
    ("glow", {"levels": 0}, "levels .* at least 2, got 0"),
    ("flowpp", {"couplings": 3}, "couplings = 3"),
    ("flowpp", {"couplings": [1, 2]}, "couplings"),
    ("flowpp", {"couplings": [-1, 0, 0]}, "couplings"),
    ("flowpp", {"attention_positions": -1}, "attention_positions"),
    ("flowpp", {"dropout": 3}, "dropout"),
    ("flowpp", {"alpha": "small"}, "alpha = 'small'"),
    ("maf", {"hidden": 3}, "hidden = 3"),
    ("maf", {"standardize": "maybe"}, "standardize = 'maybe': .*boolean"),
    ("maf", {"batch_norm": 2}, "batch_norm = 2: .*boolean"),
    ("maf", {"activation": 3}, "activation = 3: .*string"),
    ("nice", {"hidden": [8, "x"]}, "hidden = .*integer"),
    ("maf", {"hiden": [3]}, "no setting 'hiden', did you mean 'hidden'"),
]


@pytest.mark.parametrize(("name", "settings", "message"), WRONG)
def test_a_wrong_setting_is_named(name, settings, message):
    with pytest.raises(ConfigError, match=message):
        diffeo.zoo.build(name, IMAGES, size="tiny", **settings)


def test_settings_of_a_file_are_converted():
    """YAML reads 1e-6 as a string, and a quoted "no" is no truth."""
    settings = {"alpha": "1e-6", "standardize": "no", "hidden": ["8", 8], "batch_norm": 0}
    flow = diffeo.zoo.build("maf", IMAGES, size="tiny", **settings)
    assert {k: flow.provenance["hyper"][k] for k in settings} == {
        "alpha": 1e-6,
        "standardize": False,
        "hidden": [8, 8],
        "batch_norm": False,
    }


def test_a_negative_weight_of_the_classifier_is_refused():
    with pytest.raises(ConfigError, match="0 or more, got -1"):
        diffeo.zoo.build("glow", IMAGES, (3,), size="tiny", classifier=-1)


@pytest.mark.parametrize("name", ["nice", "revnet"])
def test_every_image_model_takes_variational_dequantization(name):
    flow = diffeo.zoo.build(
        name, (1, 4, 4), (2,), size="tiny", levels=5, dequantization="variational"
    ).eval()
    x, context = torch.randint(0, 5, (3, 1, 4, 4)), torch.randn(3, 2)
    flow.initialize(x, context)
    assert torch.equal(flow.decode(flow.encode(x, context), context).long(), x)
    assert flow.log_prob(x, context).isfinite().all()
