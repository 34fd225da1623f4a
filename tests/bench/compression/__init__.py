"""What the compressors reach on real data: tasks, recipes, and the tables of the benchmark."""
