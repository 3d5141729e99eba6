"""Decodes strangers' files in worker processes that can be ended."""
