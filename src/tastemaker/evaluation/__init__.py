"""Scores of pools, and policies judged against their base."""
