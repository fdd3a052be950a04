"""Prompt sets: files, template sentences, captions."""
