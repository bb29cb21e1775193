"""What the documentation computes while it is built: the table of models and the formulas."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from html import unescape
from pathlib import Path
from statistics import mean, stdev
from typing import Any

from latex2mathml.converter import convert

RESULTS = Path(__file__).resolve().parent.parent / "results"
MODELS = "<!-- models -->"
COLUMNS = ("Model", "Paper", "Domain", "Likelihood", "Example of an event", "In one sentence")
FORMULA = re.compile(r'<(span|div) class="arithmatex">\\([(\[])(.*?)\\[)\]]</\1>', re.DOTALL)


def cell(value: object) -> str:
    return " ".join(str(value).split()).replace("|", r"\|")


def paper(card: Any) -> str:
    title = card.title
    if card.arxiv:
        title = f"[{title}](https://arxiv.org/abs/{card.arxiv})"
    authors = card.authors if isinstance(card.authors, str) else ", ".join(card.authors)
    return f"{title}. {authors}, {card.year}"


def table() -> str:
    from diffeo import zoo

    rows = [COLUMNS, ("---",) * len(COLUMNS)]
    for name in zoo.names():
        card = zoo.card(name)
        event = " x ".join(map(str, card.event_shape))
        rows.append(
            (f"`{name}`", paper(card), card.domain, card.likelihood, event, card.description)
        )
    return "\n".join("| " + " | ".join(map(cell, row)) + " |" for row in rows)


def stored(name: str) -> dict[str, Any]:
    path = RESULTS / f"{name}.json"
    return json.loads(path.read_text()) if path.exists() else {}


def best_rates(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """For each model and data set, the rows at the learning rate with the lowest mean validation loss."""
    losses: dict[tuple[str, str], dict[float, list[float]]] = {}
    for r in rows:
        rates = losses.setdefault((r["data"], r["model"]), {})
        rates.setdefault(r["lr"], []).append(r["validation"])
    best = {k: min(rates, key=lambda lr: mean(rates[lr])) for k, rates in losses.items()}
    return [r for r in rows if r["lr"] == best[r["data"], r["model"]]]


def paired(name: str, value: str, unit: str) -> str:
    """NICE and Real NVP side by side, from stored rows, with the verdict of the paired seeds."""
    document = stored(name)
    if not document:
        return "*Not measured yet.*"
    measured = best_rates(document["rows"])
    columns = ("data", f"NICE, {unit}", f"Real NVP, {unit}", "Real NVP better by", "verdict")
    rows = [columns, ("---",) * len(columns)]
    by = {(r["data"], r["model"], r["seed"]): r[value] for r in measured}
    for data in dict.fromkeys(r["data"] for r in measured):
        seeds = sorted(s for d, m, s in by if d == data and m == "nice" and (d, "realnvp", s) in by)
        nice, realnvp = ([by[data, m, s] for s in seeds] for m in ("nice", "realnvp"))
        if not seeds:
            continue
        gaps = [a - b for a, b in zip(nice, realnvp, strict=True)]
        if len(seeds) < 3:
            cells = [f"{mean(v):.3f}" for v in (nice, realnvp)]
            rows.append((data, *cells, f"{mean(gaps):.3f}", f"not shown ({len(seeds)} seed)"))
            continue
        gap, error = mean(gaps), stdev(gaps) / len(gaps) ** 0.5
        shown = "Real NVP is better" if gap > 2 * error else "NICE is better"
        verdict = shown if abs(gap) > 2 * error else "not shown"
        cells = [f"{mean(v):.3f} ± {stdev(v):.3f}" for v in (nice, realnvp)]
        rows.append((data, *cells, f"{gap:.3f} ± {error:.3f}", verdict))
    lines = ["| " + " | ".join(map(cell, row)) + " |" for row in rows]
    return "\n".join(lines) + f"\n\n{facts(document)}\n"


def mnist() -> str:
    """The MNIST runs: both small recipes, the paired seeds, and what was published."""
    rows = stored("mnist").get("rows", {})
    if not rows:
        return "*Not measured yet.*"
    head = ("", "test, bits/dim", "kind", "minutes", "steps", "parameters")
    lines = [head, ("---", *["---:"] * (len(head) - 1))]
    for recipe in ("realnvp-mnist-small", "nice-mnist-small"):
        if recipe in rows:
            r = rows[recipe]
            bits = f"{r['bits']:.3f} ± {r['bits_error']:.3f}"
            cells = (f"{r['seconds'] / 60:.0f}", f"{r['steps']:.0f}", r["parameters"])
            lines.append((f"`recipes/{recipe}.yaml`", bits, f"{r['kind']}, {r['note']}", *cells))
    others = next(iter(rows.values()))["others"]
    lines += [(n, f"{r['bits']:.3f}", r["kind"], "", "", "") for n, r in others.items()]
    pairs = [k for k in rows if k[-2:-1] == "-"]
    seeds = sorted({k[-1] for k in pairs if f"nice-{k[-1]}" in rows and f"realnvp-{k[-1]}" in rows})
    text = "\n".join("| " + " | ".join(map(cell, line)) + " |" for line in lines)
    if len(seeds) > 2:
        nice, realnvp = ([rows[f"{m}-{s}"]["bits"] for s in seeds] for m in ("nice", "realnvp"))
        gaps = [a - b for a, b in zip(nice, realnvp, strict=True)]
        gap, error = mean(gaps), stdev(gaps) / len(gaps) ** 0.5
        verdict = "Real NVP is better" if gap > 2 * error else "no order is shown"
        minutes = mean(rows[k]["seconds"] for k in pairs) / 60
        text += (
            f"\n\n{len(seeds)} paired seeds of {minutes:.0f} minutes each: "
            f"NICE {mean(nice):.3f} ± {stdev(nice):.3f}, "
            f"Real NVP {mean(realnvp):.3f} ± {stdev(realnvp):.3f} bits/dim, "
            f"a gap of {gap:.3f} ± {error:.3f}: {verdict}."
        )
    return text + "\n"


def bench_table(table: dict[str, Any], floor: str) -> str:
    """Medians with the ratio to the floor in the same mode, memory and seconds of compiling."""
    whats = ("train step", "log_prob", "sample")
    head = ("", *(f"{what}, ms" for what in whats), "peak memory, MiB", "compiling, s")
    lines = [head, ("---", *["---:"] * (len(head) - 1))]
    for name, row in table["rows"].items():
        library = name.removesuffix(", compiled")
        compiled = name != library
        base = table["rows"][floor + (", compiled" if compiled else "")]
        times = [
            f"{t['median']:.1f} ({t['median'] / base[what]['median']:.2f}) "
            f"[{t['least']:.1f}, {t['largest']:.1f}]"
            if (t := row.get(what))
            else "–"
            for what in whats
        ]
        memory = None if compiled else table["memory_mib"].get(library)
        seconds = str(table["compile_seconds"].get(library, "")) if compiled else ""
        lines.append((name, *times, "" if memory is None else f"{memory:.0f}", seconds))
    text = "\n".join("| " + " | ".join(map(cell, line)) + " |" for line in lines)
    failed = [f"{n} {s}" for n, s in table["compile_seconds"].items() if isinstance(s, str)]
    return text + (f"\n\nCompiling {'; '.join(failed)}." if failed else "")


def bench() -> str:
    """The stored benchmark: a table a size, medians with the ratio to the bare networks in the same mode."""
    document = stored("bench")
    if not document:
        return "*Not measured yet.*"
    blocks = ["![time of a train step](images/bench.svg)"]
    for table in document["tables"]:
        blocks.append(f"**{table['size']}**\n\n{bench_table(table, 'bare networks')}")
    imports = ", ".join(f"{n} {s:.2f} s" for n, s in document["import_seconds"].items())
    blocks.append(
        "Median (ratio to the bare networks in the same mode) [least, largest]. "
        f"Import time over torch: {imports}."
    )
    blocks.append(facts(document))
    return "\n\n".join(blocks) + "\n"


def bench_images() -> str:
    """The same for flows over images, with the ratio of every row of diffeo's to the peer's."""
    document = stored("images_bench")
    if not document:
        return "*Not measured yet.*"
    blocks = []
    for table in document["tables"]:
        rows = table["rows"]
        blocks.append(f"**{table['size']}**\n\n{bench_table(table, 'bare convolutions')}")
        for peer in ("normflows", "FrEIA"):
            if peer not in rows:
                continue
            ratios = []
            for name in rows:
                if name.startswith("diffeo"):
                    found = [
                        f"{what} {t['median'] / rows[peer][what]['median']:.2f}"
                        for what, t in rows[name].items()
                    ]
                    ratios.append(f"{name}: {', '.join(found)}")
            blocks.append(f"Ratio to {peer} (eager). " + "; ".join(ratios) + ".")
    blocks.append("Median (ratio to the bare convolutions in the same mode) [least, largest].")
    blocks.append(facts(document))
    return "\n\n".join(blocks) + "\n"


def facts(document: dict[str, Any]) -> str:
    """Where numbers come from."""
    rest = ", ".join(document[k] for k in ("machine", "versions", "date"))
    return f"`{document['command']}`, {rest}"


def autoregressive() -> str:
    """Masked autoregressive flows beside the peers: a table a size, and sample / log_prob."""
    document = stored("autoregressive")
    if not document:
        return "*Not measured yet.*"
    blocks = []
    for table in document["tables"]:
        lines = [("", "train step, ms", "log_prob, ms", "sample, ms", "sample / log_prob")]
        lines.append(("---", *["---:"] * 4))
        for name, row in table["rows"].items():
            times = [
                f"{row[what]['median']:.1f} [{row[what]['least']:.1f}, {row[what]['largest']:.1f}]"
                if what in row
                else ""
                for what in ("train step", "log_prob", "sample")
            ]
            ratio = row["sample"]["median"] / row["log_prob"]["median"]
            lines.append((name, *times, f"{ratio:.1f}"))
        text = "\n".join("| " + " | ".join(map(cell, line)) + " |" for line in lines)
        took = f"\n\nCompiling: {table['compiling']}." if "compiling" in table else ""
        blocks.append(f"**{table['table']}**\n\n{text}{took}")
    blocks.append(f"Median [least, largest]. {facts(document)}")
    return "\n\n".join(blocks) + "\n"


def on_page_markdown(markdown: str, **_: Any) -> str:
    """Put the registry's models, and stored results, where a page asks for them."""
    for mark, render in PLACES.items():
        if mark in markdown:
            markdown = markdown.replace(mark, render())
    return markdown


PLACES: dict[str, Callable[[], str]] = {
    MODELS: table,
    "<!-- densities -->": lambda: paired("densities", "kl", "nats"),
    "<!-- mnist -->": mnist,
    "<!-- bench -->": bench,
    "<!-- bench images -->": bench_images,
    "<!-- autoregressive -->": autoregressive,
    "<!-- digits -->": lambda: paired("digits", "bits", "bits/dim"),
}


def on_page_content(html: str, **_: Any) -> str:
    """Turn formulas into MathML, which browsers draw without a script and without a network."""

    def mathml(match: re.Match[str]) -> str:
        display = "inline" if match[2] == "(" else "block"
        return convert(unescape(match[3]).strip(), display=display)

    return FORMULA.sub(mathml, html)
