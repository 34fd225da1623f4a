"""Traces of requests, as OpenTelemetry has them.

A request that is traced carries `Marks` on its way: the moments at which it passed each stage. When
it has ended, its spans are made of its record and sent by another thread, so that what tracing
costs is hardly ever in the way of an answer. OpenTelemetry itself is imported by `.tracer` and what
that imports alone, which nobody imports while the setting `tracing` is off.
"""
