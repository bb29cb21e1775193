"""Synthetic copies of `adult` beside the rows themselves and Gaussian copulas, into results/tables_synthetic.json.

    DIFFEO_DATA=... python scripts/tables_synthetic.py [NAME ...] [--seeds 0 1 2] [--minutes 8] [--rows 16281]

Every copy has as many rows as the training part, and is compared with the official test part: how well boosted trees
that learn from the copy predict `income`, and every other column, of real test rows (`predicted` of
diffeo.applications.fidelity); whether trees tell the copy from test rows; distances of columns and of associations; and
how often a row of the copy is closer to a training row than to a test row. A row of the results is a name and a seed; a
row that is stored is not repeated.

real           the training rows themselves
tabular        recipes/tabular-adult-small.yaml, 8 minutes on one core
tabular, AR    the same with autoregressive layers
copula         a full-covariance Gaussian of what TypedColumns makes of the rows, the one that `diffeo evaluate` prints
copulas        GaussianMultivariate of the package copulas (pip install copulas), with beta marginals, the default of
               SDV's GaussianCopulaSynthesizer; a category is uniform on its share of (0, 1), also as there

About a minute a row, and the training, on one core: an hour in all. Without the package its rows are left out.
"""

from __future__ import annotations

import argparse
import importlib.util
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from stored import ROOT, provenance, read, write

from diffeo.applications.closest import memorized
from diffeo.applications.fidelity import (
    associations,
    cells,
    column_distances,
    predicted,
    told_apart,
)
from diffeo.columns import Schema
from diffeo.data import Data
from diffeo.training.recipe import Recipe, read_recipe, recipe
from diffeo.training.run import open_run, read_data, train
from diffeo.transforms import TypedColumns

Array = NDArray[np.float64]

NAME = "tables_synthetic"
RECIPE = ROOT / "recipes" / "tabular-adult-small.yaml"
RUNS = ROOT / "runs" / "tables_synthetic"
TARGET = "income"
CLOSEST = 4000


def chosen(seed: int, minutes: float, hyper: dict[str, Any]) -> Recipe:
    """The recipe under a seed; the validation rows are the same for all."""
    values = read_recipe(RECIPE)
    values["training"] |= {"seed": seed, "minutes": minutes}
    return recipe(values | {"hyper": values.get("hyper", {}) | hyper})


def flow(
    data: Data, n: int, seed: int, minutes: float, **hyper: Any
) -> tuple[Array, dict[str, Any]]:
    """Samples of a flow that is trained here, or was; and its likelihood on test rows."""
    folder = RUNS / "-".join([f"{minutes:g}min", *map(str, hyper.values()), str(seed)])
    train(chosen(seed, minutes, hyper), folder, progress=False, resume=True)
    trained, _, results = open_run(folder)
    start = time.monotonic()
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        x = trained.sample(n, generator=generator, batch_size=2048).double()
    facts = {
        "nats": results["rows"][0]["nats"],
        "nats_error": results["rows"][0]["nats_error"],
        "parameters": trained.num_parameters,
        "steps": results["metrics"]["steps"],
        "sampling_seconds": time.monotonic() - start,
    }
    return cells(x.numpy(), _schema(data)), facts


def _schema(data: Data) -> Schema:
    assert data.schema is not None
    return data.schema


@torch.no_grad()
def own_copula(data: Data, n: int, seed: int, minutes: float) -> tuple[Array, dict[str, Any]]:
    """Fitted marginals, Gaussian dependence of the latents: a category has as many as it has binary digits."""
    layer = TypedColumns(_schema(data)).double()
    generator = torch.Generator().manual_seed(seed)
    x = data.train.double()
    layer.initialize(x)
    z, _ = layer(x, None, layer.draw(len(x), generator=generator, like=x))
    covariance = z.T.cov() + 1e-6 * torch.eye(z.shape[1], dtype=z.dtype)
    eps = torch.randn(n, z.shape[1], dtype=z.dtype, generator=generator)
    made, _ = layer.inverse(z.mean(0) + eps @ torch.linalg.cholesky(covariance).T)
    return cells(made.numpy(), _schema(data)), {}


def package_copula(data: Data, n: int, seed: int, minutes: float) -> tuple[Array, dict[str, Any]]:
    """The package's Gaussian copula, categories placed as SDV does."""
    import pandas as pd
    from copulas.multivariate import GaussianMultivariate
    from copulas.univariate import BetaUnivariate, UniformUnivariate

    schema, rng = _schema(data), np.random.default_rng(seed)
    table = cells(data.train.numpy(), schema)
    columns, marginals, edges = {}, {}, {}
    for i, c in enumerate(schema.columns):
        if c.kind == "categorical":
            codes = np.where(np.isnan(table[:, i]), len(c.values), table[:, i]).astype(int)
            top = np.cumsum(np.bincount(codes, minlength=len(c.values) + 1)) / len(codes)
            edges[c.name] = np.concatenate(([0.0], top))
            low, high = edges[c.name][codes], edges[c.name][codes + 1]
            columns[c.name] = low + (high - low) * rng.random(len(codes))
            marginals[c.name] = UniformUnivariate
        else:
            columns[c.name] = table[:, i]
            marginals[c.name] = BetaUnivariate
    model = GaussianMultivariate(distribution=marginals, random_state=seed)
    model.fit(pd.DataFrame(columns))
    made = model.sample(n)
    found = np.empty((n, len(schema.columns)))
    for i, c in enumerate(schema.columns):
        value = made[c.name].to_numpy()
        if c.kind == "categorical":
            codes = np.searchsorted(edges[c.name][1:-1], value, side="right").astype(float)
            found[:, i] = np.where(codes == len(c.values), np.nan, codes)
        else:
            seen = table[:, i]
            found[:, i] = np.round(value).clip(seen.min(), seen.max())
    return found, {}


def rows(data: Data, n: int, seed: int, minutes: float) -> tuple[Array, dict[str, Any]]:
    """The training rows."""
    return cells(data.train.numpy(), _schema(data))[:n], {}


def autoregressive(data: Data, n: int, seed: int, minutes: float) -> tuple[Array, dict[str, Any]]:
    """The flow with autoregressive layers."""
    return flow(data, n, seed, minutes, layer="autoregressive")


MAKERS: dict[str, Callable[[Data, int, int, float], tuple[Array, dict[str, Any]]]] = {
    "real": rows,
    "tabular": flow,
    "tabular, AR": autoregressive,
    "copula": own_copula,
    "copulas": package_copula,
}


def measured(copy: Array, data: Data, most: int, seed: int) -> dict[str, Any]:
    """What is said of a copy, beside test rows."""
    schema = _schema(data)
    real, test = cells(data.train.numpy(), schema), cells(data.test.numpy(), schema)[:most]
    found: dict[str, Any] = {"rows": len(copy), "test_rows": len(test)}
    areas = {}
    for name in schema.names:
        score = predicted(copy, test, schema, name, like=real, seed=seed)
        if score is not None:
            areas[name] = [score.value, score.error]
    found["areas"] = areas
    found["area"], found["area_error"] = areas.get(TARGET, [None, None])
    found["mean_area"] = float(np.mean([value for value, _ in areas.values()]))
    told = told_apart(test, copy, schema, seed=seed)
    found |= {"told": told.area.value, "told_error": told.area.error, "told_by": told.columns[:3]}
    distances = column_distances(test, copy, schema)
    found["distance"] = float(np.mean([d.distance for d in distances]))
    n = min(len(test), len(copy))
    upper = np.triu_indices(len(schema.columns), 1)
    change = associations(copy[:n], schema) - associations(test[:n], schema)
    found["associations"] = float(np.mean(abs(change[upper])))
    close = memorized(copy[:CLOSEST], real, test, schema, seed=seed)
    found |= {"share": close.share, "share_error": close.error, "copies": close.copies[0]}
    return found


def main() -> None:
    """Fill the rows that are asked for and not stored."""
    parser = argparse.ArgumentParser(description="synthetic copies of adult")
    parser.add_argument(
        "names", nargs="*", default=list(MAKERS), metavar="NAME", help=", ".join(MAKERS)
    )
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument(
        "--minutes", type=float, default=8.0, help="of training; fewer, to try the script"
    )
    parser.add_argument(
        "--rows", type=int, default=16281, help="of the test part; fewer, to try the script"
    )
    arguments = parser.parse_args()
    unknown = [name for name in arguments.names if name not in MAKERS]
    if unknown:
        parser.error(f"there is no {unknown[0]!r}; there are {', '.join(MAKERS)}")
    names = list(arguments.names)
    if "copulas" in names and importlib.util.find_spec("copulas") is None:
        print("the package copulas is not installed, its rows are left out: pip install copulas")
        names.remove("copulas")
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    torch.set_num_threads(1)
    data = read_data(chosen(0, arguments.minutes, {}))
    for seed in arguments.seeds:
        for name in names:
            document = read(NAME)
            stored = document.get("rows", {})
            key = f"{name}, {seed}"
            settings = {
                "minutes": arguments.minutes,
                "test_rows": min(arguments.rows, len(data.test)),
            }
            if all(stored.get(key, {}).get(k) == v for k, v in settings.items()):
                continue
            start = time.monotonic()
            copy, facts = MAKERS[name](data, len(data.train), seed, arguments.minutes)
            facts["seconds"] = time.monotonic() - start
            stored[key] = facts | settings | measured(copy, data, arguments.rows, seed)
            print(key, {k: v for k, v in stored[key].items() if k != "areas"}, flush=True)
            write(NAME, provenance(f"python scripts/{Path(__file__).name}") | {"rows": stored})


if __name__ == "__main__":
    main()
