"""The directive `generated`, and links to Markdown files outside the documentation.

The directive makes reference pages from the code at build time, so that they cannot fall behind it. Its argument says
which: `configuration`, `methods`, `tasks`, `record`, `command-line`, `rooms` or `versions`.
"""

import re
from collections.abc import Iterator

import command_page
import project_page
import schema_page
from docutils import nodes
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective


def _configuration() -> Iterator[str]:
    from obert.experiment.recipe import Recipe
    from obert.experiment.schema import Experiment
    from obert.sweeps.schema import Sweep

    known: set[str] = set()
    for model in (Experiment, Recipe, Sweep):
        yield from schema_page.describe(model, model.__name__, 2, known)


def _extensions(kind: str) -> Iterator[str]:
    from obert.foundation import registry

    for name in registry.names(kind):
        yield from schema_page.describe(registry.load(kind, name), f"`{name}`", 2, set())


def _record() -> Iterator[str]:
    from obert.records.record import Record

    yield from schema_page.describe(Record, "Fields", 2, set())


def _command_line() -> Iterator[str]:
    yield from command_page.describe(command_page.parser(), 2)


PAGES = {
    "configuration": _configuration,
    "methods": lambda: _extensions("pruning"),
    "tasks": lambda: _extensions("tasks"),
    "record": _record,
    "command-line": _command_line,
    "rooms": project_page.rooms,
    "versions": project_page.versions,
}


class Generated(SphinxDirective):
    """`{generated} <page>`."""

    required_arguments = 1

    def run(self) -> list[nodes.Node]:
        """The page's Markdown, parsed where the directive stands. Raises a build error for an unknown page."""
        name = self.arguments[0]
        if name not in PAGES:
            raise self.error(f"generated: no page '{name}'; there are {', '.join(PAGES)}")
        return self.parse_text_to_nodes("\n".join(PAGES[name]()), allow_section_headings=True)


OUTSIDE = re.compile(r"(?<!!)\[([^\]]+)\]\(((?:\.\./)+results/[^)]+\.md)\)")


def link_outside(app: Sphinx, name: str, source: list[str]) -> None:
    """Make links to Markdown files of `results/` downloads: MyST takes every such link for a page of its own."""
    source[0] = OUTSIDE.sub(lambda link: f"{{download}}`{' '.join(link[1].split())} <{link[2]}>`", source[0])


def setup(app: Sphinx) -> dict[str, bool]:
    """Register the directive and the links."""
    app.add_directive("generated", Generated)
    app.connect("source-read", link_outside)
    return {"parallel_read_safe": True}
