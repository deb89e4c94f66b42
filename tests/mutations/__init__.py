"""Changes of the project that must not go unseen, as data: docs/testing.md says how to write one."""
