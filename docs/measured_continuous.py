"""Tables of scripts/continuous.py and benchmarks/continuous.py, from what they stored."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from statistics import mean, stdev
from typing import Any

from measured_images import MISSING, lines

Rows = list[Mapping[str, Any]]
SHOWN = {
    "ffjord": "FFJORD",
    "flow_matching": "flow matching",
    "flow_matching, optimal coupling": "the same, optimal coupling",
}


def _over_seeds(rows: Rows, key: Callable[[Mapping[str, Any]], float], digits: int) -> str:
    """Mean over the seeds and its standard error."""
    values = [key(r) for r in rows if "failed" not in r]
    if not values:
        return "failed" if rows else "–"
    error = stdev(values) / len(values) ** 0.5 if len(values) > 1 else None
    shown = f"{mean(values):.{digits}f}"
    return shown if error is None else f"{shown} ± {error:.{digits}f}"


def _grid(rows: Rows, key: Callable[[Mapping[str, Any]], float], digits: int) -> list[Any]:
    """Densities by methods."""
    places = sorted({r["data"] for r in rows})
    return [
        (
            place,
            *(
                _over_seeds(
                    [r for r in rows if (r["data"], r["method"]) == (place, m)], key, digits
                )
                for m in SHOWN
            ),
        )
        for place in places
    ]


def densities(rows: Rows) -> str:
    """KL, and the evaluations of 512 test points; the paired gap where there are three seeds."""
    head = ("density, KL in nats", *SHOWN.values())
    first = lines([head, *_grid(rows, lambda r: r["kl"], 3)])
    head = ("evaluations of a likelihood", *SHOWN.values())
    second = lines([head, *_grid(rows, lambda r: r["evaluations"]["encode"], 0)])
    return f"{first}\n\n{second}\n\n{_orders(rows)}"


def _orders(rows: Rows) -> str:
    """Where flow matching is better with at least three paired seeds and a gap above two standard errors."""
    found = {(r["data"], r["method"], r["seed"]): r["kl"] for r in rows if "kl" in r}
    better, worse, open_ = [], [], []
    for place in sorted({r["data"] for r in rows}):
        gaps = [
            kl - found[place, "flow_matching", seed]
            for (data, method, seed), kl in found.items()
            if (data, method) == (place, "ffjord") and (place, "flow_matching", seed) in found
        ]
        shown = len(gaps) >= 3 and abs(mean(gaps)) > 2 * stdev(gaps) / len(gaps) ** 0.5
        (open_ if not shown else better if mean(gaps) > 0 else worse).append(place)
    return (
        "With three paired seeds and a gap above two standard errors, flow matching is better on: "
        f"{', '.join(better) or 'none'}; FFJORD on: {', '.join(worse) or 'none'}; not shown: "
        f"{', '.join(open_) or 'none'}."
    )


def samplers(rows: Rows) -> str:
    """Energy distances, a row a density and a sampler; that of the truth to itself; the straightness."""
    names = [n for n in rows[0]["samplers"] if n != "truth"]
    table = [("density, sampler", *SHOWN.values())]
    for place in sorted({r["data"] for r in rows}):
        some = [r for r in rows if r["data"] == place]
        truth = _over_seeds(some, lambda r: r["samplers"]["truth"], 4)
        kinds = {n: (lambda r, n=n: r["samplers"][n]["energy"], 4) for n in names}
        kinds["straightness"] = (lambda r: r["straightness"], 3)
        for name, (key, digits) in kinds.items():
            cells = (_over_seeds([r for r in some if r["method"] == m], key, digits) for m in SHOWN)
            table.append((f"{place}, {name}", *cells))
        table.append((f"{place}, the truth to itself", truth, "", ""))
    return lines(table)


def digits(rows: Rows) -> str:
    table = [("recipe", "bits/dim", "kind", "parameters", "steps", "minutes")]
    for r in rows:
        bits = f"{r['bits']:.3f} ± {r['bits_error']:.3f}" if "bits" in r else r["failed"]
        more = (r.get("kind", ""), r.get("parameters", ""), f"{r.get('steps', 0):,.0f}")
        table.append((f"`{r['recipe']}`", bits, *more, f"{r.get('seconds', 0) / 60:.1f}"))
    return lines(table)


def uci(rows: Rows) -> str:
    table = [("set", "FFJORD", "flow matching")]
    for name in dict.fromkeys(r["set"] for r in rows):
        cells = []
        for model in ("ffjord", "flow_matching"):
            found = [r for r in rows if (r["set"], r["model"]) == (name, model)]
            good = [r["test"] for r in found if "test" in r]
            cells.append(f"{mean(good):.2f} ({len(good)} splits)" if good else "–")
        table.append((name, *cells))
    return lines(table)


def round_trips(rows: Rows) -> str:
    table = [("method", "float32", "conditioning, at most", "float64")]
    for method, shown in SHOWN.items():
        found = [r["round_trip"] for r in rows if r["method"] == method and "round_trip" in r]
        if found:
            worst = {k: max(f[k] for f in found) for k in ("float32", "conditioning", "float64")}
            table.append((shown, *(f"{worst[k]:.1e}" for k in worst)))
    return lines(table)


def bench(tables: Rows) -> str:
    """Milliseconds and ratio to zuko."""
    out = [("", "train step, ms", "log_prob", "sample", "evaluations", "worst error of log_prob")]
    for document in tables:
        out.append((f"**{document['table']}**", *[""] * 5))
        peer = document["rows"].get("zuko")
        for name, row in document["rows"].items():
            cells = []
            for what in ("train step", "log_prob", "sample"):
                t = row[what]["median"]
                ratio = f" ({t / peer[what]['median']:.2f})" if peer and name != "zuko" else ""
                cells.append(f"{t:.1f}{ratio}")
            fact = document["facts"][name]
            out.append((name, *cells, str(fact["evaluations"]), f"{fact['error']:.1e}"))
    return lines(out)


PARTS = {
    "densities": ("continuous_densities", "rows", densities),
    "round_trips": ("continuous_densities", "rows", round_trips),
    "samplers": ("continuous_samplers", "rows", samplers),
    "digits": ("continuous_digits", "rows", digits),
    "uci": ("continuous_uci", "rows", uci),
    "bench": ("continuous_bench", "tables", bench),
}


def continuous(part: str, stored: Callable[[str], Any]) -> str:
    """`<!-- continuous PART -->`."""
    file, key, show = PARTS[part]
    document = stored(file)
    if not document or not document.get(key):
        return MISSING
    said = ", ".join(document[k] for k in ("machine", "versions", "date"))
    origin = f"<small>`{document['command']}`, {said}.</small>"
    return f"{show(document[key])}\n\n{origin}"
