"""Neighbours, ranks and the audit of the report: right where the truth is known."""

import pytest
import torch

from diffeo import Flow
from diffeo.auditing import audit
from diffeo.report.calibration import _expected_largest, ranks
from diffeo.report.checked import audit_section
from diffeo.report.drawing import some_rows
from diffeo.report.neighbours import nearest
from diffeo.transforms import Standardize


def normal(n, seed):
    return torch.randn(n, generator=torch.Generator().manual_seed(seed))


def test_the_nearest_row_is_found_across_chunks():
    train = normal(5000 * 3, 0).reshape(5000, 3)
    wanted = torch.tensor([0, 2047, 2048, 4999])
    distance, index = nearest(train[wanted] + 1e-3, train)
    assert torch.equal(index, wanted)
    torch.testing.assert_close(distance, torch.full((4,), 1e-3), rtol=1e-3, atol=0)


def test_rows_are_chosen_by_the_seed_and_once_each():
    x = torch.arange(1000)
    rows = some_rows(x, 50, 3)
    assert torch.equal(rows, some_rows(x, 50, 3))
    assert not torch.equal(rows, some_rows(x, 50, 4))
    assert len(rows.unique()) == 50
    assert some_rows(x, 1000, 3) is x


def test_ranks_of_the_same_law_stay_in_the_band():
    found = [ranks(normal(2000, i), normal(3000, 100 + i), "z", i) for i in range(100)]
    inside = torch.stack([(r.heights - 1).abs() <= r.band for r in found]).double().mean().item()
    assert inside == pytest.approx(0.99, abs=0.01)
    assert sum(r.excess > 1 for r in found) <= 5
    assert all(r.heights.mean().item() == pytest.approx(1) for r in found)


@pytest.mark.parametrize(("shift", "scale"), [(0.3, 1.0), (0.0, 1.3), (0.0, 0.75)])
def test_ranks_of_another_law_leave_it(shift, scale):
    found = ranks(shift + scale * normal(2000, 0), normal(3000, 1), "z", 0)
    assert found.excess > 1
    assert ((found.heights - 1).abs() > found.band).sum() > 3


def test_ties_are_no_misfit():
    found = ranks(normal(2000, 0).round(), normal(3000, 1).round(), "z", 0)
    assert found.excess < 1


def test_the_expected_largest_latent():
    draws = torch.stack([normal(1000, i).abs().max() for i in range(400)])
    assert _expected_largest(1000) == pytest.approx(draws.median().item(), abs=0.05)


def test_findings_are_on_the_page():
    found = audit(Flow(Standardize((3,))).eval(), 30 * normal(300, 0).reshape(100, 3))
    assert [f.severity for f in found.findings] == ["warning"]
    html = audit_section(found).html
    assert 'class="pill warning"' in html
    assert "does not cover these data" in html
    assert "transform" in html
