"""`dev.py faults [--every N] [--flow TEXT] [--seed N] [--seconds N]`: what holds when things break, as tables.

Prints the table of what each failure of a send proves, each row tried; what an environment in trouble is to
another; the crash matrix; one random schedule; and each mutation of the code with the test that caught it.
Exits non-zero on any violation.
"""

import argparse
import logging
import random
import sys
import time
from pathlib import Path
from tempfile import TemporaryDirectory

from local.azurite import running_azurite
from tests.faults import crashes, environments, failed_sends, schedules
from tests.mutations import table


def print_sends() -> list[str]:
    """The table of failed sends, each row tried."""
    print("\nWhat a failed send proves (docs/reliability.md)\n")
    wrong = []
    for row in failed_sends.tried():
        mark = "ok" if not row.violation else "WRONG: " + row.violation
        what = f"{row.operation}: {row.case.what}"
        print(f"  {what:<62} {row.verdict:<12} D365 took it {row.taken}x   {mark}")
        wrong += [f"{what}: {row.violation}"] if row.violation else []
    return wrong


def print_environments() -> list[str]:
    """What each trouble of one environment is to another."""
    print(
        "\nOne environment in trouble: requests and outcomes of the other, compared with those alone\n"
    )
    wrong = []
    for row in environments.tried():
        mark = "WRONG: " + row.violation if row.violation else "as if it were alone"
        print(f"  {row.trouble.what:<46} {mark}", flush=True)
        wrong += [f"{row.trouble.what}: {row.violation}"] if row.violation else []
    return wrong


def print_crashes(every: int, flow_text: str) -> list[str]:
    """The crash matrix, of the flows whose name holds `flow_text`."""
    print("\nCrash matrix: killed before and after each request, then settled\n")
    wrong: list[str] = []
    for flow in (each for each in crashes.FLOWS if flow_text in each.name):
        names, started, count = crashes.accounts(600), time.monotonic(), 0
        with (
            TemporaryDirectory(prefix="bridge-crashes-") as folder,
            running_azurite(more_accounts=names) as azurite,
        ):
            for result in crashes.Matrix(azurite, names, Path(folder)).run(flow, every=every):
                count += 1
                point = f"{result.number:>3} {result.when:<6} {result.request}"
                mark = "" if not result.violations else "   WRONG: " + "; ".join(result.violations)
                print(f"  {result.flow:<15} {point:<78} {result.outcome}{mark}", flush=True)
                wrong += [f"{result.flow}, {point}: {each}" for each in result.violations]
        seconds = time.monotonic() - started
        print(f"  {flow.name}: {count} crashes, {seconds:.0f} s\n", flush=True)
    return wrong


def print_schedule(seed: int, seconds: float) -> list[str]:
    """One random schedule."""
    print(f"\nRandom schedule of {seconds:.0f} s (again with --seed {seed})\n", flush=True)
    text, wrong = schedules.run(seed, seconds)
    print(f"  {text}", flush=True)
    return [f"seed {seed}: {each}" for each in wrong]


def print_mutations() -> list[str]:
    """Each mutation of the code, and what caught it."""
    print("\nMutations, each in a copy of the project, and the test that went red\n")
    wrong, started = [], time.monotonic()
    for mutation, test in table.all_caught():
        print(f"  {mutation!s:<70} {test or 'WRONG: not caught'}", flush=True)
        if not test or test.startswith("WRONG"):
            wrong.append(f"{mutation}: {test or 'not caught'}")
    print(f"  {len(table.CODE)} mutations, {time.monotonic() - started:.0f} s", flush=True)
    return wrong


def main() -> int:
    parser = argparse.ArgumentParser("dev.py faults", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--every", type=int, default=1, help="crash at each Nth point alone")
    parser.add_argument(
        "--flow", default="", help="only the crash matrix, of the flows whose name holds this"
    )
    parser.add_argument("--seed", type=int, default=random.randrange(10_000))
    parser.add_argument("--seconds", type=float, default=30.0, help="of the random schedule")
    options = parser.parse_args()
    for name in ("bridge", "azure"):  # what is broken on purpose is no news
        logging.getLogger(name).setLevel(logging.CRITICAL)
    if options.flow:
        wrong = print_crashes(options.every, options.flow)
    else:
        wrong = [
            *print_sends(),
            *print_environments(),
            *print_crashes(options.every, ""),
            *print_schedule(options.seed, options.seconds),
            *print_mutations(),
        ]
    print()
    for each in wrong:
        print(f"VIOLATION: {each}")
    print(f"violations: {len(wrong)}")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
