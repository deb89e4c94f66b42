"""One module a trigger: bindings in, one call into `shared`, bindings out."""
