"""Speed of the service compared with other serving frameworks and with the bare network; run by `make bench`."""
