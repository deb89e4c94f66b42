"""One machine stands in for the cloud: for developing and tests, never deployed."""
