"""A study's report, under the name it is imported by; `reports` makes it."""

from keras_hybrid.reports.study import (
    load_runs,
    load_traces,
    markdown_table,
    print_table,
    summary,
    write_html,
    write_markdown,
)

__all__ = [
    "load_runs",
    "load_traces",
    "markdown_table",
    "print_table",
    "summary",
    "write_html",
    "write_markdown",
]
