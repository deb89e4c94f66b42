"""`dev.py soak --minutes N [--seed N]`: random schedules, one after the other, each with its seed."""

import argparse
import random
import sys
import time

from tests.faults import schedules


def main() -> int:
    parser = argparse.ArgumentParser("dev.py soak", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--minutes", type=float, required=True)
    parser.add_argument("--seed", type=int, default=random.randrange(10_000), help="the first seed")
    parser.add_argument("--seconds", type=float, default=40.0, help="of trouble in each schedule")
    options = parser.parse_args()
    end, seed, wrong = time.monotonic() + 60 * options.minutes, options.seed, 0
    while time.monotonic() < end:
        text, violations = schedules.run(seed, options.seconds)
        print(text, flush=True)
        for each in violations:
            print(f"  VIOLATION: {each}", flush=True)
        wrong += len(violations)
        seed += 1
    print(f"schedules: {seed - options.seed}, violations: {wrong}")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
