"""A store at a URL: an object store or a file server, copied into a folder and kept like it.

What serves never reads it: a whole, verified copy of each variant is moved into a folder on the
local disk, where `gateway.lifecycle.watch` finds it as it finds one that somebody dropped there.

    urls    what may be named, and under which name it is kept
    remote  the store itself, by fsspec: what it holds, and its bytes
    cache   the folder, which several processes share
    plan    what is to be fetched and what to be removed: a pure function
    crew    a few threads that fetch at once
    room    how many bytes they may
    sync    one look: list, fetch, verify, move into place, remove
    source  a look again and again, beside the server; and the store that a command names
"""
