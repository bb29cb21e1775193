"""The zoo: published models by name."""

from .base import Card, build, card, names
from .bernstein import bernstein
from .bnaf import bnaf
from .copula import copula
from .cpflow import cpflow
from .ffjord import ffjord
from .flow_matching import flow_matching
from .flowpp import flowpp
from .gaussianization import gaussianization
from .glow import glow
from .iaf import iaf
from .idensenet import idensenet
from .impflow import impflow
from .iresnet import iresnet
from .maf import maf
from .measure_preserving import measure_preserving
from .naf import naf
from .nice import nice
from .nsf import nsf_autoregressive, nsf_coupling
from .passflow import passflow
from .realnvp import realnvp
from .residual_flow import residual_flow
from .revnet import revnet
from .sos import sos
from .tabular import tabular
from .umnn import umnn

__all__ = [
    "Card",
    "bernstein",
    "bnaf",
    "build",
    "card",
    "copula",
    "cpflow",
    "ffjord",
    "flow_matching",
    "flowpp",
    "gaussianization",
    "glow",
    "iaf",
    "idensenet",
    "impflow",
    "iresnet",
    "maf",
    "measure_preserving",
    "naf",
    "names",
    "nice",
    "nsf_autoregressive",
    "nsf_coupling",
    "passflow",
    "realnvp",
    "residual_flow",
    "revnet",
    "sos",
    "tabular",
    "umnn",
]
