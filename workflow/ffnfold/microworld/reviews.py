"""Reviews whose label needs composition: negation, agreement, contrast, and sentences of unequal weight.

A review judges three or four aspects of a place in two sentences of different kinds:

    plain   the light was never dull .                               weighs 2
    both    the soup was fresh and the staff was not rude .          two judgements of one mind: weighs 4
    but     although the room was dirty , the music was lovely .     two of opposite minds: 2 less 1

A judgement is good or bad by its adjective, turned round by a negation. The label is the sign of the weighted sum,
which is never 0: the kinds weigh 2, 4 and 1, and each occurs once at most.
"""

from ffnfold.microworld.source import Teller, zipf
from ffnfold.microworld.words import ASIDES, ASPECTS, BAD, GOOD, PLACES, TOWNS

AFFIRMING = ("was", "was very", "was rather")
NEGATING = ("was not", "was never", "was hardly")


def write_review(t: Teller) -> int:
    """Write one review and return its label before noise: 1 positive, 0 negative."""
    t.write(t.pick(("we", "they")))
    t.write(t.pick(("went to", "visited")))
    t.write(f"the {t.pick(PLACES)} in")
    t.write(f"{t.pick(TOWNS)} .")
    aspects = list(ASPECTS)

    def judge(mind: int) -> None:
        """Write one judgement that means good (1) or bad (0)."""
        t.write(f"the {t.take(aspects)}")
        negated = t.index((3, 1))
        t.write(t.pick((AFFIRMING, NEGATING)[negated]))
        adjectives = (BAD, GOOD)[mind ^ negated]
        t.write(t.pick(adjectives, zipf(adjectives)))

    kinds = ["plain", "both", "but"]
    t.take(kinds)  # one kind is left out
    if t.index((1, 1)):
        kinds.append("aside")
    score = 0
    while kinds:
        kind = t.take(kinds)
        if kind == "aside":
            t.write(f"{t.pick(ASIDES)} .")
            continue
        mind = t.index((1, 1))
        if kind == "plain":
            judge(mind)
            score += 2 if mind else -2
        elif kind == "both":
            judge(mind)
            t.write("and")
            judge(mind)
            score += 4 if mind else -4
        elif t.index((1, 1)):
            t.write("although")
            judge(1 - mind)
            t.write(",")
            judge(mind)
            score += 1 if mind else -1
        else:
            judge(1 - mind)
            t.write(", but")
            judge(mind)
            score += 1 if mind else -1
        t.write(".")
    return int(score > 0)
