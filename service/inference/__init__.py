"""The way of one slice through the queue; independent of the web framework."""
