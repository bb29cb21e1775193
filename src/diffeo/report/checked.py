"""The audit as a section: verdict, findings, what was measured, and the layers."""

from __future__ import annotations

from ..auditing import Audit, audit
from ..auditing.table import COLUMNS, facts, layer_cells
from ..data import Data
from ..flow import Flow
from .drawing import test_rows
from .page import Section, fact_table, folded, plain_table, remarks

_OPEN = 12  # layers that are shown unfolded


def audited(flow: Flow, data: Data, seed: int) -> Section:
    """Of test examples."""
    x, context = test_rows(flow, data, 1000, seed)
    return audit_section(audit(flow, x, context, seed=seed))


def audit_section(found: Audit) -> Section:
    """An audit in words and tables."""
    about = (
        " An invertible model must give back what it took, and its ladj must be the log-determinant of its Jacobian: "
        "this checks that the trained weights still do, in the arithmetic that is used, whole and layer by layer."
    )
    said = remarks([(f.severity, f.sentence) for f in found.findings])
    layers = plain_table(COLUMNS, [layer_cells(a) for a in found.layers], text_columns=2)
    explained = (
        "Round trip: relative error of the layer alone. Ladj error: nats from log|det| by autograd, in float64. "
        "Log-scale: the largest |elementwise log-derivative|. Lipschitz: largest singular value of the Jacobian."
    )
    layers = f"{layers}<p>{explained}</p>"
    if len(found.layers) > _OPEN:
        layers = folded(f"The {len(found.layers)} layers", layers, html=True)
    return Section(
        "Audit", found.verdict + about, table=said + fact_table(dict(facts(found))) + layers
    )
