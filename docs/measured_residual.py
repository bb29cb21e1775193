"""Tables of scripts/residual.py and benchmarks/residual.py, from what they stored."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from statistics import mean
from typing import Any

from measured_images import MISSING, error, lines, verdict

Document = Mapping[str, Any]
# The papers' orders: worse, better.
ORDERS = (
    ("with ELU", "residual_flow"),
    ("series of 2", "residual_flow"),
    ("series of 5", "residual_flow"),
    ("residual_flow", "idensenet"),
    ("residual_flow", "impflow"),
)


def densities(document: Document | None) -> str:
    """Exact nats with what is claimed beside it, and the paired gaps."""
    if document is None:
        return MISSING
    rows = [r for r in document["rows"] if "failed" not in r]
    head = ("density", "model", "parameters", "exact, nats", "KL", "claimed - exact", "seeds")
    body = []
    for place, variant in sorted({(r["data"], r["variant"]) for r in rows}):
        same = [r for r in rows if (r["data"], r["variant"]) == (place, variant)]
        nats = [r["nats"] for r in same]
        spread = f" ± {error(nats):.3f}" if len(nats) > 1 else ""
        gaps = [r["claimed_gap"] for r in same]
        noise = mean(r["claimed_gap_error"] for r in same) / len(same) ** 0.5
        body.append(
            (
                place,
                variant,
                f"{same[0]['parameters']:,}",
                f"{mean(nats):.3f}{spread}",
                f"{mean(r['kl'] for r in same):.3f}",
                f"{mean(gaps):+.4f} ± {noise:.4f}",
                str(len(same)),
            )
        )
    trips = [r["round_trip"] for r in rows]
    worst = {d: max(t[d]["error"] for t in trips) for d in ("float32", "float64")}
    evaluations = mean(t["float32"]["evaluations"] for t in trips)
    return "\n\n".join(
        (
            lines([head, *body], left=2),
            orders(rows),
            f"Worst relative error of a round trip: {worst['float32']:.0e} in float32, "
            f"{worst['float64']:.0e} in float64; {evaluations:.1f} evaluations of g a block in float32. "
            f"Largest certified constant: {max(r['certified'] for r in rows):.3f}.",
        )
    )


def orders(rows: list[Mapping[str, Any]]) -> str:
    """The paired gaps of the papers' orders."""
    head = ("density", "order", "gap, nats")
    body = []
    for place in sorted({r["data"] for r in rows}):
        for worse, better in ORDERS:
            found = [
                {r["seed"]: r["nats"] for r in rows if (r["data"], r["variant"]) == (place, v)}
                for v in (worse, better)
            ]
            if all(found):
                body.append((place, f"{worse} less {better}", verdict(*found)))
    return lines([head, *body], left=2)


def pictures(document: Document | None) -> str:
    """A row a run."""
    if document is None:
        return MISSING
    head = ("run", "test bits/dim", "kind", "parameters", "steps", "minutes")
    body = [
        (
            r["recipe"],
            f"{r['bits']:.3f} ± {r['bits_error']:.3f}",
            f"{r['kind']}, {r['note']}",
            r["parameters"],
            f"{r['steps']:.0f}",
            f"{r['seconds'] / 60:.1f}",
        )
        for r in document["rows"]
        if "failed" not in r
    ]
    return lines([head, *body])


def memory(document: Document | None) -> str:
    """KiB that backward keeps, by terms and by layers."""
    if document is None:
        return MISSING
    head = (
        "KiB kept for backward, beside the parameters",
        "here",
        'here, `memory="checkpoint"`',
        "stored graph of the series",
    )
    names = {
        "terms": "4 blocks, {} term{} of the series",
        "layers": "{} block{}, 4 terms of the series",
    }
    body = [
        (
            names[r["kind"]].format(r["count"], "s" if r["count"] > 1 else ""),
            f"{r['neumann_kib']:.0f}",
            f"{r['checkpoint_kib']:.0f}",
            f"{r['plain_kib']:.0f}",
        )
        for r in document["rows"]
    ]
    return lines([head, *body])


def bench(document: Document | None) -> str:
    """Milliseconds, and the ratio to the peer where there is one."""
    if document is None:
        return MISSING
    parts = []
    for table in document["tables"]:
        rows = table["rows"]
        peer = rows.get("normflows")
        calls = list(rows["diffeo"])
        body = []
        for name, row in rows.items():
            cells = []
            for call in calls:
                if call not in row:
                    cells.append("–")
                    continue
                ratio = f" ({row[call]['median'] / peer[call]['median']:.2f})" if peer else ""
                cells.append(f"{row[call]['median']:.1f}{ratio}")
            body.append((name, *cells))
        caption = f"{table['size']}; ms, and the ratio to normflows:"
        count = document.get("evaluations", {}).get(table["size"])
        more = "" if count is None else f"\n\n{count:.1f} evaluations of g a block for an inverse."
        parts.append(f"{caption}\n\n{lines([('', *calls), *body])}{more}")
    return "\n\n".join(parts)


def residual(part: str, stored: Callable[[str], Document | None]) -> str:
    """`<!-- residual densities -->`, digits, mnist, memory or bench, with where the numbers come from."""
    document = stored(f"residual_{part}")
    table = _TABLES[part](document)
    if document is None:
        return table
    made = (document[k] for k in ("command", "machine", "versions", "date"))
    command, *rest = made
    return f"{table}\n\n<small>`{command}`, {', '.join(rest)}.</small>"


_TABLES: dict[str, Callable[[Document | None], str]] = {
    "densities": densities,
    "digits": pictures,
    "mnist": pictures,
    "memory": memory,
    "bench": bench,
}
