"""Reads our docstrings' examples for the site.

An example begins at the left, below "Example:", where Google's style has it
indented: so it is moved to the right before the docstring is parsed.
"""

from __future__ import annotations

import re
import textwrap
from typing import Any

import griffe

EXAMPLE = re.compile(r"^Example:\n(>>> .*?)(?=\n\n|\Z)", re.M | re.S)


class Examples(griffe.Extension):
    """Turns each example into a section of its own."""

    def on_instance(self, *, obj: griffe.Object, **kwargs: Any) -> None:
        """Rewrites the docstring of what has just been read."""
        if obj.docstring is not None:
            obj.docstring.value = EXAMPLE.sub(
                lambda found: "Examples:\n" + textwrap.indent(found[1], "    "),
                # A colon alone: two are Sphinx's.
                obj.docstring.value.replace("::\n", ":\n"),
            )
