"""The same model and decoder in other frameworks; each file runs in its own virtual environment."""
