"""How often each interval holds the truth: 95% intervals of simulated data sets whose truth is known.

    python benchmarks/interval_coverage.py [data sets, default 5000]

Prints one line for each kind of interval: coverage over 200 data sets and over all, each with its binomial standard
error, in %. Sizes are those of real use: 12 or 50 timed pairs, 100 articles, hundreds of windows and reviews. The last
group is what does not reach its level: a 90th percentile by bootstrap (a study takes it by order statistics), few items
of a skewed kind (with 3 or 5, Student's interval is 2 to 3 points short), two replicates that differ much, and
Satterthwaite's degrees of freedom, which `crossed_interval` does not use.
tests/unit/test_coverage.py draws from the same cases.
"""

from __future__ import annotations

import sys
import zlib
from collections.abc import Callable

import numpy as np
from ffnfold import hypothesis_tests, statistics
from scipy.stats import lognorm, norm
from scipy.stats import t as student_t

LEVEL = 0.95
FIRST = 200

#: Draws a data set and says whether the interval made from it holds the truth.
Case = Callable[[np.random.Generator, int], bool]


def _holds(interval: tuple[float, ...], truth: float) -> bool:
    return bool(interval[1] <= truth <= interval[2])


def mean(n: int, shape: float = 6.0) -> Case:
    """ROUGE-like scores, Beta(2, shape)."""

    def draw(g: np.random.Generator, resamples: int) -> bool:
        return _holds(statistics.mean_interval(g.beta(2, shape, n), LEVEL, resamples, g), 2 / (2 + shape))

    return draw


def ratio(n: int) -> Case:
    """Nats a token of windows that score 20 to 64 tokens, 3 nats each on average."""

    def draw(g: np.random.Generator, resamples: int) -> bool:
        scored = g.integers(20, 65, n).astype(float)
        nats = scored * g.gamma(25, 3 / 25, n)
        return _holds(statistics.ratio_interval(nats, scored, LEVEL, resamples, g), 3.0)

    return draw


def quantile(n: int, q: float) -> Case:
    """Milliseconds, log-normal with a spread of 10%."""

    def draw(g: np.random.Generator, resamples: int) -> bool:
        times = 50 * g.lognormal(0, 0.1, n)
        found = statistics.quantile_interval(times, q, LEVEL, resamples, g)
        return _holds(found, 50 * float(lognorm.ppf(q, 0.1)))

    return draw


def wilson(n: int) -> Case:
    """Accuracies drawn from 60 to 98%: at a single one the coverage of any such interval jumps with n."""

    def draw(g: np.random.Generator, resamples: int) -> bool:
        truth = g.uniform(0.6, 0.98)
        return _holds(statistics.wilson_interval(int(g.binomial(n, truth)), n, LEVEL), truth)

    return draw


def paired_mean(n: int) -> Case:
    """Correctness of two models that share most of their errors, 88% and 85% right."""

    def draw(g: np.random.Generator, resamples: int) -> bool:
        ease = g.normal(size=n)
        first, second = (
            (0.8 * ease + 0.6 * g.normal(size=n) < norm.ppf(share)).astype(float) for share in (0.88, 0.85)
        )
        return _holds(hypothesis_tests.paired_mean_difference(first, second, LEVEL, resamples, g), 0.03)

    return draw


def accuracies(n: int, gained: float, lost: float) -> Case:
    """Reviews that only the first model, and that only the second has right."""

    def draw(g: np.random.Generator, resamples: int) -> bool:
        first, second, _ = g.multinomial(n, (gained, lost, 1 - gained - lost))
        found = hypothesis_tests.accuracy_difference(int(first), int(second), n, LEVEL)
        return _holds(found, 100 * (gained - lost))

    return draw


def paired_rate(n: int) -> Case:
    """Nats of two models on the same windows, 0.02 nats a token apart."""

    def draw(g: np.random.Generator, resamples: int) -> bool:
        scored = g.integers(20, 65, n).astype(float)
        nats = scored * g.gamma(25, 3 / 25, n)
        other = nats + scored * (0.02 + 0.05 * (g.gamma(4, 1, n) - 4))
        return _holds(hypothesis_tests.paired_rate_difference(other, nats, scored, LEVEL, resamples, g), 0.02)

    return draw


def paired_median(n: int) -> Case:
    """Times of two models whose slow moments fall together, one taking 0.6 of the other's time."""

    def draw(g: np.random.Generator, resamples: int) -> bool:
        slow = g.lognormal(0, 0.2, n)
        first, second = 30 * slow * g.lognormal(0, 0.05, n), 50 * slow * g.lognormal(0, 0.05, n)
        return _holds(hypothesis_tests.paired_median_ratio(first, second, LEVEL, resamples, g), 0.6)

    return draw


def unpaired_median(n: int) -> Case:
    """Times of two models in two runs."""

    def draw(g: np.random.Generator, resamples: int) -> bool:
        first, second = 30 * g.lognormal(0, 0.1, n), 50 * g.lognormal(0, 0.1, n)
        return _holds(hypothesis_tests.median_ratio(first, second, LEVEL, resamples, g), 0.6)

    return draw


def _effects(g: np.random.Generator, replicates: int, items: int, split: tuple[float, float, float]) -> np.ndarray:
    """(replicates, items), mean 0; the mean's variance of 1 is split into replicates, items and the rest."""
    a, b, e = np.sqrt(split)
    return (
        a * np.sqrt(replicates) * g.normal(size=(replicates, 1))
        + b * np.sqrt(items) * g.normal(size=items)
        + e * np.sqrt(replicates * items) * g.normal(size=(replicates, items))
    )


def crossed(replicates: int, items: int, split: tuple[float, float, float]) -> Case:
    """Scores with normal effects."""

    def draw(g: np.random.Generator, resamples: int) -> bool:
        scores = 1 + _effects(g, replicates, items, split)
        return _holds(hypothesis_tests.crossed_interval(scores, None, LEVEL), 1.0)

    return draw


def crossed_ratio(replicates: int, items: int, split: tuple[float, float, float]) -> Case:
    """Nats over scored tokens, the rates with normal effects."""

    def draw(g: np.random.Generator, resamples: int) -> bool:
        scored = g.integers(20, 65, items).astype(float)
        nats = scored * (3 + 0.01 * _effects(g, replicates, items, split))
        return _holds(hypothesis_tests.crossed_interval(nats, scored, LEVEL), 3.0)

    return draw


def crossed_correct(replicates: int, items: int) -> Case:
    """Correctness: right where ease, training and chance together pass a threshold; 85% are."""

    def draw(g: np.random.Generator, resamples: int) -> bool:
        spread = (0.05, 0.8, 0.6)
        shapes = ((replicates, 1), (1, items), (replicates, items))
        total = sum(s * g.normal(size=shape) for s, shape in zip(spread, shapes, strict=True))
        right = (total < norm.ppf(0.85) * np.sqrt(sum(s**2 for s in spread))).astype(float)
        return _holds(hypothesis_tests.crossed_interval(right, None, LEVEL), 0.85)

    return draw


def nested(replicates: int) -> Case:
    """Logarithms of replicates' latencies, normal."""

    def draw(g: np.random.Generator, resamples: int) -> bool:
        return _holds(hypothesis_tests.nested_interval(g.normal(0.5, 0.1, replicates), LEVEL), 0.5)

    return draw


def satterthwaite(replicates: int, items: int, split: tuple[float, float, float]) -> Case:
    """The same data as `crossed`, with (A + B - E) and Satterthwaite's degrees of freedom."""

    def draw(g: np.random.Generator, resamples: int) -> bool:
        y = _effects(g, replicates, items, split)
        rows, columns = y.mean(axis=1), y.mean(axis=0)
        a = items * rows.var(ddof=1)
        b = replicates * columns.var(ddof=1)
        freedom = np.array([replicates - 1, items - 1, (replicates - 1) * (items - 1)])
        e = ((y - rows[:, None] - columns + y.mean()) ** 2).sum() / freedom[2]
        total = max(a + b - e, a, b)
        df = max(1.0, (a + b - e) ** 2 / (np.array([a, b, e]) ** 2 / freedom).sum())
        half = student_t.isf((1 - LEVEL) / 2, df) * np.sqrt(total / (replicates * items))
        return bool(abs(y.mean()) <= half)

    return draw


MIXES = {
    "replicates alone": (1.0, 0.0, 0.0),
    "mostly replicates": (0.8, 0.1, 0.1),
    "half and half": (0.4, 0.4, 0.2),
    "mostly items": (0.1, 0.8, 0.1),
    "items alone": (0.0, 1.0, 0.0),
    "mostly rest": (0.1, 0.2, 0.7),
}

#: What must reach its level.
CASES: dict[str, Case] = {
    "mean, 100 articles": mean(100),
    "ratio, 200 windows": ratio(200),
    "median, 12 timings": quantile(12, 0.5),
    "median, 50 timings": quantile(50, 0.5),
    "Wilson, 400 reviews": wilson(400),
    "paired mean difference, 200 reviews": paired_mean(200),
    "accuracy difference, 400 reviews, 10% to 7%": accuracies(400, 0.10, 0.07),
    "accuracy difference, 400 reviews, 5% to 1%": accuracies(400, 0.05, 0.01),
    "accuracy difference, 1,000 reviews, 20% to 15%": accuracies(1000, 0.20, 0.15),
    "paired rate difference, 200 windows": paired_rate(200),
    "paired median ratio, 50 pairs": paired_median(50),
    "median ratio, 12 timings each": unpaired_median(12),
    "median ratio, 50 timings each": unpaired_median(50),
    **{
        f"crossed, {r} replicates, 100 items, {name}": crossed(r, 100, split)
        for r in (3, 5)
        for name, split in MIXES.items()
    },
    "crossed ratio, 3 replicates, 200 windows": crossed_ratio(3, 200, (0.3, 0.5, 0.2)),
    "crossed, 3 replicates, 400 reviews": crossed_correct(3, 400),
    "nested, 3 replicates": nested(3),
    "nested, 5 replicates": nested(5),
}

#: What does not, or what is left out for that reason.
SHORT: dict[str, Case] = {
    "90th percentile by bootstrap, 50 timings": quantile(50, 0.9),
    "90th percentile by bootstrap, 12 timings": quantile(12, 0.9),
    "mean, 3 articles": mean(3),
    "mean, 5 articles": mean(5),
    "paired rate difference, 3 windows": paired_rate(3),
    "paired rate difference, 5 windows": paired_rate(5),
    "mean, 12 articles, skewed": mean(12, 20.0),
    "crossed, 2 replicates, mostly replicates": crossed(2, 100, MIXES["mostly replicates"]),
    "crossed, 2 replicates, half and half": crossed(2, 100, MIXES["half and half"]),
    "Satterthwaite, 2 replicates, mostly replicates": satterthwaite(2, 100, MIXES["mostly replicates"]),
    "Satterthwaite, 3 replicates, mostly replicates": satterthwaite(3, 100, MIXES["mostly replicates"]),
    "Satterthwaite, 3 replicates, mostly rest": satterthwaite(3, 100, MIXES["mostly rest"]),
}


def coverage(name: str, draws: int, resamples: int, seed: int = 0) -> np.ndarray:
    """Whether the interval held the truth, bool (draws,); a case's stream depends on the seed and its name."""
    generator = np.random.default_rng([seed, zlib.crc32(name.encode())])
    case = {**CASES, **SHORT}[name]
    return np.array([case(generator, resamples) for _ in range(draws)])


def main() -> None:
    draws = int(sys.argv[1]) if len(sys.argv) > 1 else 5000
    print(f"{'95% interval':60} {f'{FIRST} sets':>13} {f'{draws} sets':>13}")
    for group in (CASES, SHORT):
        for name in group:
            held = coverage(name, draws, 2000)
            cells = []
            for part in (held[:FIRST], held):
                share = part.mean()
                cells.append(f"{100 * share:5.1f} ± {100 * np.sqrt(share * (1 - share) / len(part)):.1f}")
            print(f"{name:60} {cells[0]:>13} {cells[1]:>13}", flush=True)
        print()


if __name__ == "__main__":
    main()
