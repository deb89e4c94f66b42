"""The product's logic: moves packages and files between Dynamics 365 and blobs. Knows nothing of triggers."""
