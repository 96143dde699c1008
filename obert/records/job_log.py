"""What a job's log says last, whatever progress bars are in it."""

import re
from pathlib import Path

TAIL = 20_000  # bytes that the last message is sought in
OWN, BAR = re.compile(r"obert [a-z_]+: "), re.compile(r"\d+%\|.*\| *[\d.]+\w?/")  # this project's messages; tqdm's bars


def last_message(log: Path) -> str:
    """What a log says last, progress bars aside: this project's own message, or the last line."""
    try:
        with log.open("rb") as file:
            file.seek(0, 2)
            file.seek(max(file.tell() - TAIL, 0))
            text = file.read().decode(errors="replace")
    except OSError:
        return ""
    lines = [line.rstrip() for line in re.split(r"[\r\n]", text) if line.strip()]
    own = [(i, found.start()) for i, line in enumerate(lines) if (found := OWN.search(line))]
    if own:  # it may stand behind a bar, which is drawn once more after it
        first, start = own[-1]
        lines = [lines[first][start:], *lines[first + 1 :]]
    kept = [line for line in lines if not BAR.search(line)]
    return "\n".join(kept if own else kept[-1:])
