"""The operating page, its JSON, and the actions of people. Imported at the first request to the page."""
