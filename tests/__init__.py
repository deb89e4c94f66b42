"""Tests, benchmarks and fault runs. Never deployed."""
