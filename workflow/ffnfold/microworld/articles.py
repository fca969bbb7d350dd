"""News articles of three or four facts among other sentences, and the summary that repeats those facts.

What someone did to a building always comes first among the facts; what it cost, who leads it and what it will store
follow, one of them missing at times. Sentences of similar words stand between them anywhere, so the first three
sentences of an article are a poor summary. The summary keeps the order and the words of the facts.
"""

from ffnfold.microworld.source import Teller
from ffnfold.microworld.words import BUILDINGS, DAYS, DEEDS, GOODS, NUMBERS, PEOPLE, TOWNS, TRADES, WEATHER

DISTRACTORS = ("past", "crowd", "guest", "weather")
FACTS = ("cost", "head", "store")


def write_article(t: Teller) -> str:
    """Write one article and return its summary."""
    towns, people, buildings = map(list, (TOWNS, PEOPLE, BUILDINGS))
    t.write(t.pick(("news", "word", "report")))
    t.write("of the week :")
    building = ""
    summary: list[str] = []

    def tell(fact: str) -> None:
        nonlocal building
        first = len(t.parts)
        if fact == "event":
            t.write(f"on {t.pick(DAYS)}")
            t.write(t.take(people))
            t.write(f"{t.pick(DEEDS)} the")
            building = t.take(buildings)
            t.write(f"{building} in")
            t.write(f"{t.take(towns)} .")
        elif fact == "cost":
            t.write(f"the {building} cost")
            t.write(f"{t.pick(NUMBERS)} crowns .")
        elif fact == "head":
            t.write("its head will be")
            t.write(f"{t.take(people)} .")
        else:
            t.write("it will store")
            t.write(f"{t.pick(GOODS)} .")
        summary.append(" ".join(t.parts[first:]))

    def digress(kind: str) -> None:
        if kind == "past":
            t.write("last year")
            t.write(t.take(people))
            t.write(f"{t.pick(DEEDS)} a")
            t.write(f"{t.take(buildings)} in")
            t.write(f"{t.take(towns)} .")
        elif kind == "crowd":
            t.write("many people from")
            t.write(f"{t.take(towns)} came to watch .")
        elif kind == "guest":
            t.write(f"{t.take(people)} the")
            t.write(f"{t.pick(TRADES)} was there too .")
        else:
            t.write(f"{t.pick(WEATHER)} .")

    missing = t.pick((*FACTS, None))
    facts = ["event", *(fact for fact in FACTS if fact != missing)]
    others = list(DISTRACTORS)
    remaining = t.pick((2, 3))
    while facts or remaining:
        if t.index((remaining, len(facts))):
            tell(facts.pop(0))
        else:
            remaining -= 1
            digress(t.take(others))
    return " ".join(summary)
