"""REST's edge: connections, limits, codings, errors, and the route that infers."""
