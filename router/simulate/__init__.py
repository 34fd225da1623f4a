"""Simulation: the gateway's decisions replayed against a workload, without a gateway.

A discrete-event replay that calls the same functions as the gateway does, on the menu and the
settings that it would serve with: a workload is arrivals (recorded, `trace`, or synthetic,
`arrivals`) and what each request demands (`mix`). Baselines answer the same requests by simpler
rules, and the clairvoyant bound (`bound`) says what no policy could have beaten. Nothing here reads
a file or a clock, and whoever calls brings the randomness.
"""
