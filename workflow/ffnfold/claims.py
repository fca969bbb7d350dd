"""The published claims as data, and each one judged by a study's figures: confirmed, refuted or left open."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ffnfold.comparisons import Comparison, scale_of
from ffnfold.errors import InputError
from ffnfold.formatting import decimals, figure, label, number, with_unit
from ffnfold.records import Value
from ffnfold.schema_errors import StrictValidator, describe
from ffnfold.settings import load_schema, read_yaml
from ffnfold.tables import VALUE_NAMES

CONFIRMED, REFUTED, LEFT_OPEN = "confirmed", "refuted", "left open"
SUPPORTS, CONTRADICTS, OPEN = "supports", "contradicts", "open"
_PLACEHOLDER = "{n}"
_SIGNS = {"ratio": "/", "difference": "−"}

#: (metric, value name, variant, other variant) -> the comparison, None where the two cannot be compared
Compare = Callable[[str, str, str, str], Comparison | None]
#: (metric, value name, variant) -> the figure over all replicates, None where it was not measured
Figure = Callable[[str, str, str], Value | None]


@dataclass(frozen=True)
class ClaimTest:
    """One comparison with its bounds, in the scale's own unit; a bound that is not given is infinite."""

    metric: str
    value: str
    variant: str
    against: str | None
    scale: str
    at_least: float
    at_most: float


@dataclass(frozen=True)
class Claim:
    """A published claim, the figures behind it, and how it is tested."""

    id: str
    claim: str
    published: str
    reading: str
    comparable_only: bool
    tests: tuple[ClaimTest, ...]


@dataclass(frozen=True)
class Verdict:
    """What a study says on a claim.

    Attributes:
        claim: the claim.
        verdict: CONFIRMED, REFUTED or LEFT_OPEN.
        reason: why, in one clause.
        evidence: for each test the figure with interval and n, its bounds, and what it says.
    """

    claim: Claim
    verdict: str
    reason: str
    evidence: tuple[str, ...]


# ------------------------------------------------------------------------------------------------------- reading


def read_claims(path: str | Path) -> list[Claim]:
    """Read and check the claims, `{n}` written out.

    Raises:
        InputError: what is wrong, with the key.
    """
    content = read_yaml(Path(path))
    errors = sorted(StrictValidator(load_schema("claims")).iter_errors(content), key=lambda e: list(map(str, e.path)))
    if errors:
        found = describe(errors[0], str(path))
        remedy = "correct the key; workflow/schemas/claims.schema.yaml describes each"
        raise InputError(found.what, where=found.where, got=found.got, expected=found.expected, remedy=remedy)
    claims: list[Claim] = []
    for index, entry in enumerate(content["claims"]):
        where = f"{path}: claims.{index} ({entry['id']})"
        if entry["id"] in {claim.id for claim in claims}:
            raise InputError("two claims have the same id", where=where, got=entry["id"], remedy="rename one of them")
        tests = [test for place, line in enumerate(entry["tests"]) for test in _expand(line, f"{where}.tests.{place}")]
        claims.append(Claim(**{**entry, "tests": tuple(tests)}))
    return claims


def _expand(line: Mapping[str, Any], where: str) -> list[ClaimTest]:
    """One test for each number of `n`, checked."""
    names = (line["variant"], line.get("against"))
    if any(_PLACEHOLDER in name for name in names if name) != ("n" in line):
        raise InputError(
            "a placeholder in a variant's name needs a list n, and a list n a placeholder",
            where=where,
            got=f"variant {names[0]!r}, against {names[1]!r}, n {line.get('n')}",
            expected=f"e.g. variant: merged_{_PLACEHOLDER}, n: [2, 4]",
        )
    if (line["scale"] == "absolute") != (names[1] is None):
        raise InputError(
            "an absolute figure is held against no variant, a ratio or difference against one",
            where=f"{where}.against",
            got=f"scale {line['scale']}, against {names[1]!r}",
            remedy="remove `against`, or take another scale",
        )
    if line["value"] not in VALUE_NAMES[line["metric"]]:
        raise InputError(
            "unknown value",
            where=f"{where}.value",
            got=line["value"],
            expected="one of " + ", ".join(VALUE_NAMES[line["metric"]]),
        )
    if line["scale"] != "absolute" and scale_of(line["metric"], line["value"])[0] != line["scale"]:
        raise InputError(
            "this value is compared in another way",
            where=f"{where}.scale",
            got=line["scale"],
            expected=scale_of(line["metric"], line["value"])[0],
        )
    at_least, at_most = line.get("at_least", -math.inf), line.get("at_most", math.inf)
    if (at_least, at_most) == (-math.inf, math.inf) or at_least > at_most:
        raise InputError(
            "a test needs a bound, and its lower bound is not above its upper one",
            where=where,
            got=f"at_least {line.get('at_least')}, at_most {line.get('at_most')}",
        )
    return [
        ClaimTest(
            line["metric"],
            line["value"],
            names[0].replace(_PLACEHOLDER, str(n)),
            names[1] and names[1].replace(_PLACEHOLDER, str(n)),
            line["scale"],
            at_least,
            at_most,
        )
        for n in line.get("n", [None])
    ]


# ------------------------------------------------------------------------------------------------------- judging


def judge(claims: Sequence[Claim], compare: Compare, value: Figure, comparable: bool) -> list[Verdict]:
    """Hold each claim against a study's figures.

    A test supports its claim where the whole interval lies within its bounds, contradicts it where the interval lies
    wholly outside, and is open where the interval reaches across a bound. A claim is confirmed if all its tests
    support it, refuted if any contradicts it, else left open. The levels are those of single tests: a claim
    of many tests is confirmed only by all of them, but one of them may contradict it by chance.

    Args:
        claims: from `read_claims`.
        compare, value: look-ups in the study's records.
        comparable: whether the study has the published model and data; else claims on absolute figures stay open.
    """
    return [_judge_claim(claim, compare, value, comparable) for claim in claims]


def _judge_claim(claim: Claim, compare: Compare, value: Figure, comparable: bool) -> Verdict:
    judged = comparable or not claim.comparable_only
    evidence, outcomes, lacking = [], [], []
    for test in claim.tests:
        found = _measured(test, compare, value)
        if isinstance(found, str):
            lacking.append(found)
            evidence.append(f"{_subject(test)}: {found}.")
            continue
        text, low, high = found
        outcomes.append(_outcome(test, low, high))
        verdict = f"; {_bounds(test)}: {outcomes[-1]}" if judged else ""
        evidence.append(f"{_subject(test)}: {text}{verdict}.")
    total, against, open_ = len(claim.tests), outcomes.count(CONTRADICTS), outcomes.count(OPEN)
    if not judged:
        verdict = LEFT_OPEN
        reason = "only a study on the published model and data can judge it"
    elif against:
        verdict, reason = REFUTED, f"{against} of {_tests(total)} contradict{'s' if against == 1 else ''} it"
    elif lacking:
        verdict, reason = LEFT_OPEN, "; ".join(dict.fromkeys(lacking))
    elif open_:
        verdict, reason = LEFT_OPEN, f"{open_} of {_tests(total)}: the interval reaches across a bound"
    else:
        verdict, reason = CONFIRMED, _all_support(total)
    return Verdict(claim, verdict, reason, tuple(evidence))


def _measured(test: ClaimTest, compare: Compare, value: Figure) -> tuple[str, float, float] | str:
    """The figure in words and the ends of its interval, or why there is none."""
    for name in filter(None, (test.variant, test.against)):
        if value(test.metric, test.value, name) is None:
            return f"{name} was not measured"
    if test.against is None:
        found = value(test.metric, test.value, test.variant)
        estimate, replicates = found.value, 1
    elif (found := compare(test.metric, test.value, test.variant, test.against)) is not None:
        estimate, replicates = found.estimate, found.replicates
    else:
        return f"{test.variant} and {test.against} were not measured on the same items in the same way"
    counted = test.metric == "parameters"
    if not counted and found.n < 2:  # its interval has no width, as if it were certain
        return "one item alone shows no spread"
    low, high = found.ci_low, found.ci_high
    return _words(estimate, low, high, found.n, found.unit, replicates, counted), low, high


def _outcome(test: ClaimTest, low: float, high: float) -> str:
    if test.at_least <= low and high <= test.at_most:
        return SUPPORTS
    return CONTRADICTS if high < test.at_least or low > test.at_most else OPEN


def _words(value: float, low: float, high: float, n: int, unit: str, replicates: int, counted: bool) -> str:
    if counted and low == high:  # its interval says nothing
        return with_unit(number(value, decimals(value, low, high)), unit)
    text = figure(value, low, high, n, unit)
    return text if replicates < 2 else f"{text[:-1]}, {replicates} replicates)"


def _subject(test: ClaimTest) -> str:
    name = label(test.value)
    name = name if name.startswith("ROUGE") else name[0].lower() + name[1:]
    pair = test.variant if test.against is None else f"{test.variant} {_SIGNS[test.scale]} {test.against}"
    return f"{pair}, {name}"


def _bounds(test: ClaimTest) -> str:
    least, most = (f"{bound:g}".replace("-", "−") for bound in (test.at_least, test.at_most))
    if not math.isfinite(test.at_most):
        return f"at least {least}"
    if not math.isfinite(test.at_least):
        return f"at most {most}"
    return f"exactly {least}" if least == most else f"{least} to {most}"


def _tests(count: int) -> str:
    return f"{count} test{'s' if count > 1 else ''}"


def _all_support(count: int) -> str:
    return {1: "its test supports it", 2: "both tests support it"}.get(count, f"all {count} tests support it")
