"""Every subject, in the order they are measured: what is quick first. A new one is a module and a line here."""

from __future__ import annotations

from bench.measure import Subject
from bench.subjects import cluster, fixtures, replica_set, run_app, setup_fresh, setup_unchanged, start, task_list

ALL: tuple[Subject, ...] = (
    task_list.SUBJECT,
    setup_unchanged.SUBJECT,
    start.EMPTIED,
    start.USED,
    run_app.SUBJECT,
    setup_fresh.SUBJECT,
    fixtures.SESSION,
    fixtures.DATABASES,
    replica_set.WRITABLE,
    replica_set.HEALTHY,
    cluster.WRITABLE,
    cluster.HEALTHY,
    cluster.SECOND_UP,
    cluster.DOWN,
    cluster.MEMORY,
)
