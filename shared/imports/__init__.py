"""Import: from a dropped file to its end in `imports-succeeded` or `imports-failed`."""
