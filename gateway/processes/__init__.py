"""Worker processes that share a port, their cores, sockets and end."""
