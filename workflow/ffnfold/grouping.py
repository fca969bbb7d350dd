"""Which blocks form a group, and which block of a group is its anchor."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Group:
    """Blocks whose FFNs become one.

    Args:
        members: block indices, ascending; a block that stays alone is a group of one.
        anchor: the member that the others are aligned to.
    """

    members: tuple[int, ...]
    anchor: int
