"""Pools whose threads work in the name of who asked, and slots that nobody waits for in vain."""

from shared import deadline
from shared.threads import Pool, Slots


def test_a_pools_threads_have_the_deadline_of_who_gave_them_the_work() -> None:
    """And another's work in the same pool has its own."""
    with Pool(1) as pool:
        with deadline.within(3):
            inside = pool.submit(deadline.left)
        outside = pool.submit(deadline.left)
    assert inside.result() <= 3
    assert outside.result() == float("inf")


def test_who_found_no_place_leaves_none() -> None:
    """The place stays with who has it; after that the next one gets it."""
    slots = Slots(1)
    with slots.slot(0) as first:
        for _ in range(2):
            with slots.slot(0) as second:
                assert (first, second) == (True, False)
    with slots.slot(0) as first, slots.slot(0) as second:
        assert (first, second) == (True, False)
