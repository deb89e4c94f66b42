"""What the app is told: the app settings and the jobs file, checked."""
