"""A report as one HTML file that needs nothing else: no network, no script. Pure but for its style.

Every text passes `safe`; only pictures (`svg`) come as markup, and they are of our own making.
"""

from __future__ import annotations

import html
from importlib import resources

from orchestrator import sanitize
from orchestrator.report import blocks as b
from orchestrator.report.mark import MARK


def to_html(report: b.Report) -> str:
    title = f"{report.headline.job} {report.headline.run_id}"
    style = resources.files("orchestrator.report").joinpath("style.css").read_text("utf-8")
    sections = "".join(_section(each) for each in report.sections)
    return (
        "<!doctype html>\n"
        f'<html lang="en"><head><meta charset="utf-8"><!-- {MARK} -->\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        '<meta name="color-scheme" content="light dark">\n'
        # Nothing in the file can load or run anything, whatever a host wrote into a text.
        '<meta http-equiv="Content-Security-Policy" '
        "content=\"default-src 'none'; style-src 'unsafe-inline'\">\n"
        f"<title>{safe(title)}</title>\n<style>\n{style}</style></head>\n<body>\n<main>\n"
        f"{_headline(report.headline)}{sections}"
        f"<footer>{safe(report.footer)}</footer>\n</main>\n</body></html>\n"
    )


def safe(text: str) -> str:
    """One line's text for HTML."""
    return html.escape(sanitize.line(text))


def _headline(head: b.Headline) -> str:
    badges = "".join(
        f'<span class="badge {tone}">{safe(text)}</span>' for text, tone in head.badges
    )
    reasons = "".join(f'<li class="{tone}">{safe(text)}</li>' for text, tone in head.reasons)
    return (
        f'<header>\n<p class="kicker">{safe(head.about)}</p>\n<h1>{safe(head.job)}</h1>\n'
        f'<p class="run">{safe(head.run_id)}</p>\n<div class="verdict">\n'
        f'<div class="figure"><strong>{safe(head.figure)}</strong>'
        f"<span>{safe(head.figure_about)}</span></div>\n"
        f'<div class="badges">{badges}</div>\n'
        + (f"{head.scale}\n" if head.scale else "")
        + (f'<ul class="reasons">{reasons}</ul>\n' if reasons else "")
        + "</div>\n</header>\n"
    )


def _section(section: b.Section) -> str:
    charts = [each for each in section.blocks if isinstance(each, b.Figure)]
    kind = ' class="charts"' if len(charts) > 1 else ""
    inside = "".join(map(_block, section.blocks))
    return f"<section{kind}>\n<h2>{safe(section.title)}</h2>\n{inside}</section>\n"


def _block(block: b.Block) -> str:
    if isinstance(block, b.Text):
        return f'<p class="{block.tone}">{_marked(block.text)}</p>\n'
    if isinstance(block, b.Items):
        return "<ul>" + "".join(f"<li>{_marked(each)}</li>" for each in block.items) + "</ul>\n"
    if isinstance(block, b.Facts):
        pairs = (f"<dt>{safe(key)}</dt><dd>{safe(value)}</dd>" for key, value in block.pairs)
        return f"<dl>{''.join(pairs)}</dl>\n"
    if isinstance(block, b.Table):
        return _table(block)
    if isinstance(block, b.Code):
        return _code(block)
    if isinstance(block, b.Figure):
        return _figure(block)
    if isinstance(block, b.Timeline):
        return '<ol class="timeline">' + "".join(map(_moment, block.moments)) + "</ol>\n"
    inside = "".join(map(_block, block.blocks))
    return f"<details><summary>{safe(block.summary)}</summary>\n{inside}</details>\n"


def _marked(text: str) -> str:
    """`code` in backticks, as in the command's own words."""
    parts = safe(text).split("`")
    if len(parts) % 2 == 0:
        return "`".join(parts)
    return "".join(f"<code>{part}</code>" if at % 2 else part for at, part in enumerate(parts))


def _table(table: b.Table) -> str:
    def cell(tag: str, at: int, text: str) -> str:
        kind = "n" if at in table.numeric else "k" if at in table.code and tag == "td" else ""
        return f"<{tag}{f' class={kind}' if kind else ''}>{safe(text)}</{tag}>"

    head = "".join(cell("th", at, text) for at, text in enumerate(table.head))
    rows = "".join(
        "<tr>" + "".join(cell("td", at, text) for at, text in enumerate(row)) + "</tr>\n"
        for row in table.rows
    )
    return (
        f'<div class="scroll"><table><thead><tr>{head}</tr></thead>\n'
        f"<tbody>{rows}</tbody></table></div>\n"
    )


_DIFF = {"+": "ins", "-": "del", "@": "at"}


def _code(code: b.Code) -> str:
    text = html.escape(sanitize.text(code.text))
    if code.kind == "diff":
        lines = (_diff_line(line) for line in text.split("\n"))
        return f'<pre class="diff">{"".join(lines)}</pre>\n'
    return f'<pre class="{code.kind}">{text}</pre>\n'


def _diff_line(line: str) -> str:
    kind = _DIFF.get(line[:1], "same")
    return f'<span class="{kind}">{line}</span>\n'


def _figure(figure: b.Figure) -> str:
    legend = "".join(
        f'<span><i class="key {kind}"></i>{safe(text)}</span>' for kind, text in figure.legend
    )
    shown = f'<div class="legend">{legend}</div>' if legend else ""
    return f"<figure><figcaption>{safe(figure.caption)}</figcaption>{figure.svg}{shown}</figure>\n"


def _moment(moment: b.Moment) -> str:
    return (
        f'<li class="{moment.tone}"><time>{safe(moment.at)}</time> '
        f"<b>{safe(moment.title)}</b> <span>{safe(moment.text)}</span></li>\n"
    )
