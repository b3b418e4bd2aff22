"""The reports' pages: one template each, one style sheet for all."""

from __future__ import annotations

from importlib import resources
from pathlib import Path
from typing import Any

import jinja2

from keras_hybrid._support import files


def _source(name: str) -> str:
    return (resources.files("keras_hybrid.reports") / name).read_text("utf-8")


def write(path: Path | str, template: str, **values: Any) -> None:
    """Renders a template of this package into a file, whole or not at all.

    Args:
        path: The file to write; its folder is made.
        template: Name of the template, e.g. `"report.html.jinja"`.
        **values: What it asks for, escaped unless it is Markup.
    """
    environment = jinja2.Environment(
        loader=jinja2.FunctionLoader(_source),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    page = environment.get_template(template).render(**values)
    with files.atomically(Path(path)) as partial:
        partial.write_text(page, encoding="utf-8")
