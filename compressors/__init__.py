"""The offline half: changes a network, lowers it to an engine, measures it and writes an artifact."""
