"""Numbers about sets of scores and images."""
