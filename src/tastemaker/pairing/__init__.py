"""Candidates to pairs: rules over scores, and joins of two pools."""
