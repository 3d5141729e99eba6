"""Replicas for a rate of slices, and the autoscaler of deploy/kubernetes in a burst, simulated."""
