"""Decodes untrusted files in worker processes that can be ended."""
