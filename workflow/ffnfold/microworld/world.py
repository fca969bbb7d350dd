"""The fixed facts of the embedded world: who founded which town, what it trades in, who taught whom.

They are part of the grammar, the same for every seed, so a text that states one of them carries no information in it. A
model can only predict them from memory, which is what FFNs are thought to hold (Geva et al. 2021, arXiv 2012.14913).
"""

from dataclasses import dataclass

from ffnfold.microworld.source import SplitMix64
from ffnfold.microworld.words import BUILDINGS, GOODS, PEOPLE, RIVERS, TOWNS, TRADES

_STATE = 20260101  # chooses this world; another number would give another one


@dataclass(frozen=True)
class Town:
    """A town's facts, all words of `words.py`."""

    river: str
    founder: str
    good: str
    building: str
    neighbour: str


@dataclass(frozen=True)
class Person:
    """A person's facts."""

    home: str
    trade: str
    teacher: str


def _other(rng: SplitMix64, options: tuple[str, ...], excluded: str) -> str:
    remaining = [option for option in options if option != excluded]
    return remaining[rng.below(len(remaining))]


def _build() -> tuple[dict[str, Town], dict[str, Person]]:
    rng = SplitMix64(_STATE)

    def any_of(options: tuple[str, ...]) -> str:
        return options[rng.below(len(options))]

    towns = {
        town: Town(any_of(RIVERS), any_of(PEOPLE), any_of(GOODS), any_of(BUILDINGS), _other(rng, TOWNS, town))
        for town in TOWNS
    }
    people = {person: Person(any_of(TOWNS), any_of(TRADES), _other(rng, PEOPLE, person)) for person in PEOPLE}
    return towns, people


TOWN_FACTS, PERSON_FACTS = _build()
