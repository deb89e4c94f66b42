"""Pools whose threads work in the name of who asked, and places that nobody waits for in vain."""

from shared import deadline
from shared.threads import Places, Pool


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
    places = Places(1)
    with places.place(0) as first:
        for _ in range(2):
            with places.place(0) as second:
                assert (first, second) == (True, False)
    with places.place(0) as first, places.place(0) as second:
        assert (first, second) == (True, False)
