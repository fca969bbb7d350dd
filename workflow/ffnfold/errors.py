"""The one exception for mistakes a user can mend: shown as a message, never as a traceback."""

from __future__ import annotations


class InputError(ValueError):
    """A mistake in the user's configuration, data or environment.

    Args:
        what: what is wrong, one clause.
        where: the key, file or tensor that is at fault.
        got: what was found there.
        expected: what would have been right.
        remedy: what to do about it.
    """

    def __init__(self, what: str, *, where: str = "", got: object = None, expected: str = "", remedy: str = "") -> None:
        self.what, self.where, self.got, self.expected, self.remedy = what, where, got, expected, remedy
        lines = [what]
        if where:
            lines.append(f"  where:    {where}")
        if got is not None:
            lines.append(f"  got:      {got}")
        if expected:
            lines.append(f"  expected: {expected}")
        if remedy:
            lines.append(f"  remedy:   {remedy}")
        super().__init__("\n".join(lines))

    def __reduce__(self):  # keeps the message when the exception crosses a process boundary
        return (_rebuild, (self.what, self.where, self.got, self.expected, self.remedy))


def _rebuild(what: str, where: str, got: object, expected: str, remedy: str) -> InputError:
    return InputError(what, where=where, got=got, expected=expected, remedy=remedy)
