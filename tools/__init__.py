"""What people run against production: the command `d365-blob-bridge`. It needs tools/requirements.txt alone."""
