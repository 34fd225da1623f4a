"""The offline half: changes a network, lowers it to an engine, measures it, writes an artifact."""
