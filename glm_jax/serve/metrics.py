"""Metrics of a server, for Prometheus."""

from __future__ import annotations

from collections.abc import Callable

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)


class Metrics:
    """The counters of one server."""

    def __init__(self) -> None:
        self._registry = registry = CollectorRegistry()
        self.requests = Counter(
            "glm_requests", "Requests by path and status.", ["path", "status"], registry=registry
        )
        self.tokens = Counter(
            "glm_tokens_generated",
            "Tokens put into blanks, without beam search.",
            [],
            registry=registry,
        )
        self.first_token = Histogram(
            "glm_time_to_first_token_seconds",
            "From a request to its first token, without beam search.",
            buckets=_SECONDS,
            registry=registry,
        )
        self.step = Histogram(
            "glm_step_seconds",
            "One token for every row in use, measured over several steps.",
            buckets=_SECONDS,
            registry=registry,
        )
        self.faults = Counter(
            "glm_worker_faults",
            "Restarts of the worker after a fault.",
            registry=registry,
        )

    def watch(self, name: str, description: str, value: Callable[[], float]) -> None:
        """Adds a number that is looked up when the metrics are read."""
        Gauge(name, description, registry=self._registry).set_function(value)

    def text(self) -> bytes:
        """All of it in Prometheus' text format."""
        return generate_latest(self._registry)
