"""Questions that a study asks on pairs of its variants, checked before any job; `answers` answers them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ffnfold.errors import InputError


def check_questions(study: Mapping[str, Any], source: str) -> None:
    """Check that each question is on two variants that the study has.

    Args:
        study: a study with its variants expanded and its defaults written out.
        source: what messages call it.

    Raises:
        InputError: a variant is not in the study, or a question compares it with itself.
    """
    for name, question in study["questions"].items():
        where = f"{source}: questions.{name}"
        out = f"leave the question out: questions: {{{name}: null}} does so in a study that extends another"
        for side in ("variant", "against"):
            if question[side] not in study["variants"]:
                raise InputError(
                    "a question is on a variant that the study does not have",
                    where=f"{where}.{side}",
                    got=repr(question[side]),
                    expected="one of " + ", ".join(study["variants"]),
                    remedy=f"name one of these, or {out}",
                )
        if question["variant"] == question["against"]:
            raise InputError(
                "a question compares a variant with itself",
                where=where,
                got=f"{question['variant']!r} twice",
                expected="two variants",
                remedy=f"name another variant, or {out}",
            )
