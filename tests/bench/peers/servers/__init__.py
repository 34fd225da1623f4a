"""One file = one piece of serving software; it defines `PEER`."""
