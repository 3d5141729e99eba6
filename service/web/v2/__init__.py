"""The Open Inference Protocol (V2); remove this package and its lines in `web.app` and `web.problems` to drop it."""
