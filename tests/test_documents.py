"""What the documents say of other files is true: cited sections exist, and figures are those of the result tables."""

import csv
import re
import subprocess
from pathlib import Path

import pytest

ROOT, SELF = Path(__file__).parents[1], Path(__file__).name
NO_RESULTS = ("index", "sweeps", "paper", "how_to_prune")  # the papers' own scale is planned, not run
STUDIES = sorted(path for path in (ROOT / "docs/studies").glob("*.md") if path.stem not in NO_RESULTS)
CITATION = re.compile(r"\bdocs/[\w/]+\.md(?:#[\w-]+)?")
SPREADS = {"mean": "std", "measured": "measured_std"}  # a column's name ends in the first, its spread's in the second
DURATIONS = ("0.2",)  # epochs, which the results have in words
NUMBER = re.compile(r"[-+]?\d+(\.\d+)?(e[-+]\d+)?")  # and no version, which may be digits and dots alone
SCORE = re.compile(r"(?<![\w.-])(\d+\.\d+)(?: ± (\d+\.\d+))?(?![\w.])")


def anchors(document: Path) -> set[str]:
    """The anchors of a document's headings, as GitHub and Sphinx make them."""
    headings = re.findall(r"^#+ (.+)$", document.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def cited() -> list[str]:
    """Every section or page of `docs/` that code or configuration names."""
    files = subprocess.run(
        ["git", "ls-files", "obert", "configs", "workflow", "tests"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    suffixes = (".py", ".yaml", ".smk", ".rst")
    texts = (ROOT / name for name in files.stdout.splitlines() if name.endswith(suffixes) and name != "tests/" + SELF)
    return sorted({found for path in texts for found in CITATION.findall(path.read_text(encoding="utf-8"))})


@pytest.mark.parametrize("citation", cited())
def test_cited_sections_exist(citation):
    page, _, anchor = citation.partition("#")

    assert (ROOT / page).is_file()
    assert not anchor or anchor in anchors(ROOT / page)


def measured(study: str) -> list[tuple[float, float | None]]:
    """Every number in a study's result tables, with the standard deviation that follows a mean."""
    numbers: list[tuple[float, float | None]] = []
    for path in sorted((ROOT / "results/tables" / study).glob("*.csv")):
        for row in csv.DictReader(path.open(encoding="utf-8")):
            values = {name: float(text) for name, text in row.items() if NUMBER.fullmatch(text or "")}
            for name, value in values.items():
                spread = values.get(re.sub("(mean|measured)$", lambda m: SPREADS[m[0]], name))
                numbers.append((value, spread if re.search("(mean|measured)$", name) else None))
    return numbers


def agrees(text: str | None, value: float | None) -> bool:
    """Whether a printed number is a value, rounded to its own decimals; a tie may go either way."""
    if text is None or value is None:
        return text is None
    return abs(float(text) - abs(value)) <= 0.5 * 10 ** -len(text.partition(".")[2]) + 1e-9


@pytest.mark.parametrize("page", STUDIES, ids=lambda path: path.stem)
def test_scores_in_a_studys_tables_are_in_its_results(page):
    numbers = measured(page.stem)
    cells = [line for line in page.read_text(encoding="utf-8").splitlines() if line.startswith("|")]
    found = [match.groups() for line in cells for match in SCORE.finditer(line) if match[0] not in DURATIONS]

    unknown = [pair for pair in found if not any(agrees(pair[0], m) and agrees(pair[1], s) for m, s in numbers)]

    assert len(found) > 4
    assert not unknown
