#!/usr/bin/env bash
# Build the wheel and use it as a stranger would: installed in another environment, from another folder.
# That environment borrows the dependencies of .venv, but not its editable installation of this checkout.
set -eu
cd "$(dirname "$0")/.."
checkout="$PWD"
python="$checkout/.venv/bin/python"
work="$(mktemp -d)"
trap 'rm -rf "$work"' EXIT

rm -f dist/diffeo-*.whl
"$python" -m build --wheel --no-isolation --outdir dist . >"$work/build.log" 2>&1 ||
  { cat "$work/build.log"; exit 1; }
wheel="$(ls dist/diffeo-*.whl)"

"$python" -m venv --without-pip "$work/venv"
"$python" -m pip --python "$work/venv/bin/python" install --quiet --no-deps --no-index "$wheel"
# A folder named by a .pth file comes last on the path, and its own .pth files are not read.
site="$("$work/venv/bin/python" -c 'import sysconfig; print(sysconfig.get_path("purelib"))')"
"$python" -c 'import sysconfig; print(sysconfig.get_path("purelib"))' >"$site/borrowed.pth"

cd "$work"
unset PYTHONPATH
"$work/venv/bin/python" - "$checkout" <<'PYTHON'
import sys
from pathlib import Path

import torch

import diffeo

checkout, package = Path(sys.argv[1]).resolve(), Path(diffeo.__file__).resolve().parent
assert checkout not in package.parents, f"imported {package}, which is inside the checkout"
assert (package / "py.typed").is_file(), "the wheel has no py.typed"

flow = diffeo.zoo.build("realnvp", (2,), size="tiny").eval()
flow.save("model")
again = diffeo.load("model").eval()
x = again.sample((3,))
assert x.shape == (3, 2), x.shape
torch.testing.assert_close(again.log_prob(x), flow.log_prob(x), rtol=0, atol=0)
print(f"{package}: built, saved, loaded and sampled realnvp")
PYTHON
"$work/venv/bin/diffeo" --help >/dev/null
echo "$(basename "$wheel") works outside the checkout"
