"""The command `d365-blob-bridge`, which people run against production. It needs only tools/requirements.txt."""
