"""The command line as Markdown, read from its own parser."""

import argparse
from collections.abc import Iterator


def parser() -> argparse.ArgumentParser:
    """The parser of the `obert` command. The one place here that knows where it is defined."""
    from obert.commands import cli

    return cli.parser()


def describe(command_line: argparse.ArgumentParser, level: int) -> Iterator[str]:
    """Lines of Markdown: one section a subcommand, with its usage and a table of its arguments."""
    (commands,) = (action for action in command_line._actions if isinstance(action, argparse._SubParsersAction))
    for name, command in commands.choices.items():
        usage = " ".join(command.format_usage().removeprefix("usage: ").split())
        text = _sentence(command.description or "")
        yield from (f"(command-{name})=", f"{'#' * level} `{command_line.prog} {name}`", "", text, "")
        yield from ("```text", usage, "```", "", "| argument | default | meaning |", "|---|---|---|")
        for action in command._actions:
            if not isinstance(action, argparse._HelpAction):
                yield f"| {_names(action)} | {_default(action)} | {(action.help or '').replace('|', chr(92) + '|')} |"
        yield ""


def _sentence(text: str) -> str:
    return f"{text[:1].upper()}{text[1:]}." if text else ""


def _names(action: argparse.Action) -> str:
    names = ", ".join(f"`{name}`" for name in action.option_strings)
    return names or f"`{action.metavar or action.dest}`"


def _default(action: argparse.Action) -> str:
    if action.required:
        return "required"
    if action.default in (None, [], argparse.SUPPRESS):
        return "none"
    value = action.default
    return f"`{' '.join(map(str, value)) if isinstance(value, list) else value}`"
