"""What a study file may hold, checked strictly, and a schema's complaint as a message that a user can act on."""

from __future__ import annotations

import math
from typing import Any

from jsonschema import Draft202012Validator
from jsonschema.exceptions import ValidationError
from jsonschema.validators import extend

from ffnfold.errors import InputError


def _is_integer(checker: Any, value: Any) -> bool:
    """A whole number written as one: JSON Schema takes 2.0 for an integer, `range` does not."""
    return isinstance(value, int) and not isinstance(value, bool)


def _is_number(checker: Any, value: Any) -> bool:
    """A finite number: NaN is below no bound and above none."""
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


StrictValidator = extend(
    Draft202012Validator,
    type_checker=Draft202012Validator.TYPE_CHECKER.redefine_many({"integer": _is_integer, "number": _is_number}),
)


def describe(error: ValidationError, source: str) -> InputError:
    """A schema error as a message a user can act on."""
    where = ".".join(str(part) for part in error.absolute_path) or "(top level)"
    place = f"{source}: {where}"
    if error.validator == "additionalProperties":
        known = sorted(error.schema.get("properties", {}))
        unknown = sorted(set(error.instance) - set(known), key=str)
        return InputError(
            "unknown key",
            where=place,
            got=", ".join(map(repr, unknown)),
            expected="one of " + ", ".join(known) if known else "no further key",
            remedy="correct the spelling or remove the key; config/README.md lists every key",
        )
    if error.validator == "required":
        missing = [key for key in error.validator_value if key not in error.instance]
        return InputError(
            "missing key",
            where=place,
            got="no " + ", ".join(map(repr, missing)),
            expected=", ".join(error.validator_value),
            remedy="add the key; config/README.md describes it",
        )
    if error.validator == "pattern":
        what = (
            "a name has characters that are not allowed" if where.endswith("variants") else "a value has the wrong form"
        )
        return InputError(
            what,
            where=place,
            got=repr(error.instance),
            expected="letters, digits, '_', '-' and '.', beginning with a letter or digit",
            remedy="rename it: the name becomes a folder, so no slashes and no spaces",
        )
    if error.validator == "oneOf":
        inner = [e for e in error.context if e.validator != "type"]
        if not error.context or (len(inner) > 1 and all(e.validator == "required" for e in inner)):
            keys = [key for part in error.validator_value for key in part["required"]]
            return InputError(
                "exactly one of two keys is needed",
                where=place,
                got=", ".join(repr(key) for key in keys if key in error.instance) or "neither",
                expected="one of " + ", ".join(keys),
                remedy="give one and leave out the other; config/README.md describes them",
            )
        if inner:  # the alternative whose type fits says what is wrong inside it
            return describe(inner[0], source)
    bounds = {
        "minimum": "at least",
        "maximum": "at most",
        "exclusiveMinimum": "more than",
        "exclusiveMaximum": "less than",
        "type": "of type",
        "enum": "one of",
    }
    expected = bounds.get(error.validator, error.validator) + f" {error.validator_value}"
    if error.validator == "oneOf":
        expected = "of type " + " or ".join(str(e.validator_value) for e in error.context)
    elif error.validator in ("minItems", "minLength", "minProperties", "uniqueItems", "const"):
        expected = error.message.replace(repr(error.instance), "the value")
    return InputError(
        "a value is not allowed",
        where=place,
        got=repr(error.instance),
        expected=expected,
        remedy="config/README.md gives the meaning, the unit and the bounds of each key",
    )
