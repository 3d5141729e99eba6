"""The same model and the same decoder under other frameworks; each file runs in an environment of its own."""
