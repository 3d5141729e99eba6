"""The routes, one file for each concern."""
