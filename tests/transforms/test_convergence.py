"""Where a value has no preimage, the error names the layer, whatever the transform."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from diffeo.errors import ConvergenceError
from diffeo.families.numeric import NumericInverse
from diffeo.transforms import Autoregressive, Coupling, Elementwise, Inverse


class Bounded(NumericInverse):
    """y = sigmoid(x) + params: 2 has no preimage at zero params."""

    num_params = 1

    def forward(self, x: Tensor, params: Tensor) -> tuple[Tensor, Tensor]:
        return x.sigmoid() + 0 * params[..., 0], (x.sigmoid() * (-x).sigmoid()).log()


@pytest.mark.parametrize("kind", [Autoregressive, Coupling, Elementwise])
def test_convergence_error_names_the_layer(kind: Any) -> None:
    layer = kind((3,), Bounded())
    z = torch.full((2, 3), 2.0)
    words = rf"^{kind.__name__}\(3,\): Bounded: the inverse of .* worst residual"
    with pytest.raises(ConvergenceError, match=words):
        layer.inverse(z)
    with pytest.raises(ConvergenceError, match=words):
        Inverse(layer)(z)
