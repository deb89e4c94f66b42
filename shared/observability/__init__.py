"""What the app tells: log events, traces, metrics."""
