"""The product's logic: moves packages and files between Dynamics 365 and blobs. Knows nothing of triggers."""

from typing import Final

__version__: Final = "0.1.0"
"""The one place of the version: of the page, the User-Agent, telemetry, the command's package and the tag."""
