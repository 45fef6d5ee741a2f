"""A report as Markdown, pictures in words and small tables. Pure."""

from __future__ import annotations

import re

from orchestrator import sanitize
from orchestrator.report import blocks as b
from orchestrator.report.mark import MARK


def to_markdown(report: b.Report) -> str:
    parts = [f"<!-- {MARK} -->\n", _headline(report.headline)]
    for section in report.sections:
        parts.append(f"## {safe(section.title)}\n")
        parts += [_block(each) for each in section.blocks]
    parts.append(f"---\n\n{safe(report.footer)}\n")
    return "\n".join(part for part in parts if part)


def safe(text: str) -> str:
    """One line in which nothing is markup."""
    return re.sub(r"([\\`*_{}\[\]<>#|~])", r"\\\1", sanitize.line(text))


def _prose(text: str) -> str:
    """Like `safe`, but what stands in backticks is code."""
    parts = sanitize.line(text).split("`")
    if len(parts) % 2 == 0:
        return safe(text)
    return "".join(f"`{part}`" if at % 2 else safe(part) for at, part in enumerate(parts))


def _headline(head: b.Headline) -> str:
    badges = " · ".join(f"**{safe(text)}**" for text, _ in head.badges)
    about = f" ({safe(head.figure_about)})" if head.figure_about else ""
    lines = [
        f"# {safe(head.job)}\n",
        f"{code(head.run_id)} · {safe(head.about)}\n",
        f"{badges} · **{safe(head.figure)}**{about}\n",
        *(f"- {_prose(text)}" for text, _ in head.reasons),
    ]
    return "\n".join(lines) + ("\n" if head.reasons else "")


def _block(block: b.Block) -> str:
    if isinstance(block, b.Text):
        return _prose(block.text) + "\n"
    if isinstance(block, b.Items):
        return "".join(f"- {_prose(each)}\n" for each in block.items)
    if isinstance(block, b.Facts):
        return _table(b.Table(("", ""), block.pairs))
    if isinstance(block, b.Table):
        return _table(block)
    if isinstance(block, b.Code):
        return _fenced(block)
    if isinstance(block, b.Figure):
        shown = "\n".join(_block(each) for each in block.instead)
        return f"**{safe(block.caption)}**\n" + (f"\n{shown}" if shown else "")
    if isinstance(block, b.Timeline):
        return "".join(
            f"- {safe(each.at)} **{safe(each.title)}** {safe(each.text)}".rstrip() + "\n"
            for each in block.moments
        )
    inside = "\n".join(_block(each) for each in block.blocks)
    return f"<details><summary>{_html(block.summary)}</summary>\n\n{inside}\n</details>\n"


def _html(text: str) -> str:
    import html

    return html.escape(sanitize.line(text))


def _table(table: b.Table) -> str:
    def line(cells: list[str]) -> str:
        return "| " + " | ".join(cells) + " |\n"

    rule = ["--:" if at in table.numeric else "---" for at in range(len(table.head))]
    rows = [
        line(
            [code(text) if at in table.code and text else safe(text) for at, text in enumerate(row)]
        )
        for row in table.rows
    ]
    return line([safe(text) for text in table.head]) + line(rule) + "".join(rows)


def code(text: str) -> str:
    """The text in as many backticks as it needs; a bar would end a table's cell."""
    shown = sanitize.line(text).replace("|", "\\|")
    fence = "`" * (1 + max((len(run) for run in re.findall("`+", shown)), default=0))
    pad = " " if "`" in shown else ""
    return f"{fence}{pad}{shown}{pad}{fence}"


def _fenced(block: b.Code) -> str:
    text = sanitize.text(block.text)
    fence = "`" * max(3, 1 + max((len(run) for run in re.findall("`+", text)), default=0))
    kind = "" if block.kind == "log" else block.kind
    return f"{fence}{kind}\n{text}\n{fence}\n"
