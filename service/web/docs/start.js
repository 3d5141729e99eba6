// Starts Swagger UI. Its check by a public validator is off, so that the page asks no other host for anything.
"use strict";

SwaggerUIBundle({ dom_id: "#api", url: "openapi.json", deepLinking: true, displayRequestDuration: true, validatorUrl: null });
