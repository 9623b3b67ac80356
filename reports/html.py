"""Renders a report as one self-contained HTML file: style and figures inside, nothing loaded from anywhere."""

from importlib import resources

from jinja2 import DictLoader, Environment, StrictUndefined
from markupsafe import Markup

from reports.document import Report

TEMPLATE, STYLE = "report.html.j2", "report.css"


def render_html(report: Report) -> str:
    """Returns the page. Everything but the figures is escaped: crawled and generated text is never trusted."""
    folder = resources.files("reports") / "templates"
    loader = DictLoader({TEMPLATE: (folder / TEMPLATE).read_text(encoding="utf-8")})
    environment = Environment(
        loader=loader, autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters["svg"] = Markup  # drawn by reports/figures, which escapes what it puts in
    style = Markup((folder / STYLE).read_text(encoding="utf-8"))
    return environment.get_template(TEMPLATE).render(report=report, style=style)
