"""The configuration: the app settings and the jobs file, read and checked."""
