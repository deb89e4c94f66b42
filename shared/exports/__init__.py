"""Export: what D365 offers on a job's queue becomes a blob in `exports`, and only then is acknowledged."""
