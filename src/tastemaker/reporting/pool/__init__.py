"""Contents of pools and pairs, as text and as a page."""
