"""The studio: a local page on which people judge images, blind, and a file that keeps every vote.

Kept free of torch: it opens at once, and where there is nothing to compute on.
"""
