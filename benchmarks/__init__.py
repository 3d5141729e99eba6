"""How fast the service is beside other serving frameworks, and beside the bare network; `make bench` runs it."""
