"""The benchmarks run by hand; what they give the app is checked with every run of the tests."""

import json

import pytest

from shared.config import jobs
from tests.bench import memory, runs, tally


@pytest.mark.parametrize(
    "text",
    [json.dumps(memory.JOBS), json.dumps(runs.PACKAGE_JOBS), json.dumps(tally.JOBS)],
    ids=["memory", "runs", "tally"],
)
def test_the_jobs_of_a_benchmark_are_valid(text: str) -> None:
    """A new rule for jobs files may not stop a benchmark unseen."""
    assert jobs.parse(text.encode()).imports
