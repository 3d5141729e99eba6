"""Sockets, signals, and the web server's limits of time and number."""
