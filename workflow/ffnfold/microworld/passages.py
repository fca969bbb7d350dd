"""Encyclopedic passages: a heading, facts of the fixed world from memory, then news of today, asked for again later.

Three things have to be known to predict a passage. Facts of the world come from memory, some over two steps (the trade
of a town's founder). What is said under `Today` is drawn at random, and comes back later in the passage: it has to be
looked up over a distance. The rest is grammar. Some names and things are common and some rare, as in natural text.
"""

from ffnfold.microworld.source import Teller, zipf
from ffnfold.microworld.words import DEEDS, GOODS, NUMBERS, PEOPLE, QUALITIES, TOWNS, WORKS
from ffnfold.microworld.world import PERSON_FACTS, TOWN_FACTS


def write_passage(t: Teller) -> None:
    """Write one passage, about a town or a person."""
    if t.index((1, 1)):
        name = t.pick(TOWNS, zipf(TOWNS))
        t.write(f"= {name} = \n")
        _tell_facts(t, _town_facts(name))
    else:
        name = t.pick(PEOPLE, zipf(PEOPLE))
        t.write(f"= {name} = \n")
        _tell_facts(t, _person_facts(name))
    t.write("\n = = Today = = \n")
    _tell_news(t)


def _town_facts(town: str) -> dict[str, str]:
    facts = TOWN_FACTS[town]
    founder = PERSON_FACTS[facts.founder]
    return {
        "river": f"{town} is a town on the river {facts.river} .",
        "founder": f"it was founded by {facts.founder} , a {founder.trade} from {founder.home} .",
        "good": f"its people trade in {facts.good} .",
        "building": f"the oldest building is the {facts.building} .",
        "road": f"a road leads to {facts.neighbour} on the river {TOWN_FACTS[facts.neighbour].river} .",
    }


def _person_facts(person: str) -> dict[str, str]:
    facts = PERSON_FACTS[person]
    home = TOWN_FACTS[facts.home]
    return {
        "trade": f"{person} was a {facts.trade} .",
        "home": f"the family came from {facts.home} on the river {home.river} .",
        "good": f"the family traded in {home.good} .",
        "teacher": f"the teacher was {facts.teacher} , a {PERSON_FACTS[facts.teacher].trade} .",
    }


def _tell_facts(t: Teller, facts: dict[str, str]) -> None:
    """Tell all facts but one, in an order of choice; sentences of different kinds begin with different words."""
    kinds = list(facts)
    while len(kinds) > 1:
        t.write(facts[t.take(kinds)])


def _tell_news(t: Teller) -> None:
    """Name a mayor and a building site, then ask for what was said of them."""
    mayor = t.pick(PEOPLE, zipf(PEOPLE))
    t.write(f"mayor {mayor} has ordered a")
    quality = t.pick(QUALITIES, zipf(QUALITIES))
    t.write(quality)
    work = t.pick(WORKS, zipf(WORKS))
    t.write(f"{work} . the {work} will cost")
    number = t.pick(NUMBERS, zipf(NUMBERS))
    t.write(f"{number} crowns and will hold")
    good = t.pick(GOODS, zipf(GOODS))
    t.write(f"{good} .")
    asked = ["deed", "price", "thanks", "use"]
    for _ in range(3):
        kind = t.take(asked)
        if kind == "deed":
            t.write(f"mayor {mayor} has")
            t.write(f"{t.pick(DEEDS, zipf(DEEDS))} the {quality} {work} .")
        elif kind == "price":
            t.write(f"for {number} crowns it is a {quality} {work} .")
        elif kind == "thanks":
            t.write(f"those who need {good} thank mayor {mayor} .")
        else:
            t.write(f"so the {quality} {work} holds {good} .")
