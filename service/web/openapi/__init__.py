"""The OpenAPI document, and what routes say in it."""
