"""Importing diffeo is cheap and changes nothing."""

import json
import subprocess
import sys

CODE = """
import json, sys, warnings, torch, random
import numpy
before = (
    torch.distributions.Distribution._validate_args, torch.get_default_dtype(), torch.get_num_threads(),
    torch.random.initial_seed(), list(warnings.filters), torch.is_grad_enabled(),
)
rng, py, np_state = torch.get_rng_state(), random.getstate(), numpy.random.get_state()[1].tolist()
import diffeo
after = (
    torch.distributions.Distribution._validate_args, torch.get_default_dtype(), torch.get_num_threads(),
    torch.random.initial_seed(), list(warnings.filters), torch.is_grad_enabled(),
)
assert before == after, (before, after)
assert torch.equal(rng, torch.get_rng_state()) and py == random.getstate()
assert np_state == numpy.random.get_state()[1].tolist()
print(json.dumps(sorted(sys.modules)))
"""

HEAVY = ("lightning", "matplotlib", "sklearn", "pydantic", "typer", "rich", "PIL", "pandas", "yaml")


def test_import_is_light_and_pure():
    out = subprocess.run([sys.executable, "-c", CODE], check=True, capture_output=True, text=True)
    loaded = {name.split(".")[0] for name in json.loads(out.stdout)}
    assert not loaded & set(HEAVY)
