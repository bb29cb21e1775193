"""The page: one HTML file with everything inside, light or dark as the reader's system, no scripts."""

from __future__ import annotations

import base64
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from html import escape
from string import Template

KINDS = {
    "exact": "the model's likelihood itself, neither a bound nor a sample estimate",
    "estimate": "a random estimate of the likelihood; repeated runs differ by its noise",
    "bound": "upper bound on bits/dim, from a lower bound on log-likelihood by dequantization noise",
    "importance-weighted bound": "upper bound on bits/dim in expectation, from the mean likelihood over K draws of the "
    "dequantization noise; closer to the likelihood the larger K",
}


@dataclass(frozen=True)
class Row:
    """One line of the likelihood table.

    nats: mean negative log-likelihood per example; bits: the same per dimension in bits, None for densities. The lower
    the better. The errors are one standard error of the mean over the examples. kind: exact, estimate or bound, or
    "importance-weighted bound, K = ...".
    """

    name: str
    nats: float
    nats_error: float | None
    bits: float | None
    bits_error: float | None
    kind: str
    note: str = ""


@dataclass(frozen=True)
class Picture:
    """An image file (PNG or SVG) with its caption and what it shows, in words, for those who cannot see it."""

    content: bytes
    alt: str
    caption: str = ""

    @property
    def html(self) -> str:
        png = self.content.startswith(b"\x89PNG")
        mime = "image/png" if png else "image/svg+xml"
        data = base64.b64encode(self.content).decode()
        caption = f"<figcaption>{escape(self.caption)}</figcaption>" if self.caption else ""
        kind = ' class="pixels"' if png else ""
        return (
            f'<figure{kind}><img alt="{escape(self.alt)}" src="data:{mime};base64,{data}">'
            f"{caption}</figure>"
        )


@dataclass(frozen=True)
class Section:
    """A heading, a paragraph in plain words, then pictures side by side and perhaps a table.

    layout: how pictures are set: `wide` one below the other, `pairs`, `row` as many as fit, `strips` with the caption
    at the left.
    """

    title: str
    text: str
    pictures: Sequence[Picture] = ()
    layout: str = "wide"
    table: str = ""
    more: Sequence[Section] = field(default_factory=tuple)

    @property
    def html(self) -> str:
        pictures = "".join(p.html for p in self.pictures)
        grid = f'<div class="{self.layout}">{pictures}</div>' if pictures else ""
        return (
            f'<section id="{self.anchor}"><h2>{escape(self.title)}</h2>{self.body(grid)}</section>'
        )

    @property
    def anchor(self) -> str:
        """Where links lead."""
        return re.sub(r"[^a-z0-9]+", "-", self.title.lower()).strip("-")

    def body(self, grid: str) -> str:
        inner = "".join(
            f"<h3>{escape(s.title)}</h3><p>{escape(s.text)}</p>"
            f'<div class="{s.layout}">{"".join(p.html for p in s.pictures)}</div>'
            for s in self.more
        )
        text = f"<p>{escape(self.text)}</p>" if self.text else ""
        return f"{text}{grid}{self.table}{inner}"


def page(
    *,
    title: str,
    subtitle: str,
    citation: str,
    head: Row,
    dataset: str,
    sections: Sequence[Section],
) -> str:
    """The whole document: headline number, then the sections."""
    bits = head.bits is not None
    value, error = (head.bits, head.bits_error) if bits else (head.nats, head.nats_error)
    return _PAGE.substitute(
        title=escape(title),
        subtitle=escape(subtitle),
        citation=f'<p class="cite">{escape(citation)}</p>' if citation else "",
        number=escape(number(value, error)),
        error=f'<span class="error">± {escape(spread(error))}</span>' if _known(error) else "",
        unit="bits per dimension" if bits else "nats per example",
        data=escape(dataset),
        kind=escape(head.kind),
        meaning=escape(meaning(head.kind, bits)),
        contents=contents(sections),
        sections="".join(s.html for s in sections),
    )


def meaning(kind: str, bits: bool) -> str:
    """What a kind of likelihood says about the number."""
    text = KINDS.get(kind.split(", K = ")[0], "")
    return text if bits else text.replace("bits/dim", "negative log-likelihood")


# -- tables ---------------------------------------------------------------------------------------------------------


def likelihood_table(rows: Sequence[Row]) -> str:
    """Every row with both units, the lowest marked, and a dot between the lowest and the highest value."""
    bits = any(r.bits is not None for r in rows)
    values = [r.bits if bits else r.nats for r in rows]
    finite = [v for v in values if v is not None and math.isfinite(v)]
    low, high = (min(finite), max(finite)) if finite else (0.0, 1.0)
    header = ["model", *(["bits/dim"] if bits else []), "nats per example", "", "kind", ""]
    aligned = ["", *(["num"] if bits else []), "num", "bar", "", ""]
    lines = []
    for row, value in zip(rows, values, strict=True):
        best = bool(finite) and value == low
        crown = ' <span class="badge">lowest</span>' if best and len(finite) > 1 else ""
        cells = [
            f"{escape(row.name)}{crown}",
            *([_with_error(row.bits, row.bits_error)] if bits else []),
            _with_error(row.nats, row.nats_error),
            _bar(value, low, high),
            f'<span class="pill {escape(row.kind)}">{escape(row.kind)}</span>',
            f'<span class="quiet">{escape(row.note)}</span>',
        ]
        tds = "".join(
            f'<td class="{c}">{cell}</td>' for c, cell in zip(aligned, cells, strict=True)
        )
        lines.append(f'<tr class="best">{tds}</tr>' if best else f"<tr>{tds}</tr>")
    ths = "".join(f'<th class="{c}">{h}</th>' for c, h in zip(aligned, header, strict=True))
    return (
        '<div class="scroll"><table class="numbers">'
        f"<thead><tr>{ths}</tr></thead><tbody>{''.join(lines)}</tbody></table></div>"
    )


def fact_table(facts: Mapping[str, str]) -> str:
    """Keys and values; line breaks in a value are kept."""
    rows = "".join(
        f'<tr><th scope="row">{escape(k)}</th><td>{escape(str(v))}</td></tr>'
        for k, v in facts.items()
    )
    return f'<div class="scroll"><table class="facts"><tbody>{rows}</tbody></table></div>'


def plain_table(
    head: Sequence[str], rows: Sequence[Sequence[str]], *, text_columns: int = 1
) -> str:
    """Cells as they are, numbers to the right from the column `text_columns` on."""
    kinds = ["" if i < text_columns else "num" for i in range(len(head))]

    def line(cells: Sequence[str], tag: str) -> str:
        pairs = zip(cells, kinds, strict=True)
        return "".join(f'<{tag} class="{k}">{escape(c)}</{tag}>' for c, k in pairs)

    body = "".join(f"<tr>{line(row, 'td')}</tr>" for row in rows)
    return (
        f'<div class="scroll"><table class="plain"><thead><tr>{line(head, "th")}</tr></thead>'
        f"<tbody>{body}</tbody></table></div>"
    )


def remarks(items: Sequence[tuple[str, str]]) -> str:
    """Sentences, each with a word on how bad it is (error, warning, note)."""
    lines = "".join(
        f'<li><span class="pill {escape(kind)}">{escape(kind)}</span> {escape(text)}</li>'
        for kind, text in items
    )
    return f'<ul class="remarks">{lines}</ul>' if lines else ""


def folded(title: str, content: str, *, html: bool = False) -> str:
    """Something long behind its title: text as it is, or a table; nothing if it is empty."""
    inner = content if html else f"<pre>{escape(content)}</pre>"
    return f"<details><summary>{escape(title)}</summary>{inner}</details>" if content else ""


def contents(sections: Sequence[Section]) -> str:
    """Links to the sections."""
    links = "".join(f'<a href="#{s.anchor}">{escape(s.title)}</a>' for s in sections)
    return f'<nav aria-label="contents">{links}</nav>'


def _bar(value: float | None, low: float, high: float) -> str:
    if value is None or not math.isfinite(value):
        return ""
    share = 100 * (value - low) / (high - low) if high > low else 0.0
    return f'<div class="track"><div style="left:{share:.1f}%"></div></div>'


def _with_error(value: float | None, error: float | None) -> str:
    text = escape(number(value, error))
    return f'{text} <span class="quiet">± {spread(error)}</span>' if _known(error) else text


def _known(error: float | None) -> bool:
    """Whether a standard error is worth printing: a constant has none."""
    return error is not None and math.isfinite(error) and error > 0


def number(value: float | None, error: float | None = None) -> str:
    """A value to the digits that its standard error allows."""
    if value is None:
        return "–"
    if not math.isfinite(value):
        return "not a number" if math.isnan(value) else ("∞" if value > 0 else "−∞")
    return f"{value:.{_decimals(error)}f}".replace("-", "−")


def spread(error: float | None) -> str:
    """A standard error to two digits."""
    return "" if error is None else f"{error:.{_decimals(error)}f}"


def _decimals(error: float | None) -> int:
    if error is None or not math.isfinite(error) or error <= 0:
        return 3
    return min(5, max(0, 1 - math.floor(math.log10(error))))


_PAGE = Template("""<!doctype html>
<html lang="en"><head><meta charset="utf-8">
<meta name="viewport" content="width=device-width,initial-scale=1">
<meta name="color-scheme" content="light dark">
<title>$title</title>
<style>
:root{--page:#f5f6f9;--card:#fff;--ink:#20242c;--quiet:#667085;--hair:#e3e6ec;--accent:#3b6fd4;--soft:#eaf0fc;
--good:#2a7d54;--goodsoft:#e6f4ec;--bad:#b4432f;--badsoft:#fbeae6;--warm:#a35a12;--warmsoft:#fdf0e2;
color-scheme:light dark}
@media (prefers-color-scheme:dark){:root{--page:#0f1217;--card:#171b22;--ink:#e4e8ef;--quiet:#98a2b3;--hair:#2a313c;
--accent:#7ea6f5;--soft:#1c2638;--good:#6fcf9b;--goodsoft:#16291f;--bad:#f0907d;--badsoft:#331d18;
--warm:#f0b36f;--warmsoft:#2e2417}}
*{box-sizing:border-box}
body{margin:0;background:var(--page);color:var(--ink);
font:16px/1.55 system-ui,-apple-system,"Segoe UI",Roboto,"Helvetica Neue",sans-serif}
main{max-width:1080px;margin:0 auto;padding:40px 20px 64px}
header,section{background:var(--card);border:1px solid var(--hair);border-radius:14px;padding:26px 30px;margin:0 0 20px}
header{display:flex;flex-wrap:wrap;gap:24px 48px;align-items:center;border-top:4px solid var(--accent)}
header>div:first-child{flex:1 1 320px}
header>div:last-child{flex:0 1 380px}
h1{font-size:30px;line-height:1.2;letter-spacing:-.02em;margin:0 0 8px}
h2{font-size:20px;letter-spacing:-.01em;margin:0 0 6px}
h3{font-size:16px;margin:26px 0 4px}
p{margin:0 0 16px;max-width:74ch;color:var(--quiet)}
header p{margin:0}
.cite{font-size:13.5px;margin-top:10px!important}
.label{font-size:13px;color:var(--quiet);margin:0}
.number{font-size:46px;font-weight:650;letter-spacing:-.03em;line-height:1.15;font-variant-numeric:tabular-nums}
.error{font-size:24px;font-weight:450;color:var(--quiet);letter-spacing:0}
.unit{font-weight:550}
.meaning{font-size:14px;color:var(--quiet)}
.pill{display:inline-block;font-size:12.5px;font-weight:600;border-radius:99px;padding:1px 10px;
background:var(--soft);color:var(--accent)}
.pill.exact{background:var(--goodsoft);color:var(--good)}
.pill.bound,.pill.warning{background:var(--warmsoft);color:var(--warm)}
.pill.error{background:var(--badsoft);color:var(--bad)}
.badge{font-size:11.5px;font-weight:600;color:var(--good);border:1px solid currentColor;border-radius:99px;
padding:0 7px;margin-left:6px}
.quiet{color:var(--quiet)}
nav{display:flex;flex-wrap:wrap;gap:6px 8px;margin:0 0 20px}
nav a{font-size:14px;color:var(--ink);text-decoration:none;background:var(--card);border:1px solid var(--hair);
border-radius:99px;padding:3px 12px}
nav a:hover{border-color:var(--accent);color:var(--accent)}
.remarks{list-style:none;padding:0;margin:0 0 16px;max-width:86ch}
.remarks li{margin:0 0 8px;overflow-wrap:anywhere}
details{border-top:1px solid var(--hair);margin-top:14px;padding-top:12px}
summary{cursor:pointer;font-weight:550;color:var(--accent)}
pre{font:13px/1.5 ui-monospace,SFMono-Regular,Menlo,Consolas,monospace;overflow-x:auto;margin:12px 0 0;
background:var(--page);border-radius:8px;padding:14px 16px}
.plain{font-size:14px}.plain th,.plain td{white-space:nowrap;padding-top:6px;padding-bottom:6px}
*+.scroll{margin-top:18px}.scroll+p{margin-top:12px}p+.scroll,summary+.scroll{margin-top:0}
figure{margin:0}
figure img{display:block;width:100%;height:auto}
figcaption{font-size:14px;color:var(--quiet);text-align:center;margin-top:6px}
.pixels img{image-rendering:pixelated}
.wide{display:grid;gap:18px}
.row{display:grid;gap:18px 20px;grid-template-columns:repeat(auto-fit,minmax(168px,1fr))}
.pairs{display:grid;gap:18px 28px;grid-template-columns:repeat(auto-fit,minmax(min(360px,100%),1fr))}
.tiles{display:grid;gap:12px 18px;grid-template-columns:repeat(auto-fill,minmax(112px,1fr))}
.tiles figcaption{font-variant-numeric:tabular-nums;margin-top:3px}
.strips{display:grid;gap:10px}
.strips figure{display:grid;grid-template-columns:92px minmax(0,1fr);align-items:center;gap:14px}
.strips figcaption{order:-1;text-align:right;margin:0;line-height:1.35;white-space:pre-line}
.scroll{overflow-x:auto}
table{border-collapse:collapse;width:100%;font-size:15px}
th,td{padding:9px 12px 9px 0;border-bottom:1px solid var(--hair);text-align:left;vertical-align:top}
tbody tr:last-child>*{border-bottom:0}
thead th{font-size:13px;font-weight:550;color:var(--quiet)}
.num{font-variant-numeric:tabular-nums;text-align:right;white-space:nowrap;padding-right:22px}
.numbers td:first-child{font-weight:550}
tr.best td{background:var(--goodsoft)}
tr.best td:first-child{box-shadow:inset 3px 0 var(--good);padding-left:12px}
.bar{width:20%;min-width:90px;vertical-align:middle}
.track{height:3px;border-radius:9px;background:var(--hair);margin:0 20px 0 6px;position:relative}
.track div{position:absolute;width:11px;height:11px;margin:-4px -5.5px;border-radius:9px;background:var(--accent)}
tr.best .track div{background:var(--good)}
.facts th{font-weight:550;color:var(--quiet);width:24%;min-width:110px}
.facts td{white-space:pre-wrap;overflow-wrap:anywhere}
footer{font-size:13px;color:var(--quiet);text-align:center}
@media (max-width:600px){main{padding:16px 10px}header,section{padding:20px 16px}.bar{display:none}
.strips figure{grid-template-columns:64px minmax(0,1fr);gap:8px}.row{grid-template-columns:1fr 1fr}
.wide{overflow-x:auto}.wide img{min-width:560px}}
@media print{body{background:none}section,header{break-inside:avoid}}
</style></head>
<body><main>
<header>
<div><h1>$title</h1><p>$data</p><p>$subtitle</p>$citation</div>
<div><p class="label">Negative log-likelihood on test data · lower is better</p>
<div><span class="number">$number</span> $error</div>
<div><span class="unit">$unit</span> <span class="pill $kind">$kind</span></div>
<div class="meaning">$meaning</div></div>
</header>
$contents
$sections
<footer>Written by diffeo. ± is one standard error of the mean over the test examples.</footer>
</main></body></html>
""")
