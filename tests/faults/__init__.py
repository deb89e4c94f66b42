"""What holds when things break: `python3 dev.py faults`."""
