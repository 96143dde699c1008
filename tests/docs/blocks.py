"""Fenced blocks of the tutorial: the commands that a reader types, and the files that a reader writes."""

import re
from dataclasses import dataclass
from pathlib import Path

FENCE = re.compile(
    r"^(?P<ticks>`{3,})(?:\{code-block\} )?(?P<language>\w+)\n"
    r"(?P<options>(?::[a-z]+:[^\n]*\n)*)(?P<content>.*?)^(?P=ticks)$",
    re.MULTILINE | re.DOTALL,
)
RUN, SHOWN = {"console", "yaml", "python", "json"}, {"text"}
BY_HAND = ":class: by-hand"  # what a test cannot do: fetch the project and install it


@dataclass(frozen=True)
class Command:
    """What follows `$`, and the lines that it is said to print. `...` stands for any text."""

    line: str
    output: str


@dataclass(frozen=True)
class File:
    """A file that the reader writes, named by the block's caption."""

    path: Path
    content: str


def blocks(page: Path) -> list[Command | File]:
    """The steps of a page in order. Raises AssertionError for a block that the tests would leave out by mistake."""
    steps: list[Command | File] = []
    for fence in FENCE.finditer(page.read_text(encoding="utf-8")):
        language, options, content = fence["language"], fence["options"].splitlines(), fence["content"]
        assert language in RUN | SHOWN, f"{page}: no test knows what to do with a block of {language}"
        if language in SHOWN or BY_HAND in options:
            continue
        if language == "console":
            steps += commands(content)
        else:
            (caption,) = (option.split(None, 1)[1] for option in options if option.startswith(":caption:"))
            steps.append(File(Path(caption), content))
    return steps


def commands(content: str) -> list[Command]:
    """The commands of a console block, each with what it prints; a backslash ends a line that goes on."""
    parts = re.split(r"^\$ ", content, flags=re.MULTILINE)
    assert not parts[0].strip(), f"output before the first command: {parts[0]}"
    found = []
    for part in parts[1:]:
        typed = re.match(r"(?:.*\\\n)*.*\n", part).group()
        found.append(Command(typed.strip(), part[len(typed) :]))
    return found


def agrees(shown: str, printed: str) -> bool:
    """Whether the shown lines are what was printed, in order, white space apart; `...` is any text."""
    wanted = [re.escape(" ".join(piece.split())) for piece in shown.split("...")]
    return re.search(".*".join(wanted), " ".join(printed.split())) is not None
