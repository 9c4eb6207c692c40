"""The report as one file that needs nothing else: no network, no script."""

import base64
import html
from collections.abc import Mapping, Sequence

from model.diagnostics.chapter import Chapter

_LOOK = """
:root { color-scheme: light; }
* { box-sizing: border-box; }
body { margin: 0 auto; max-width: 46rem; padding: 2.5rem 1.25rem 4rem; background: #fff; color: #222;
  font: 1rem/1.55 system-ui, -apple-system, "Segoe UI", Roboto, "Noto Sans", "Liberation Sans", sans-serif; }
h1 { font-size: 1.6rem; line-height: 1.25; margin: 0 0 .25rem; overflow-wrap: anywhere; }
h2 { font-size: 1.2rem; margin: 3rem 0 .5rem; padding-top: .5rem; border-top: 1px solid #ddd; }
nav ol { columns: 2 16rem; padding-left: 1.4rem; margin: 1.25rem 0 0; }
nav li { break-inside: avoid; padding: .1rem 0; }
a { color: #1f5f7a; }
dl { display: grid; grid-template-columns: max-content 1fr; gap: .15rem 1rem; margin: 1rem 0 0; }
dt { color: #666; }
dd { margin: 0; overflow-wrap: anywhere; }
.look { font-weight: 600; margin: .25rem 0 1rem; }
.how { color: #555; font-size: .9rem; }
img { display: block; width: 100%; height: auto; }
.wide { overflow-x: auto; }
table { border-collapse: collapse; font-size: .9rem; margin: 1rem 0; font-variant-numeric: tabular-nums; }
th, td { text-align: left; padding: .2rem 1.1rem .2rem 0; border-bottom: 1px solid #eee; white-space: nowrap; }
th { color: #666; font-weight: 500; }
@media (max-width: 40rem) { body { padding: 1.25rem 1rem 3rem; } .picture { overflow-x: auto; } img { min-width: 33rem; } }
@media print { h2 { break-after: avoid; } .picture { break-inside: avoid; } }
"""


def page(title: str, facts: Mapping[str, str], chapters: Sequence[Chapter]) -> str:
    """The whole document.

    Args:
        title: What was looked at.
        facts: A few lines about it that stand on top.
        chapters: In their order.
    """
    contents = "".join(f'<li><a href="#{one.name}">{_text(one.title)}</a></li>' for one in chapters)
    told = "".join(f"<dt>{_text(name)}</dt><dd>{_text(fact)}</dd>" for name, fact in facts.items())
    body = "\n".join(map(_chapter, chapters))
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{_text(title)}</title>\n<style>{_LOOK}</style></head>\n"
        f"<body>\n<h1>{_text(title)}</h1>\n<dl>{told}</dl>\n<nav><ol>{contents}</ol></nav>\n{body}\n</body></html>\n"
    )


def _chapter(one: Chapter) -> str:
    parts = [f'<section id="{one.name}">\n<h2>{_text(one.title)}</h2>']
    if one.look_for:
        parts.append(f'<p class="look">{_text(one.look_for)}</p>')
    if one.picture:
        # As an image of its own: names inside two pictures would otherwise meet in one document.
        data = base64.b64encode(one.picture.encode()).decode()
        alt = _text(f"{one.title}: {one.look_for}")
        parts.append(f'<div class="picture"><img alt="{alt}" src="data:image/svg+xml;base64,{data}"></div>')
    if one.table:
        parts.append(f'<div class="wide">{_table(one.table)}</div>')
    if one.how:
        parts.append(f'<p class="how">{_text(one.how)}</p>')
    return "\n".join((*parts, "</section>"))


def _table(rows: Sequence[Sequence[str]]) -> str:
    heading, *rest = rows
    first = "".join(f"<th>{_text(cell)}</th>" for cell in heading)
    others = ("".join(f"<td>{_text(cell)}</td>" for cell in row) for row in rest)
    return f"<table><tr>{first}</tr>{''.join(f'<tr>{row}</tr>' for row in others)}</table>"


def _text(text: str) -> str:
    return html.escape(text, quote=True)
