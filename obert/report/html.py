"""Tables and figures as HTML that fits any window and loads nothing from anywhere else. The look is in `templates/`."""

import base64
from functools import cache
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from obert.report.built import BuiltTable
from obert.report.parts import parts

TEMPLATES = Path(__file__).parent / "templates"
PIXELS = 96  # an inch on a page
LONG = 30  # characters of a cell that stays on one line


@cache
def _environment() -> Environment:
    """The templates, each compiled once."""
    environment = Environment(
        loader=FileSystemLoader(TEMPLATES),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=StrictUndefined,
    )
    environment.globals |= {"style": Markup((TEMPLATES / "style.css").read_text("utf-8"))}
    environment.filters |= {"image": _image, "parts": parts, "long": _long}
    return environment


def render(template: str, **values: object) -> str:
    """A page from a file of `templates/`. Values are escaped; one that a template lacks is an error."""
    return _environment().get_template(template).render(**values) + "\n"


def table_page(built: BuiltTable) -> str:
    """A table or figure as a page of its own."""
    return render("table.html.j2", title=built.title, built=built)


def _long(cell: str) -> str:
    """The class of a cell whose text has to be wrapped."""
    return " long" if len(cell) > LONG else ""


def _image(built: BuiltTable) -> tuple[str, int]:
    """A figure as a data URI, and its natural width in pixels."""
    width = round(PIXELS * built.figure.get_size_inches()[0])
    return f"data:image/svg+xml;base64,{base64.b64encode(built.svg).decode()}", width
