"""Logs: what the server says about itself, and the access log, which says what became of requests.

    sink      where lines go: standard error, or a file that can be opened again
    lines     a record of Python's logging as a line, of text or of JSON
    access    a line for each request to infer, written by a thread of its own
    setup     the log of this process

Neither ever holds what a request carried: no inputs, no outputs, no headers, no keys, and of an
error its code, for its words may repeat what was sent.
"""
