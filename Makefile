# Two commands do everything from a fresh checkout: `make demo` and `make test`.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PORT ?= 8080
MODELS ?= models
BENCH_RESULTS ?= bench-results
PEERS ?= .peers

.PHONY: help setup demo docs test laws check bench bench-loop bench-bound bench-coverage bench-shards bench-live bench-swap bench-lanes bench-compression bench-search bench-peers bench-speed bench-log bench-picture bench-tools fuzz soak overload idle rollout dashboards slim weights clean

help:  ## list the targets
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*##/\t/' | expand -t 16

# The stamp is newer than pyproject.toml exactly when the environment holds what it asks for.
$(VENV)/.ready: pyproject.toml
	@$(PYTHON) -c 'import sys; v = sys.version_info; \
	  sys.exit(0 if v >= (3, 11) else f"Python 3.11 or newer is needed, $(PYTHON) is {v[0]}.{v[1]}; try make PYTHON=python3.11")'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	# Asked for by its exact version first: a looser demand may take a build with CUDA.
	$(BIN)/python -m pip install --quiet torch==2.13.0
	$(BIN)/python -m pip install --quiet --editable '.[test]'
	@touch $@

setup: $(VENV)/.ready  ## make the environment, once

demo: setup  ## build the digits variants, serve them, page at http://127.0.0.1:$(PORT)/
	$(BIN)/gearshift demo --models $(MODELS) --port $(PORT)

check: setup  ## format, lint, types, import directions
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

docs: setup  ## write the pages made from the code, build the site into build/site
	$(BIN)/python -m tests.docs.pages
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --strict

# Files in their order, the longest first and the router's last, so that all processes end together;
# and their code compiled once, not by each of the servers that tests start.
test: check  ## every check and every test
	$(BIN)/python -m compileall -q gateway router compressors
	$(BIN)/python -m pytest --numprocesses auto --dist loadfile --no-loadscope-reorder

laws: setup  ## whatever holds for any input, on many times the examples of `make test`
	$(BIN)/python -m pytest --numprocesses auto --hypothesis-profile whole -m hypothesis

bench: setup bench-tools  ## measure the gateway's overhead, throughput and decision time
	$(BIN)/python -m tests.bench --out $(BENCH_RESULTS)

bench-loop: setup  ## processor time of a request on the event loop, without sockets: a minute
	$(BIN)/python -m tests.bench.loop $(ARGS)

bench-bound: setup  ## decisions beside the best that is possible, simulated: 5 minutes
	$(BIN)/python -m tests.bench.bound $(ARGS)

bench-coverage: setup  ## how often predicted latencies hold, simulated: 3 minutes
	$(BIN)/python -m tests.bench.coverage $(ARGS)

bench-shards: setup  ## what splitting lanes into shards loses, simulated: 5 minutes
	$(BIN)/python -m tests.bench.shards $(ARGS)

bench-live: setup  ## the same traffic against a real gateway and in simulation: 2 minutes
	$(BIN)/python -m tests.bench.live $(ARGS)

bench-swap: setup  ## what replacing a variant of MODELS costs the others: 2 minutes
	$(BIN)/python -m tests.bench.swap --models $(MODELS) $(ARGS)

bench-lanes: setup bench-tools  ## thread lanes beside process lanes
	$(BIN)/python -m tests.bench.lanes $(if $(wildcard $(MODELS)),--models $(MODELS) --variant int8) $(ARGS)

bench-compression: setup  ## what compression reaches on real data: DATA=folder; hours at first
	$(BIN)/python -m tests.bench.compression --data $(DATA) --work $(BENCH_RESULTS)/compression $(ARGS)

bench-search: setup  ## the search beside random search, with real trainings
	$(BIN)/python -m tests.bench.compression.random_search $(ARGS)

bench-peers: setup bench-tools  ## beside MLServer, Triton, BentoML, LitServe, Ray Serve: 15 minutes
	$(BIN)/python -m tests.bench.peers --folder $(PEERS) --out $(BENCH_RESULTS) $(ARGS)

bench-speed: setup bench-tools  ## compute-bound networks, overhead at half load, memory: 6 minutes
	$(BIN)/python -m tests.bench.speed --out $(BENCH_RESULTS) $(ARGS)

bench-log: setup bench-tools  ## what the access log and traces cost: 3 minutes
	$(BIN)/python -m tests.bench.records --out $(BENCH_RESULTS) $(ARGS)

bench-picture: setup bench-tools  ## where a request's time goes, as docs/pictures/time.svg
	$(BIN)/python -m tests.bench.profile --folder $(PEERS) $(ARGS)

fuzz: setup  ## 210,000 mutated requests at every door: SEED=n to repeat one run
	$(BIN)/python -m tests.drills.fuzz $(if $(SEED),--seed $(SEED)) $(ARGS)

soak: setup  ## mixed traffic, swaps and faults for SECONDS, 1800 by default; nothing lost, no leak
	$(BIN)/python -m tests.drills.soak $(if $(SECONDS),--seconds $(SECONDS)) $(ARGS)

overload: setup  ## ten times what the lanes can do, for SECONDS, 60 by default
	$(BIN)/python -m tests.drills.overload $(if $(SECONDS),--seconds $(SECONDS)) $(ARGS)

rollout: setup  ## two gateways behind nginx under load, one replaced after the other
	$(BIN)/python -m tests.drills.rollout $(ARGS)

idle: setup  ## 10,000 idle connections beside live traffic
	$(BIN)/python -m tests.drills.idle $(ARGS)

slim: setup  ## carry out the serve image's steps without an engine: its size, and that it serves MODELS
	$(BIN)/python -m deploy.docker.slim $(if $(wildcard $(MODELS)),--models $(MODELS))

bench-tools:
	@command -v wrk >/dev/null || { echo "make bench needs wrk: apt-get install wrk"; exit 1; }

dashboards: setup  ## write deploy/grafana/*.json from deploy/dashboards
	$(BIN)/python -m deploy.dashboards

weights: setup  ## train the digits reference again; overwrites its shipped weights
	$(BIN)/python -m compressors.tasks.digits

clean:  ## remove the environment and what was built
	rm -rf $(VENV) $(MODELS) $(BENCH_RESULTS) *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
