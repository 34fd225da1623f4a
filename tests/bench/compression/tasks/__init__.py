"""The benchmark's tasks. They need the data folder, `GEARSHIFT_BENCH_DATA`, and keep trained
references in `GEARSHIFT_BENCH_WEIGHTS`, so that each is trained once."""
