"""What the documentation computes while it is built: the table of models and the formulas."""

from __future__ import annotations

import re
from html import unescape
from typing import Any

from latex2mathml.converter import convert

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


def on_page_markdown(markdown: str, **_: Any) -> str:
    """Put the registry's models where a page asks for them."""
    return markdown.replace(MODELS, table()) if MODELS in markdown else markdown


def on_page_content(html: str, **_: Any) -> str:
    """Turn formulas into MathML, which browsers draw without a script and without a network."""

    def mathml(match: re.Match[str]) -> str:
        display = "inline" if match[2] == "(" else "block"
        return convert(unescape(match[3]).strip(), display=display)

    return FORMULA.sub(mathml, html)
