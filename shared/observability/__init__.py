"""What the app reports: log events, traces, metrics."""
