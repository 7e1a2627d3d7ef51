"""The report on a sweep as one HTML page, which opens without a network."""

from __future__ import annotations

import re
from html import escape

from glm_jax.sweeps.report.pictures import THEMES, draw_pictures
from glm_jax.sweeps.report.results import Results
from glm_jax.sweeps.report.tables import Rows, group_rows, summary_line, trial_rows

STYLE = """
:root { color-scheme: light dark; --ink: #222222; --paper: #ffffff; --line: #dddddd; }
@media (prefers-color-scheme: dark) {
  :root { --ink: #dddddd; --paper: #16181c; --line: #33373d; }
  .light { display: none; }
}
@media (prefers-color-scheme: light) { .dark { display: none; } }
body { font: 15px/1.5 system-ui, sans-serif; color: var(--ink); background: var(--paper);
       max-width: 1200px; margin: 2rem auto; padding: 0 1rem; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; }
th, td { text-align: left; padding: 0.25rem 1rem 0.25rem 0; border-bottom: 1px solid var(--line); }
.scroll { overflow-x: auto; }
svg { max-width: 100%; height: auto; }
pre { border: 1px solid var(--line); padding: 1rem; overflow-x: auto; }
"""


def report_page(results: Results, best: str | None) -> str:
    """The page: tables, pictures in both themes, the best configuration.

    Args:
      results: of the sweep.
      best: its best configuration as gin text; None before there is one.
    """
    parts = [
        f"<h1>Sweep {escape(results.name)}</h1>",
        f"<p>{escape(summary_line(results))}</p>",
        "<h2>Configurations</h2>",
        _table(group_rows(results)),
        *_pictures(results),
        "<h2>Trials</h2>",
        _table(trial_rows(results)),
    ]
    if best is not None:
        parts += ["<h2>Best configuration</h2>", f"<pre>{escape(best)}</pre>"]
    body = "\n".join(parts)
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>Sweep {escape(results.name)}</title>\n<style>{STYLE}</style>\n</head>\n"
        f"<body>\n{body}\n</body>\n</html>\n"
    )


def _pictures(results: Results) -> list[str]:
    """A heading and two drawings, of which a page shows one, for every picture."""
    drawn: dict[str, list[str]] = {}
    for theme in THEMES:
        for name, title, image in draw_pictures(results, theme):
            svg = _inline(image.decode(), f"{name}-{theme.name}-")
            label = f'class="{theme.name}" role="img" aria-label="{escape(title)}"'
            drawn.setdefault(title, []).append(f"<div {label}>{svg}</div>")
    return [f"<h2>{escape(title)}</h2>\n{''.join(both)}" for title, both in drawn.items()]


def _inline(svg: str, prefix: str) -> str:
    """An SVG as a part of a page: without its prologue, with names that no other part has."""
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r'\bid="', f'id="{prefix}', svg)
    svg = re.sub(r'((?:xlink:)?href="#)', rf"\1{prefix}", svg)
    return re.sub(r"url\(#", f"url(#{prefix}", svg)


def _table(rows: Rows) -> str:
    head = "".join(f"<th>{escape(cell)}</th>" for cell in rows[0])
    body = "\n".join(
        f"<tr>{''.join(f'<td>{escape(cell)}</td>' for cell in row)}</tr>" for row in rows[1:]
    )
    return (
        f'<div class="scroll"><table><thead><tr>{head}</tr></thead>\n'
        f"<tbody>\n{body}\n</tbody></table></div>"
    )
