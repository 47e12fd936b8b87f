"""A bounded load on a web server of this machine, as a process of its own, for the bench.

``python -m tools.bench.load PORT PLAN`` sends what the plan (JSON, see :class:`Plan`) says over connections that are
kept open, one thread each, and prints a :class:`Summary` as JSON. A connection sends its next request when it has
read the answer to the last one, so never more requests wait than there are connections. Every answer is
checked; the first wrong one ends it.
"""

from __future__ import annotations

import http.client
import json
import math
import socket
import sys
import threading
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from typing import Self

_ANSWER_SECONDS = 30.0
_LIMIT_SECONDS = 300.0


@dataclass(frozen=True)
class Plan:
    """What is sent.

    Args:
        path: of the address.
        requests: measured ones, shared out over the connections.
        warm_up: requests that go before them and are not counted.
        connections: how many at once.
        body: a JSON object to POST; None: GET.
        marker: text that stands in every answer.
        marked: how often it does.
    """

    path: str
    requests: int
    warm_up: int
    connections: int
    body: dict[str, str] | None = None
    marker: str = ""
    marked: int = 0

    def as_json(self) -> str:
        """The plan as one argument of the command line. It holds no secret but one made up for the load."""
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> Self:
        """The plan that ``as_json`` wrote."""
        return cls(**json.loads(text))

    def shares(self, requests: int) -> list[int]:
        """Requests by connection: all of them, as even as can be."""
        each, rest = divmod(requests, self.connections)
        return [each + (number < rest) for number in range(self.connections)]


@dataclass(frozen=True)
class Summary:
    """What was measured.

    Args:
        requests: how many were answered.
        seconds: from the first request to the last answer.
        p99: seconds within which 99 of 100 requests were answered.
    """

    requests: int
    seconds: float
    p99: float

    @classmethod
    def of(cls, latencies: Sequence[float], seconds: float) -> Self:
        """Of the seconds that each request took, and all of them together."""
        return cls(len(latencies), seconds, percentile(latencies, 99))

    @classmethod
    def from_json(cls, text: str) -> Self:
        """The summary that the process printed."""
        return cls(**json.loads(text))


class WrongAnswerError(Exception):
    """An answer that the plan does not allow."""


def percentile(values: Sequence[float], percent: int) -> float:
    """The least of at least one value that ``percent`` of 100 values do not exceed (nearest rank)."""
    return sorted(values)[math.ceil(len(values) * percent / 100) - 1]


def send(port: int, plan: Plan, requests: int) -> Summary:
    """Send requests and wait for all answers.

    Args:
        port: on the loopback address.
        plan: what to send.
        requests: how many, instead of the plan's.

    Raises:
        WrongAnswerError: an answer was not as planned, or there was not enough time.
        OSError, http.client.HTTPException: a connection broke.
    """
    begin = threading.Barrier(plan.connections + 1)
    with ThreadPoolExecutor(plan.connections) as pool:
        shares = [pool.submit(_one_connection, port, plan, share, begin) for share in plan.shares(requests)]
        begin.wait(_ANSWER_SECONDS)
        begun = time.perf_counter()
        latencies = [latency for share in shares for latency in share.result()]
        return Summary.of(latencies, time.perf_counter() - begun)


def _one_connection(port: int, plan: Plan, requests: int, begin: threading.Barrier) -> list[float]:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=_ANSWER_SECONDS)
    try:
        connection.connect()
        # A POST goes out in two parts; waiting to send the second is not the server's work.
        connection.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    finally:
        begin.wait(_ANSWER_SECONDS)
    deadline = time.monotonic() + _LIMIT_SECONDS
    try:
        return [_one_request(connection, plan, deadline) for _ in range(requests)]
    finally:
        connection.close()


def _one_request(connection: http.client.HTTPConnection, plan: Plan, deadline: float) -> float:
    if time.monotonic() > deadline:
        raise WrongAnswerError(f"{plan.path} was not answered often enough within {_LIMIT_SECONDS:.0f} s.")
    body = None if plan.body is None else json.dumps(plan.body)
    headers = {"Accept": "text/html"} if body is None else {"Content-Type": "application/json"}
    begun = time.perf_counter()
    connection.request("GET" if body is None else "POST", plan.path, body, headers)
    answer = connection.getresponse()
    text = answer.read()
    seconds = time.perf_counter() - begun
    if answer.status != http.client.OK:
        raise WrongAnswerError(f"{plan.path} was answered with {answer.status}: {_head(text)}")
    if plan.marker and text.count(plan.marker.encode()) != plan.marked:
        raise WrongAnswerError(
            f"{plan.path} does not hold {plan.marker!r} {plan.marked} times: {_head(text)}"
        )
    return seconds


def _head(text: bytes) -> str:
    return text[:500].decode(errors="replace")


def main(port: str, plan_text: str) -> None:
    """Warm up, measure, print."""
    plan = Plan.from_json(plan_text)
    try:
        send(int(port), plan, plan.warm_up)
        summary = send(int(port), plan, plan.requests)
    except (WrongAnswerError, OSError, http.client.HTTPException) as error:
        sys.exit(str(error) or type(error).__name__)
    sys.stdout.write(json.dumps(asdict(summary)))


if __name__ == "__main__":
    main(*sys.argv[1:])
