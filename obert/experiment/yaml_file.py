"""YAML files, read with limits to their size: aliases written out, a few lines are gigabytes."""

from pathlib import Path
from typing import Any

import yaml

from obert.foundation.errors import UserError, unknown_name

LARGEST = 250_000  # characters; the largest file of this project has 52,000
DEEPEST = 50  # mappings and lists inside one another; Python's own limit is below 1,000
MERGE = "tag:yaml.org,2002:merge"  # <<, which takes the keys of other mappings
SHORTEN = "Split it, or leave out what is no configuration"


class _Loader(yaml.SafeLoader):
    """SafeLoader with limits to the depth and the size of what is built.

    PyYAML keeps the last of two equal keys silently; a configuration must not.
    """

    depth = 0

    def compose_node(self, parent, index):
        self.depth += 1
        if self.depth > DEEPEST:
            raise self._too_deep(self.peek_event())
        node = super().compose_node(parent, index)
        self.depth -= 1
        return node

    def get_single_node(self):
        node = super().get_single_node()
        if node is not None:
            size, _ = self._measure(node, {})
            if size > LARGEST:
                raise UserError(
                    f"{self.name} has {size:.3g} characters when its aliases (*) are written out, and at most "
                    f"{LARGEST:,} are read. {SHORTEN}"
                )
        return node

    def _measure(self, node: yaml.Node, known: dict[yaml.Node, tuple[int, int] | None]) -> tuple[int, int]:
        """Characters and levels of a node with its aliases written out. Each node is looked at once.

        Raises:
            UserError: it is inside itself, has too many levels, or has a key twice.
        """
        if isinstance(node, yaml.ScalarNode):
            return 1 + len(node.value), 0
        if node not in known:
            known[node] = None
            children = node.value
            if isinstance(node, yaml.MappingNode):
                self._check_keys(node)
                children = [child for pair in node.value for child in pair]
            measured = [self._measure(child, known) for child in children]
            levels = 1 + max((levels for _, levels in measured), default=0)
            if levels > DEEPEST:
                raise self._too_deep(node)
            known[node] = 1 + sum(size for size, _ in measured), levels
        elif known[node] is None:
            raise UserError(f"{self._line(node)}: what is named here (&) has an alias (*) of itself inside it")
        return known[node]

    def _too_deep(self, place: yaml.Node | yaml.Event) -> UserError:
        return UserError(f"{self._line(place)}: more than {DEEPEST} levels inside one another. {SHORTEN}")

    def _check_keys(self, node: yaml.MappingNode) -> None:
        seen: set[Any] = set()
        for key, _ in node.value:
            if not isinstance(key, yaml.ScalarNode):
                raise UserError(f"{self._line(key)}: a key is a word, found a list or a mapping")
            value = key.value if key.tag == MERGE else self.construct_object(key)  # 0.8 and 0.80 are one key
            if value in seen:
                raise UserError(f"{self._line(key)}: key '{key.value}' appears twice")
            seen.add(value)

    def _line(self, place: yaml.Node | yaml.Event) -> str:
        return f"{self.name}, line {place.start_mark.line + 1}"


def read_yaml(path: Path) -> dict[str, Any]:
    """A YAML mapping.

    Raises:
        UserError: the file is missing, not text, malformed, no mapping, too large or too deep; aliases are counted.
    """
    text = _read(path)
    try:
        loader = _Loader(text)
        loader.name = str(path)
        content = loader.get_single_data()
    except (yaml.YAMLError, ValueError) as error:  # ValueError: a date or a number that cannot be
        raise UserError(f"{path} is not valid YAML: {error}") from None
    if not isinstance(content, dict):
        raise UserError(f"{path} must hold a mapping of keys to values, found {type(content).__name__}")
    return content


def _read(path: Path) -> str:
    """The text of a file."""
    if path.exists() and not path.is_file():
        raise UserError(f"{path} is {'a folder' if path.is_dir() else 'no file'}: name a YAML file")
    try:
        with path.open("rb") as file:
            content = file.read(LARGEST + 1)
    except FileNotFoundError:
        raise unknown_name("file", str(path), map(str, path.parent.glob("*.yaml"))) from None
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror}") from None
    if len(content) > LARGEST:
        raise UserError(f"{path} has more than {LARGEST:,} bytes, and at most as many are read. {SHORTEN}")
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise UserError(
            f"{path} is not UTF-8 text: byte 0x{content[error.start]:02x} in line {line}. Save it in UTF-8"
        ) from None
