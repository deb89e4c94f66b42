"""Checks of `infra/` without Azure: the Bicep files are evaluated here, and compared with Azure's types and
with the code. `python3 dev.py infra` runs them all; `checks.py` lists them."""
