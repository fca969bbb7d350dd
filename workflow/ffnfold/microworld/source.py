"""Random choices whose probabilities are kept: the one place where the embedded corpus draws anything.

A grammar is a function `grammar(teller)` that asks the teller for choices (`pick`, `order`) and writes words. Run with
a `Sampler` it produces a text and the information content of its choices; run by `derivations` it is searched for every
sequence of choices that gives a wanted text. One piece of code therefore generates, scores and parses.
"""

import hashlib
import math
from collections.abc import Callable, Sequence
from typing import Any

_MASK = (1 << 64) - 1


def zipf(options: Sequence[Any]) -> tuple[int, ...]:
    """Weights that fall as 1 / rank, as word frequencies do in natural text (Zipf 1949)."""
    return tuple(27720 // rank for rank in range(1, len(options) + 1))


class SplitMix64:
    """A 64-bit generator on plain integers: the same numbers on every machine and Python version.

    Source: Steele, Lea and Flood (2014), "Fast splittable pseudorandom number generators", section 4 (mix64).
    """

    def __init__(self, state: int) -> None:
        self.state = state & _MASK

    def next(self) -> int:
        """Return the next integer in [0, 2**64)."""
        self.state = (self.state + 0x9E3779B97F4A7C15) & _MASK
        z = self.state
        z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & _MASK
        z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & _MASK
        return z ^ (z >> 31)

    def below(self, n: int) -> int:
        """Return an integer in [0, n), exactly uniform: draws from the incomplete last run of n are rejected."""
        limit = (1 << 64) - (1 << 64) % n
        while (x := self.next()) >= limit:
            pass
        return x % n


def stream(seed: int, *names: str) -> SplitMix64:
    """Return the generator of one named stream; streams of different names or seeds are unrelated."""
    digest = hashlib.sha256("/".join([str(seed), *names]).encode()).digest()
    return SplitMix64(int.from_bytes(digest[:8], "big"))


class Teller:
    """What a grammar sees: choices and words. Words are joined by one space, each with a space before it."""

    def __init__(self) -> None:
        self.bits = 0.0  # sum of -log2 p over the choices made
        self.parts: list[str] = []

    def index(self, weights: Sequence[int]) -> int:
        """Choose a position with probability weights[i] / sum(weights)."""
        raise NotImplementedError

    def pick(self, options: Sequence[Any], weights: Sequence[int] | None = None) -> Any:
        """Choose one option (all equally likely without weights)."""
        return options[self.index(weights or (1,) * len(options))]

    def take(self, options: list[Any]) -> Any:
        """Choose one option and remove it from the list: drawing without replacement."""
        return options.pop(self.index((1,) * len(options)))

    def write(self, words: str) -> None:
        """Append words, given as one string without outer spaces."""
        self.parts.append(words)

    @property
    def text(self) -> str:
        """The text so far, with one leading space."""
        return "".join(" " + part for part in self.parts)


class Sampler(Teller):
    """A teller that draws its choices from a generator and adds up their information content in bits."""

    def __init__(self, rng: SplitMix64) -> None:
        super().__init__()
        self.rng = rng

    def index(self, weights: Sequence[int]) -> int:
        total = sum(weights)
        x = self.rng.below(total)
        chosen = 0
        while x >= weights[chosen]:
            x -= weights[chosen]
            chosen += 1
        self.bits += math.log2(total / weights[chosen])
        return chosen


class _DeadEnd(Exception):
    """The words written are not the start of the wanted text."""


class _Open(Exception):
    """The path ends at a choice of this many options."""

    def __init__(self, options: int) -> None:
        self.options = options


class _Follower(Teller):
    """A teller that follows a given path of choices and compares what is written with a wanted text."""

    def __init__(self, path: Sequence[int], wanted: str) -> None:
        super().__init__()
        self.path, self.wanted = path, wanted
        self.step = self.position = 0

    def index(self, weights: Sequence[int]) -> int:
        if self.step == len(self.path):
            raise _Open(len(weights))
        chosen = self.path[self.step]
        self.step += 1
        if not weights[chosen]:
            raise _DeadEnd
        self.bits += math.log2(sum(weights) / weights[chosen])
        return chosen

    def write(self, words: str) -> None:
        part = " " + words
        if not self.wanted.startswith(part, self.position):
            raise _DeadEnd
        self.position += len(part)


def derivations(grammar: Callable[[Teller], Any], text: str) -> list[float]:
    """Find every sequence of choices with which the grammar writes a text; unambiguous means exactly one.

    The search is exhaustive: every option of every choice is followed until its words differ from the text.

    Args:
        grammar: function that is given a teller, as for sampling.
        text: the whole text, with its leading space.

    Returns:
        The information content in bits of each derivation.
    """
    found: list[float] = []
    paths: list[tuple[int, ...]] = [()]
    while paths:
        path = paths.pop()
        follower = _Follower(path, text)
        try:
            grammar(follower)
        except _DeadEnd:
            continue
        except _Open as choice:
            paths.extend((*path, i) for i in range(choice.options))
            continue
        if follower.position == len(text):
            found.append(follower.bits)
    return found
