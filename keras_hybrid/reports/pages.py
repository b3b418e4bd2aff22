"""The reports' files: one template each, one style sheet for all pages."""

from __future__ import annotations

from importlib import resources
from pathlib import Path
from typing import Any

import jinja2
from markupsafe import Markup

from keras_hybrid._support import files
from keras_hybrid.reports.texts import escaped_markdown


def _source(name: str) -> str:
    return (resources.files("keras_hybrid.reports") / name).read_text("utf-8")


def _as_markdown(value: Any) -> Any:
    """What a Markdown template writes of a value that is not Markdown yet."""
    return value if isinstance(value, Markup) else escaped_markdown(str(value))


def write(path: Path | str, template: str, **values: Any) -> None:
    """Renders a template of this package into a file, whole or not at all.

    Args:
        path: The file to write; its folder is made.
        template: Name of the template, e.g. `"report.html.jinja"`.
        **values: What it asks for, escaped for HTML or for Markdown, by the
            template's name, unless it is Markup.
    """
    is_html = template.endswith(".html.jinja")
    environment = jinja2.Environment(
        loader=jinja2.FunctionLoader(_source),
        autoescape=is_html,
        finalize=None if is_html else _as_markdown,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    page = environment.get_template(template).render(**values)
    with files.atomically(Path(path)) as partial:
        partial.write_text(page, encoding="utf-8")
