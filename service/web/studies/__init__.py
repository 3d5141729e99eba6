"""Result of a study as JSON, zip or lines."""
