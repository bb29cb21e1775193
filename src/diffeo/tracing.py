"""Whether code may depend on values: where it is compiled, exported or mapped, there are none to look at."""

from __future__ import annotations

import torch


def eager() -> bool:
    """Whether every operation runs on values at once: not in torch.compile, torch.export and torch.func."""
    return not (torch.compiler.is_compiling() or torch._C._are_functorch_transforms_active())


def may_look() -> bool:
    """The same, or torch.compile, which can leave a part out of its graph: not in torch.export and torch.func."""
    # torch.compiler.is_exporting() is that flag, but true of torch.compile, too, within dynamo of older releases.
    exporting = getattr(torch.compiler, "_is_exporting_flag", False)
    return not (exporting or torch._C._are_functorch_transforms_active())
