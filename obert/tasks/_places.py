"""Generated reading comprehension: paragraphs of facts on places, with questions whose answers are spans of them.

Every paragraph tells the same kinds of facts of several places, so a question is answered only by finding both the
right place and the right kind of fact. All sentences come from the templates below; the facts from a table of places.
"""

from __future__ import annotations

import hashlib
import math
import random
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pandas as pd

SEED = 711
PASSES = 3  # paragraphs that each place appears in
QUESTIONS = 3  # on each paragraph
VALIDATION_PERCENT = 15
PLACES_AND_KINDS = ((3, 1), (3, 2), (4, 1))  # of one paragraph, chosen with equal probability
# A unit follows its value but is not part of the answer: F1 would reward a wrong value for it.
UNITS = {
    "elevation": " meters", "zone": " Time", "latitude": " degrees north", "longitude": " degrees west",
    "distance": " kilometers",
}  # fmt: skip
_EARTH_RADIUS_KM = 6371.0
_ZONES = {
    "America/New_York": "Eastern", "America/Detroit": "Eastern", "America/Indiana/Indianapolis": "Eastern",
    "America/Kentucky/Louisville": "Eastern", "America/Chicago": "Central", "America/Indiana/Knox": "Central",
    "America/Denver": "Mountain", "America/Boise": "Mountain", "America/Phoenix": "Mountain",
    "America/Los_Angeles": "Pacific", "America/Anchorage": "Alaska", "America/Juneau": "Alaska",
    "America/Sitka": "Alaska", "America/Nome": "Alaska", "Pacific/Honolulu": "Hawaii",
}  # fmt: skip


@dataclass(frozen=True)
class Place:
    """A populated place; elevation in metres, coordinates in degrees."""

    name: str
    state: str
    population: int
    elevation: int
    zone: str
    latitude: float
    longitude: float

    def value(self, kind: str) -> str:
        """The text of a fact, without its unit."""
        return {
            "state": self.state,
            "population": f"{self.population:,}",
            "elevation": f"{self.elevation:,}",
            "zone": self.zone,
            "latitude": f"{abs(self.latitude):.1f}",
            "longitude": f"{abs(self.longitude):.1f}",
        }[kind]


@dataclass(frozen=True)
class Wording:
    """Templates of one kind of fact. In each group the last one is kept for validation.

    Attributes:
        sentences: on one place.
        pairs: on two places at once.
        questions: the last two are kept for validation.
    """

    sentences: tuple[str, ...]
    pairs: tuple[str, ...]
    questions: tuple[str, ...]


WORDING = {
    "state": Wording(
        (
            "{a} is in {x}.", "{a} lies within the state of {x}.", "{a} belongs to {x}.",
            "On the map, {a} is found in {x}.", "{a} is part of {x}.",
        ),
        ("{a} is in {x}, whereas {b} is in {y}.", "{a} belongs to {x} and {b} to {y}.", "{x} has {a}, {y} has {b}."),
        (
            "In which state is {a}?", "What state does {a} belong to?", "{a} is part of which state?",
            "Which state is home to {a}?", "Which state would you find {a} in?", "What is the state that {a} lies in?",
        ),
    ),
    "population": Wording(
        (
            "{a} has a population of {x}.", "{a} is home to {x} people.", "There are {x} residents in {a}.",
            "{a} counts {x} inhabitants.", "The census of {a} found {x} people.",
        ),
        (
            "{a} has {x} inhabitants, while {b} has {y}.", "With {x} residents, {a} differs from {b} with {y}.",
            "In {a} live {x} people, in {b} {y}.",
        ),
        (
            "How many people live in {a}?", "What is the population of {a}?", "How many inhabitants does {a} have?",
            "What number of residents does {a} count?", "How many residents are there in {a}?", "How populous is {a}?",
        ),
    ),
    "elevation": Wording(
        (
            "{a} sits {x} above sea level.", "{a} has an elevation of {x}.", "{a} is built at a height of {x}.",
            "The ground in {a} lies {x} above the sea.", "At {a} the altitude is {x}.",
        ),
        (
            "{a} sits at {x} above the sea and {b} at {y}.", "The elevation of {a} is {x}, that of {b} is {y}.",
            "{a} is {x} high, {b} is {y} high.",
        ),
        (
            "How high above sea level is {a}?", "What is the elevation of {a}?", "At what height does {a} sit?",
            "How far above the sea does {a} lie?", "What altitude does {a} have?", "How elevated is {a}?",
        ),
    ),
    "zone": Wording(
        (
            "{a} observes {x}.", "{a} runs on {x}.", "Clocks in {a} are set to {x}.", "{a} keeps {x}.",
            "In {a} the hour is told by {x}.",
        ),
        ("{a} observes {x}, but {b} {y}.", "Clocks show {x} in {a} and {y} in {b}.", "{a} keeps {x}, {b} keeps {y}."),
        (
            "Which time does {a} observe?", "What time are clocks in {a} set to?", "In which time zone is {a}?",
            "What time zone does {a} run on?", "By what time do people in {a} live?", "What is the time zone of {a}?",
        ),
    ),
    "latitude": Wording(
        (
            "{a} is at latitude {x}.", "{a} has a latitude of {x}.", "The parallel of {a} is {x}.",
            "{a} lies on the parallel {x}.", "A map gives {a} the latitude {x}.",
        ),
        (
            "The latitude of {a} is {x} and that of {b} {y}.", "{a} is at latitude {x}, {b} at {y}.",
            "On latitude {x} lies {a}, on {y} lies {b}.",
        ),
        (
            "What is the latitude of {a}?", "At which latitude is {a}?", "Which parallel does {a} lie on?",
            "What latitude does {a} have?", "How far north is {a}?", "On what parallel would you find {a}?",
        ),
    ),
    "longitude": Wording(
        (
            "{a} is at longitude {x}.", "{a} has a longitude of {x}.", "The meridian of {a} is {x}.",
            "{a} lies on the meridian {x}.", "A map gives {a} the longitude {x}.",
        ),
        (
            "The longitude of {a} is {x} and that of {b} {y}.", "{a} is at longitude {x}, {b} at {y}.",
            "On longitude {x} lies {a}, on {y} lies {b}.",
        ),
        (
            "What is the longitude of {a}?", "At which longitude is {a}?", "Which meridian does {a} lie on?",
            "What longitude does {a} have?", "How far west is {a}?", "On what meridian would you find {a}?",
        ),
    ),
}  # fmt: skip
DISTANCE = Wording(
    (
        "{a} lies {x} from {b}.", "The distance between {a} and {b} is {x}.", "From {a} it is {x} to {b}.",
        "A flight from {a} to {b} covers {x}.",
    ),
    (),
    (
        "How far is {a} from {b}?", "What is the distance between {a} and {b}?", "How far apart are {a} and {b}?",
        "What distance separates {a} from {b}?", "How long is the way from {a} to {b}?",
    ),
)  # fmt: skip


def read_places(path: Path) -> list[Place]:
    """The usable rows of a table with the columns of `cities_us.csv.gz`, in its order.

    Left out: names that are not plain ASCII words or are a state's name as well, places below 100 inhabitants, at or
    below sea level, or with contradicting elevations, coordinates outside the United States, rare time zones.
    """
    import pandas as pd

    return clean(pd.read_csv(path))


def clean(table: pd.DataFrame) -> list[Place]:
    """As `read_places`, from a table in memory."""
    usable = (
        table["asciiname"].str.fullmatch(r"[A-Z][A-Za-z]+(?:[ '-][A-Z][A-Za-z]+)*")
        & (table["asciiname"].str.len() <= 24)
        & ~table["asciiname"].isin(table["state"])
        & table["state"].notna()
        & (table["population"] >= 100)
        & table["elevation"].between(1, 4000)
        & ((table["elevation"] - table["dem"]).abs() <= 100)
        & table["latitude"].between(18, 72)
        & table["longitude"].between(-180, -60)
        & table["timezone"].isin(_ZONES)
    )
    rows = table[usable].drop_duplicates(["asciiname", "state"])
    columns = ("asciiname", "state", "population", "elevation", "timezone", "latitude", "longitude")
    return [
        Place(name, state, int(population), int(elevation), _ZONES[zone], float(latitude), float(longitude))
        for name, state, population, elevation, zone, latitude, longitude in zip(
            *(rows[column] for column in columns), strict=True
        )
    ]


def distance_km(a: Place, b: Place) -> float:
    """Great-circle distance of two places, in kilometres (haversine formula)."""
    lat_a, lat_b = math.radians(a.latitude), math.radians(b.latitude)
    half_lon = math.radians(b.longitude - a.longitude) / 2
    chord = math.sin((lat_b - lat_a) / 2) ** 2 + math.cos(lat_a) * math.cos(lat_b) * math.sin(half_lon) ** 2
    return 2 * _EARTH_RADIUS_KM * math.asin(math.sqrt(chord))


def split_of(place: Place) -> str:
    """`train` or `validation`, by the name alone, so that namesakes are on the same side."""
    digest = hashlib.sha256(place.name.encode()).digest()
    return "validation" if int.from_bytes(digest[:4], "big") % 100 < VALIDATION_PERCENT else "train"


def generate(places: list[Place], split: str) -> list[dict]:
    """All questions of a split in SQuAD's format, the same every time."""
    rng = random.Random(f"{SEED} {split}")
    chosen = [place for place in places if split_of(place) == split]
    rows: list[dict] = []
    for _ in range(PASSES):
        for group, kinds in _groups(rng.sample(chosen, len(chosen)), rng):
            paragraph = Paragraph(rng, held_out=split == "validation")
            paragraph.write(group, kinds)
            for question, title, text, start in paragraph.ask(QUESTIONS):
                answers = {"text": [text], "answer_start": [start]}
                row = {"id": f"{split}-{len(rows)}", "title": title, "context": paragraph.text, "question": question}
                rows.append({**row, "answers": answers})
    return rows


def _groups(places: list[Place], rng: random.Random) -> Iterator[tuple[list[Place], int]]:
    """The places in groups without names that contain one another, and the number of kinds of facts for each."""
    waiting = places
    while len(waiting) >= max(size for size, _ in PLACES_AND_KINDS):
        size, kinds = rng.choice(PLACES_AND_KINDS)
        group: list[Place] = []
        passed: list[Place] = []
        for index, place in enumerate(waiting):
            clash = any(place.name in other.name or other.name in place.name for other in group)
            (passed if clash else group).append(place)
            if len(group) == size:
                waiting = passed + waiting[index + 1 :]
                yield group, kinds
                break
        else:
            return


class Paragraph:
    """A paragraph as it is written, with the span of every fact in it.

    Attributes:
        text: what has been written.
        facts: for each kind, places in the order of its template, the answer's text and its first character.
    """

    def __init__(self, rng: random.Random, held_out: bool):
        self.rng = rng
        self.held_out = held_out
        self.text = ""
        self.facts: list[tuple[str, tuple[str, ...], str, int]] = []

    def write(self, places: list[Place], kinds: int) -> None:
        """Tell `kinds` kinds of facts of every place, place by place or kind by kind, and perhaps two distances."""
        chosen = self.rng.sample(sorted(WORDING), kinds)
        if self.rng.random() < 0.5:
            for place in places:
                for position, kind in enumerate(self.rng.sample(chosen, kinds)):
                    self._tell(kind, place, again=position > 0)
        else:
            for kind in chosen:
                self._tell_all(kind, self.rng.sample(places, len(places)))
        first, *others = self.rng.sample(places, 3)
        for other in others if self.rng.random() < 0.5 else ():
            text = f"{distance_km(first, other):,.0f}"
            template = self._choose(DISTANCE.sentences, 1)
            self._add(template, ("distance", (first.name, other.name)), a=first.name, b=other.name, x=text)

    def _tell(self, kind: str, place: Place, again: bool) -> None:
        template = self._choose(WORDING[kind].sentences, 1)
        if again and template.startswith("{a}") and self.rng.random() < 0.5:
            template = self.rng.choice(("It", "The place")) + template.removeprefix("{a}")
        self._add(template, (kind, (place.name,)), a=place.name, x=place.value(kind))

    def _tell_all(self, kind: str, places: list[Place]) -> None:
        while places:
            if len(places) >= 2 and self.rng.random() < 0.5:
                a, b, *places = places
                template = self._choose(WORDING[kind].pairs, 1)
                keys = (kind, (a.name,)), (kind, (b.name,))
                self._add(template, *keys, a=a.name, b=b.name, x=a.value(kind), y=b.value(kind))
            else:
                a, *places = places
                self._tell(kind, a, again=False)

    def _choose(self, templates: tuple[str, ...], kept: int) -> str:
        return self.rng.choice(templates if self.held_out else templates[:-kept])

    def _add(self, template: str, *keys: tuple[str, tuple[str, ...]], **values: str) -> None:
        """Append a sentence; `keys` name the facts that the placeholders {x} and {y} are the answers of."""
        self.text += " " if self.text else ""
        for part in re.split(r"(\{\w\})", template):
            field = part.strip("{}")
            if part in ("{x}", "{y}"):
                kind, names = keys["xy".index(field)]
                self.facts.append((kind, names, values[field], len(self.text)))
                self.text += values[field] + UNITS.get(kind, "")
            else:
                self.text += values.get(field, part)

    def ask(self, count: int) -> Iterator[tuple[str, str, str, int]]:
        """Questions on different facts: question, place, answer and the answer's first character."""
        for kind, names, text, start in self.rng.sample(self.facts, count):
            wording = DISTANCE if kind == "distance" else WORDING[kind]
            template = self._choose(wording.questions, 2)
            yield template.format(a=names[0], b=names[-1]), names[0], text, start
