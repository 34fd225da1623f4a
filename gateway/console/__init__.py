"""The console's values: what the page at `/` shows, gathered while the server serves.

    decisions   the latest decisions, with what they were asked and why they fell so
    history     what became of requests in the last quarter of an hour, in steps of five seconds
    state       what is served now, by which lanes, and what waits for them
    everybody   the same of all workers: asked over sockets, and joined
    files       the page itself, and the charts' library

The routes are in `gateway/protocols/console.py`. Nothing here keeps a request's tensors, and of
what a caller wrote only constraints that the router understood are shown.
"""
