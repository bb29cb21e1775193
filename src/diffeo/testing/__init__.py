"""The oracle: is a transform, a family, a network, a distribution or a flow right?

`check_transform` and `check_flow` compare log-determinants with an independent float64 Jacobian, and test every other
promise of the contract. A failure raises `CheckFailed`, which lists the failed checks by name.
"""

from .conditioners import check_conditioner
from .distributions import check_distribution
from .families import check_family
from .flows import check_flow
from .randomize import randomize
from .report import CheckFailed, Report
from .transforms import check_transform

__all__ = [
    "CheckFailed",
    "Report",
    "check_conditioner",
    "check_distribution",
    "check_family",
    "check_flow",
    "check_transform",
    "randomize",
]
