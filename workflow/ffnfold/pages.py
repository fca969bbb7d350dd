"""Templates into pages: strict about what is missing, and autoescaped."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import jinja2


def render(template_dir: str | Path, context: Mapping, template: str = "index.html.j2") -> str:
    """Fill a template.

    Args:
        template_dir: folder of the templates.
        context: finished words and numbers.
        template: name of the file.

    Raises:
        jinja2.UndefinedError: a template asks for something the context does not hold.
        jinja2.TemplateError: a template is missing or wrong.
    """
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(str(template_dir)),
        undefined=jinja2.StrictUndefined,
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    return environment.get_template(template).render(context)
