"""Everything HTTP: routes, middleware, request and response bodies."""
