"""Stored numbers in the documentation: `<!-- stored FILE KEY.KEY FORMAT -->`, `<!-- facts FILE KEY -->`, tables."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable
from pathlib import Path
from statistics import mean, median, stdev
from typing import Any

from measured_anomaly import anomaly
from measured_continuous import continuous
from measured_convex import convex
from measured_editing import editing
from measured_images import ablation, dequantization, figure, images
from measured_inference import sbi
from measured_residual import residual
from measured_restoring import restoring
from measured_strings import strings
from measured_tables import large, synthetic
from measured_translating import translating

RESULTS = Path(__file__).resolve().parent.parent / "results"
MISSING = "*not measured yet*"


def stored(name: str, keys: str = "") -> Any:
    """A value of results/NAME.json by its dotted keys, or None."""
    path = RESULTS / f"{name}.json"
    value = json.loads(path.read_text()) if path.exists() else None
    for key in filter(None, keys.split(".")):
        value = value.get(key) if isinstance(value, dict) else None
    return value


def number(arguments: str) -> str:
    """One number: `<!-- stored tutorial moons.nats .3f -->`."""
    name, keys, form = arguments.split()
    value = stored(name, keys)
    return MISSING if value is None else format(value, form)


def facts(arguments: str) -> str:
    """Where numbers come from: command, seed, machine, versions, date."""
    document = stored(*arguments.split())
    if document is None:
        return MISSING
    seed = f"seed {document['seed']}, " if "seed" in document else ""
    return (
        f"<small>`{document['command']}`, {seed}{document['machine']}, {document['versions']}, "
        f"{document['date']}.</small>"
    )


def power(value: float | None) -> str:
    """3e-07 as 3·10⁻⁷; an exact 0 stays."""
    if value is None:
        return "–"
    if value == 0:
        return "0"
    if 1e-2 <= value < 1e3:
        return f"{value:.2g}" if value < 100 else f"{value:.0f}"
    mantissa, exponent = f"{value:.0e}".split("e")
    raised = str(int(exponent)).translate(str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹"))
    return f"{mantissa}·10{raised}"


COLUMNS = {
    "round_trip_float64": "round trip, float64",
    "round_trip_float32": "float32",
    "ladj_float64": "ladj, float64",
    "ladj_float32": "float32",
    "ladj_bfloat16": "bfloat16",
    "share": "budget used",
}


def numerics(part: str) -> str:
    """The error table of one part: transforms and families by name, the zoo by model; the worst of its entries."""
    document = stored("numerics")
    if document is None:
        return MISSING
    if part == "sharp":
        return sharp(document.get("sharp", []))
    groups: dict[str, list[dict[str, Any]]] = {}
    for row in document["rows"]:
        if row["part"] == part:
            name = row["name"] if part == "families" else row["name"].split("/")[0]
            groups.setdefault(name, []).append(row)
    lines = [("component", "cases", "condition", *COLUMNS.values())]
    lines.append(("---", *["---:"] * (len(lines[0]) - 1)))
    for name, rows in groups.items():
        cases = len(rows) * len(document["seeds"])
        for row in rows:
            row["share"] = max(
                v for k, v in row.items() if k.startswith("share_") and v is not None
            )
        worst = {k: max((r[k] for r in rows if r[k] is not None), default=None) for k in COLUMNS}
        numbers = [f"{worst[k]:.1%}" if k == "share" else power(worst[k]) for k in COLUMNS]
        condition = power(max(r["condition"] for r in rows))
        lines.append((f"`{name}`", str(cases), condition, *numbers))
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def sharp(rows: list[dict[str, Any]]) -> str:
    """Every family at parameters of growing scale: the worst of its variants."""
    lines = [("family", "dtype", "scale", "failed", "round trip", "roundings", "1e4")]
    lines.append(("---", "---", *["---:"] * 5))
    groups: dict[tuple[str, str, float], list[dict[str, Any]]] = {}
    for row in rows:
        key = (row["name"].split("/")[0], row["dtype"], row["scale"])
        groups.setdefault(key, []).append(row)
    for (name, dtype, scale), same in groups.items():
        failed = sum(row["failed"] + row["not_finite"] for row in same)
        worst = [max((r[k] for r in same if k in r), default=None) for k in ("round_trip", "far")]
        units = f"{max(r['roundings'] for r in same):.1f}"
        numbers = (str(failed), power(worst[0]), units, power(worst[1]))
        lines.append((f"`{name}`", dtype, f"{scale:g}", *numbers))
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def peers(_: str) -> str:
    """What scripts/peers.py found in other libraries."""
    rows = stored("peers", "rows")
    if rows is None:
        return MISSING
    lines = ["| library | what was found |", "| --- | --- |"]
    lines += [f"| {r['library']} {r['version']} | {r['found']} |" for r in rows]
    return "\n".join(lines)


def tails(_: str) -> str:
    """The heavy-tailed experiment: a row a base, medians and trimmed means over seeds."""
    summary = stored("tails", "summary")
    if summary is None:
        return MISSING
    head = (
        "base",
        "failed",
        "test NLL, median",
        "trimmed mean",
        "worst",
        "above the optimum",
        "99.9 % quantile",
    )
    lines = [head, ("---", *["---:"] * (len(head) - 1))]
    for base, row in summary.items():
        numbers = [row.get(k) for k in ("nats_median", "nats_trimmed", "nats_worst", "kl_median")]
        cells = ["–" if v is None else f"{v:.3f}" for v in numbers]
        error = row.get("quantile_error_median")
        cells.append("–" if error is None else f"off by {math.expm1(error):.0%}")
        lines.append((base, f"{row['failed']} of {row['runs']}", *cells))
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


PUBLISHED = (
    ("Gaussian", "96.67", "full covariance; MAF paper"),
    ("MADE", "148.85", "1 or 2 layers of 512 or 1024; MAF paper"),
    ("Real NVP", "153.28", "10 couplings; MAF paper"),
    (
        "MAF (5)",
        "155.69",
        "5 MADEs, 1 or 2 layers of 512 or 1024; batches of 100 to early stopping; MAF paper",
    ),
    ("MAF-MoG (5)", "156.36", "the same on a MADE with 10 Gaussians; MAF paper"),
    ("MAF", "156.95", "10 residual MADEs, LU-linear layers; NSF paper"),
    ("FFJORD", "157.40 ± 0.19", "over runs"),
    ("NAF", "157.73 ± 0.04", "over runs"),
    (
        "RQ-NSF (C)",
        "157.54 ± 0.28",
        "20 layers, width 128; 400,000 steps of 512; NSF paper, two standard errors",
    ),
    (
        "RQ-NSF (AR)",
        "157.31 ± 0.28",
        "10 layers, width 512; 400,000 steps of 512; NSF paper, two standard errors",
    ),
)


def bsds300(_: str) -> str:
    """The BSDS300 table: our rows with their settings, then the published ones."""
    lines = [("model", "test log p, nats", "settings"), ("---", "---:", "---")]
    for name, row in (stored("bsds300", "rows") or {}).items():
        settings = "full covariance"
        if name != "gaussian":
            hyper = ", ".join(f"{k} {v}" for k, v in row["hyper"].items())
            training = row["training"]
            settings = (
                f"{hyper}; {row['parameters']:,} parameters; {row['steps']:,} steps of {training['batch_size']} in "
                f"{row['minutes']:.0f} minutes, lr {training['lr']:g}, weights averaged ({training['ema']})"
            )
        lines.append((f"**{name}, here**", f"{row['nats']:.2f} ± {row['error']:.2f}", settings))
    lines += PUBLISHED
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def best(rows: list[dict[str, Any]], place: str) -> list[dict[str, Any]]:
    """The rows on one density, at the learning rate with the lowest validation loss."""
    here = [r for r in rows if r["data"] == place]
    rate = min(here, key=lambda r: r["validation"])["lr"] if here else None
    return [r for r in here if r["lr"] == rate]


def plane(name: str) -> str:
    """KL to known densities: a row a model, a column a density; mean over seeds, and from three on their deviation."""
    rows = stored(name, "rows")
    if rows is None:
        return MISSING
    places = sorted({r["data"] for r in rows})
    head = ("", "parameters", "steps", "seconds", *places)
    lines = [head, ("---", *["---:"] * (len(head) - 1))]
    for model in dict.fromkeys(r["model"] for r in sorted(rows, key=lambda r: r["model"])):
        same = [r for r in rows if r["model"] == model]
        cells = []
        for place in places:
            # Integrals by quadrature: the divergence with so many nodes that they are exact.
            found = [r.get("kl_refined", r["kl"]) for r in best(same, place)]
            text = f"{mean(found):.3f}" if found else "–"
            cells.append(f"{text} ± {stdev(found):.3f}" if len(found) > 2 else text)
        seconds = f"{median(r['processor_seconds'] for r in same):.0f}"
        facts = (str(same[0]["parameters"]), str(same[0]["steps"]), seconds)
        lines.append((f"`{model}`", *facts, *cells))
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


CONTENDERS = {
    "gaussian": "Gaussian",
    "mixture": "Gaussian mixture",
    "zuko": "zuko NSF",
    "zuko, mixture": "zuko NSF, two mixed",
    "nflows": "nflows NSF",
    "nflows, mixture": "nflows NSF, two mixed",
    "diffeo": "diffeo",
    "diffeo, mixture": "diffeo, two mixed",
}


def tables(_: str) -> str:
    """UCI tables: test log-likelihood of each model on each set, and the paired gap of ours to the best other."""
    summary = stored("tables", "summary")
    if summary is None:
        return MISSING
    sets = [name for name, found in summary.items() if found]
    lines = [("", *sets), ("---", *["---:"] * len(sets))]
    for key, shown in CONTENDERS.items():
        cells = (summary[name].get(key) for name in sets)
        numbers = ("–" if c is None else f"{c['mean']:.2f} ± {c['error']:.2f}" for c in cells)
        lines.append((shown, *numbers))
    for ours in ("diffeo", "diffeo, mixture"):
        gaps = []
        for name in sets:
            best = summary[name].get(ours, {}).get("best_other")
            gaps.append("–" if best is None else f"{best['gap']:+.2f} ± {best['error']:.2f}")
        lines.append((f"{CONTENDERS[ours]}, less the best other", *gaps))
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def memory(part: str) -> str:
    """Training a Glow of growing depth: memory and time, or (`gradients`) the errors of float32 gradients."""
    rows = stored("memory", "rows") or []
    cells = {(r["depth"], r["cell"]): r for r in rows}
    depths = sorted({r["depth"] for r in rows})
    if not depths:
        return MISSING

    def show(depth: int, cell: str, key: str, form: Callable[[float], str]) -> str:
        row = cells.get((depth, cell))
        return "–" if row is None else form(row[key])

    columns: dict[str, tuple[str, str, Callable[[float], str]]] = {
        "memory, plain": ("memory plain", "mb", "{:.0f} MB".format),
        "memory, reversible": ("memory reversible", "mb", "{:.1f} MB".format),
        "step, plain": ("time", "plain", "{:.2f} s".format),
        "step, reversible": ("time", "reversible", "{:.2f} s".format),
        "ratio": ("time", "ratio", "{:.2f}".format),
    }
    if part == "gradients":
        columns = {
            "float32, plain": ("gradients", "plain", power),
            "float32, reversible": ("gradients", "reversible", power),
            "float64, reversible": ("gradients", "reversible_float64", power),
            "reconstruction, float32": ("gradients", "reconstruction", power),
        }
    lines = [("depth", "parameters", *columns), tuple(["---:"] * (len(columns) + 2))]
    for depth in depths:
        parameters = show(depth, "memory plain", "parameters", "{:,}".format)
        lines.append((str(depth), parameters, *(show(depth, *c) for c in columns.values())))
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


# The files of scripts/images.py, by data set.
IMAGES = {"digits": "images_digits", "cifar10": "cifar10", "mnist": "mnist"}

RENDER: dict[str, Callable[[str], str]] = {
    "images": lambda data: images(stored(IMAGES[data]), data),
    "ablation": lambda _: ablation(stored("ablation")),
    "dequantization": lambda _: dequantization(stored("dequantization")),
    "figure": figure,
    "anomaly": lambda arguments: anomaly(stored("anomaly"), arguments),
    "editing": lambda arguments: editing(stored("editing"), arguments),
    "restoring": lambda arguments: restoring(stored("restoring"), arguments),
    "translating": lambda arguments: translating(stored("translating"), arguments),
    "strings": lambda arguments: strings(stored("strings"), arguments),
    "synthetic": lambda _: synthetic(stored("tables_synthetic")),
    "large": lambda _: large(stored("large_tables")),
    "continuous": lambda part: continuous(part, stored),
    "convex": lambda part: convex(stored("convex"), stored("tables"), part),
    "memory": memory,
    "residual": lambda part: residual(part, stored),
    "sbi": lambda method: sbi(stored("sbi"), method),
    "stored": number,
    "facts": facts,
    "numerics": numerics,
    "peers": peers,
    "tails": tails,
    "tables": tables,
    "plane": plane,
    "bsds300": bsds300,
}
PLACE = re.compile(rf"<!-- ({'|'.join(RENDER)}) ?(.*?) -->")


FUNCTION = re.compile(
    r"(?<!<msub>)(?<!<msup>)(?<!<munder>)<mi>(log|sin|cos|tanh)</mi>(?!<mo[^>]*>&#x00028;)"
)


def on_page_content(html: str, **_: Any) -> str:
    """A thin space after the name of a function, as TeX has it."""
    return FUNCTION.sub(r'<mi>\1</mi><mspace width="0.17em"/>', html)


def on_page_markdown(markdown: str, **_: Any) -> str:
    """Put stored numbers where a page asks for them."""
    return PLACE.sub(lambda match: RENDER[match[1]](match[2]), markdown)
