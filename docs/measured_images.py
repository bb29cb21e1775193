"""Tables of scripts/images.py, scripts/ablation.py and scripts/dequantization.py, from what they stored."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from math import log
from pathlib import Path
from statistics import mean, stdev
from typing import Any

MISSING = "*not measured yet*"
PICTURES = Path(__file__).resolve().parent / "images"
Document = Mapping[str, Any]

# Runs by the name under which they are shown; then what was published.
RUNS = {
    "digits": {"Glow": "glow-digits-small", "Flow++": "flowpp-digits-small"},
    "cifar10": {"Glow": "glow-cifar10-small"},
    "mnist": {
        "Real NVP": "realnvp-28",
        "Glow": "glow-mnist-small",
        "Flow++": "flowpp-mnist-small",
        "normflows Glow": "normflows",
        "normflows Glow, as its example trains": "normflows-example",
    },
}
PUBLISHED = {
    "digits": {},
    "cifar10": {"Real NVP": "3.49", "Glow": "3.35", "Flow++": "3.08"},
    "mnist": {"Real NVP": "1.06", "Glow": "1.05"},
}
AIMS = {"digits": 1.92}
ADVANTAGE = 0.05


def figure(arguments: str) -> str:
    """`<!-- figure name.png what it shows -->`: the picture, once its script has drawn it."""
    name, _, text = arguments.partition(" ")
    return f"![{text}](../images/{name})" if (PICTURES / name).exists() else MISSING


def lines(rows: Sequence[Sequence[str]], left: int = 1) -> str:
    """A table: the first row is its head; `left` columns are aligned to the left."""
    head, *body = rows
    rule = ["---"] * left + ["---:"] * (len(head) - left)
    return "\n".join("| " + " | ".join(row) + " |" for row in (head, rule, *body))


def error(values: Iterable[float]) -> float:
    """Standard error of the mean."""
    values = list(values)
    return stdev(values) / len(values) ** 0.5


def over_seeds(values: Mapping[int, float]) -> str:
    """Mean, and from two seeds on its standard error."""
    if not values:
        return MISSING
    text = f"{mean(values.values()):.3f}"
    return f"{text} ± {error(values.values()):.3f}" if len(values) > 1 else text


def verdict(worse: Mapping[int, float], better: Mapping[int, float]) -> str:
    """The paired gap over common seeds; an order takes three of them and a gap above two standard errors."""
    gaps = [worse[s] - better[s] for s in sorted(set(worse) & set(better))]
    if not gaps:
        return MISSING
    if len(gaps) < 3:
        return f"{mean(gaps):+.3f}, not shown ({len(gaps)} seed{'s' if len(gaps) > 1 else ''})"
    gap, spread = mean(gaps), error(gaps)
    word = (
        "shown"
        if gap > 2 * spread
        else "the opposite is shown"
        if -gap > 2 * spread
        else "not shown"
    )
    return f"{gap:+.3f} ± {spread:.3f}, {word}"


# -- pictures ---------------------------------------------------------------------------------------------------------


def images(document: Document | None, data: str) -> str:
    """The runs on one data set with their settings, what was published, curves and samples."""
    rows: Document = (document or {}).get("rows", {})
    found = {shown: rows[name] for shown, name in RUNS[data].items() if name in rows}
    if not found:
        return MISSING
    head = ("", "test, bits/dim", "kind", "weighted", "parameters", "steps", "minutes", "settings")
    table = [head]
    for shown in RUNS[data]:
        table.append(
            (shown, *cells(found[shown])) if shown in found else (shown, MISSING, *[""] * 6)
        )
    for shown, bits in PUBLISHED[data].items():
        table.append((f"{shown}, published", bits, *[""] * 6))
    blocks = [lines(table)]
    if data in AIMS:
        judged = (
            f"{shown} {'meets' if row['bits'] <= AIMS[data] else 'misses'} it"
            for shown, row in found.items()
        )
        blocks.append(f"The aim was {AIMS[data]} bits/dim: {', '.join(judged)}.")
    weighted = next((r["weighted"] for r in found.values() if "weighted" in r), None)
    if weighted:
        blocks.append(
            f"Weighted: the importance-weighted bound of K = {weighted['draws']} draws on the first "
            f"{weighted['pictures']} test pictures, and in brackets the plain bound on the same."
        )
    if data == "mnist":
        blocks += [grid(rows), pairs(rows)]
    if (PICTURES / f"images-{data}.svg").exists():
        blocks.append(f"![validation loss by minutes of training](images/images-{data}.svg)")
    if (PICTURES / f"samples-{data}.png").exists():
        text = "samples of Glow; in the last row at temperature 0.7"
        blocks.append(f"![{text}](images/samples-{data}.png)")
        blocks.append(f"{text[0].upper()}{text[1:]}.")
    made = {facts(row["measured"]): None for row in found.values()}
    return "\n\n".join([*filter(None, blocks), *made])


def cells(row: Document) -> tuple[str, ...]:
    """A run: its likelihood, size, time and settings."""
    t, w = row["training"], row.get("weighted")
    better = f"{w['bits']:.3f} ± {w['bits_error']:.3f} ({w['plain']:.3f})" if w else ""
    average = f"weights averaged ({t['ema']:g})" if t["ema"] else "no averaging"
    settings = f"{row['optimizer']}, lr {t['lr']:g}, {t['schedule']}, batches of {t['batch_size']}, {average}"
    kind = f"{row['kind']}, {row['note']}"
    bits = f"{row['bits']:.3f} ± {row['bits_error']:.3f}"
    if row["steps"] is None:
        return bits, kind, better, row["parameters"], "", "", f"{settings}; {row['stopped']}"
    steps, minutes = f"{row['steps']:,.0f}", f"{row['seconds'] / 60:.1f}"
    return bits, kind, better, row["parameters"], steps, minutes, settings


def grid(rows: Document) -> str:
    """What chose the learning rates: validation losses of short runs."""
    out = []
    for shown, model in (("Glow", "glow"), ("normflows Glow", "normflows")):
        losses = {k: r for k, r in rows.items() if k.startswith(f"{model}-grid-")}
        tried = []
        for row in losses.values():
            rate = f"{row['training']['lr']:g}"
            loss = row["validation"]
            nats = row["dimensions"] * log(2)
            tried.append(f"diverges at {rate}" if loss is None else f"{loss / nats:.3f} at {rate}")
        if tried:
            minutes = max(r["seconds"] for r in losses.values()) / 60
            out.append(f"{shown} after {minutes:.0f} minutes: {', '.join(tried)}.")
    return "Validation bits/dim by learning rate. " + " ".join(out) if out else ""


def pairs(rows: Document) -> str:
    """Our Glow and the peer's in equal time, by seed."""
    bits: dict[str, dict[int, float]] = {}
    seconds = []
    for model in ("normflows", "glow"):
        same = {int(k[-1]): r for k, r in rows.items() if k.startswith(f"{model}-pair")}
        bits[model] = {seed: r["bits"] for seed, r in same.items()}
        seconds += [r["seconds"] for r in same.values()]
    peer, ours = bits["normflows"], bits["glow"]
    common = set(peer) & set(ours)
    if not common:
        return f"Paired seeds: {MISSING}."
    gap = mean(peer[s] - ours[s] for s in common)
    aim = "reached" if gap >= ADVANTAGE else "missed"
    return (
        f"{len(common)} paired seeds of {mean(seconds) / 60:.0f} minutes each, the rate of each library from the grid: "
        f"Glow {over_seeds(ours)}, normflows Glow {over_seeds(peer)} bits/dim; ours is lower by {verdict(peer, ours)}. "
        f"The aim of {ADVANTAGE} is {aim}."
    )


def facts(document: Document) -> str:
    return (
        f"<small>`{document['command']}`, {document['machine']}, {document['versions']}, "
        f"{document['date']}.</small>"
    )


# -- ablations --------------------------------------------------------------------------------------------------------


def ablation(document: Document | None) -> str:
    """Glow's permutations: bits/dim over seeds, and the paired gaps that the paper's order needs."""
    if not document or not document.get("rows"):
        return MISSING
    rows = longest(document["rows"], "budget")
    couplings = [c for c in ("affine", "additive") if any(r["coupling"] == c for r in rows)]
    shown = {"reverse": "reverse", "shuffle": "fixed shuffle", "conv1x1": "1x1 convolution"}

    def bits(coupling: str, mixing: str) -> dict[int, float]:
        return {
            r["seed"]: r["bits"] for r in rows if (r["coupling"], r["mixing"]) == (coupling, mixing)
        }

    table = [("", *couplings)]
    table += [(text, *(over_seeds(bits(c, m)) for c in couplings)) for m, text in shown.items()]
    for worse, better in (("reverse", "shuffle"), ("shuffle", "conv1x1"), ("reverse", "conv1x1")):
        gaps = (verdict(bits(c, worse), bits(c, better)) for c in couplings)
        table.append((f"{shown[worse]} worse than {shown[better]} by", *gaps))
    return f"{lines(table)}\n\n{counted(rows, 'budget')}\n\n{facts(document)}"


def dequantization(document: Document | None) -> str:
    """Flow++'s noise and couplings: the bound and the weighted bound over seeds, and the paired gaps."""
    if not document or not document.get("rows"):
        return MISSING
    rows = longest(document["rows"], "steps")
    kinds = {"bits": "bound", "weighted": rows[0]["weighted_kind"]}
    couplings, noises = ("mixture", "affine"), ("variational", "uniform")

    def bits(value: str, coupling: str, noise: str) -> dict[int, float]:
        return {
            r["seed"]: r[value] for r in rows if (r["coupling"], r["noise"]) == (coupling, noise)
        }

    table: list[Sequence[str]] = [("", *kinds.values())]
    for c in couplings:
        for n in noises:
            table.append((f"{c} couplings, {n} noise", *(over_seeds(bits(k, c, n)) for k in kinds)))
    for c in couplings:
        gaps = (verdict(bits(k, c, "uniform"), bits(k, c, "variational")) for k in kinds)
        table.append((f"uniform worse than variational by, {c}", *gaps))
    for n in noises:
        gaps = (verdict(bits(k, "affine", n), bits(k, "mixture", n)) for k in kinds)
        table.append((f"affine worse than mixture by, {n}", *gaps))
    return f"{lines(table)}\n\n{counted(rows, 'steps')}\n\n{facts(document)}"


def longest(rows: Sequence[Document], budget: str) -> list[Document]:
    """The rows of the largest budget: others are trials."""
    most = max(r[budget] for r in rows)
    return [r for r in rows if r[budget] == most]


def counted(rows: Sequence[Document], budget: str) -> str:
    seeds = len({r["seed"] for r in rows})
    many = "s" if seeds > 1 else ""
    return (
        f"{rows[0][budget]:,} steps a run, {seeds} seed{many}; ± is the standard error over them."
    )
