"""What the report shows of a model that is given a picture: it, the truth, and several answers."""

from __future__ import annotations

import torch

from ..data import Data
from ..flow import Flow
from .drawing import generator, on_flow
from .page import Picture, Section
from .pictures import Scaling, image_grid

PICTURES, SAMPLES = 8, 3
TEMPERATURES = (0.7, 1.0)
_NAMES = {"grey": "in grey", "half": "at half size", "quarter": "at a quarter of the size"}


def given_samples(flow: Flow, data: Data, seed: int) -> Section:
    """Test pictures: what is given of them, themselves, samples and their mean."""
    assert data.given is not None
    x = on_flow(flow, data.test[:PICTURES])
    context = data.context(x)
    scaling = Scaling.of(data.train, data.levels)
    what = _NAMES[data.given]
    rows = [(f"the pictures {what}", "given", context), ("test pictures", "truth", x)]
    for t in TEMPERATURES:
        drawn = flow.sample(SAMPLES, context, t, generator=generator(flow, seed))
        rows += [(f"samples at temperature {t:g}", f"temperature {t:g}", y) for y in drawn]
    many = flow.sample(4 * SAMPLES, context, generator=generator(flow, seed))
    rows.append((f"the mean of {len(many)} samples", "mean", many.double().mean(0)))
    pictures = []
    for alt, caption, y in rows:
        assert isinstance(y, torch.Tensor)
        pictures.append(Picture(image_grid(y.cpu(), scaling, len(x)), alt, caption))
    text = (
        f"The model draws a picture given the same {what}. Above what it is given of test pictures, then the pictures "
        "themselves, which it does not see, and several of its answers: they should differ where what is given leaves "
        "room, and be plausible. Their mean is the best guess in squared error."
    )
    return Section("Samples", text, pictures, "strips")
