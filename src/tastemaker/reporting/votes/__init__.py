"""Results of people's votes, as JSON and as a page."""
