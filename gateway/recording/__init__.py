"""Recording: what the access log and traces have in common.

    records    what follows the journal, as far as either is wanted
    record     a request that has ended, made once for both
    origins    what a request is called, and the trace it belongs to
    said_of    what either says of a request
    backlog    what the event loop leaves for a thread of its own

What either is by itself is in `gateway.logs` and `gateway.tracing`.
"""
