"""What an ordered job promises (I5), and no more: one file at a time, and the next is the first by name of
those that lay in `imports` when it was claimed."""

from collections.abc import Sequence
from dataclasses import dataclass

CLOCKS = 2.0
"""Seconds that a file must have lain there before another's claim, to have been seen surely: who claims has
looked a little before, and says the time to the second."""


@dataclass(frozen=True)
class Turn:
    """A file of an ordered job. Times are seconds on one clock."""

    name: str
    there: float
    """Since when it lay in `imports`."""
    claimed: float
    in_hand: Sequence[tuple[float, float]]
    """When D365 began to receive it and when it was done with it, each time that it took it."""


def violations(turns: Sequence[Turn]) -> list[str]:
    """Where the order was not kept, in sentences."""
    return [*_at_once(turns), *_overtaken(turns)]


def _at_once(turns: Sequence[Turn]) -> list[str]:
    hands = sorted((*hand, turn.name) for turn in turns for hand in turn.in_hand)
    return [
        f"D365 began to receive {later} {end - began:.1f} s before it was done with {name}"
        for at, (_, end, name) in enumerate(hands)
        for began, _, later in hands[at + 1 :]
        if began < end and later != name
    ]


def _overtaken(turns: Sequence[Turn]) -> list[str]:
    """A file goes after those before it by name that lay there; one that came too late to be seen may wait."""
    return [
        f"{later.name} was sent before {first.name}, which lay there when it was claimed"
        for later in turns
        for first in turns
        if first.name < later.name
        and first.there < later.claimed - CLOCKS
        and later.in_hand
        and any(began > min(later.in_hand)[0] for began, _ in first.in_hand)
    ]
