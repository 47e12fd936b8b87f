"""Every subject, in the order they are measured: what is quick first. A new one is a module and a line here."""

from __future__ import annotations

from tools.bench.measure import Subject
from tools.bench.subjects import (
    app_load,
    cluster,
    dump_and_load,
    environments,
    fixtures,
    hosts,
    installed,
    replica_set,
    run_app,
    seed,
    setup_fresh,
    setup_unchanged,
    start,
    task_list,
)

ALL: tuple[Subject, ...] = (
    task_list.SUBJECT,
    setup_unchanged.SUBJECT,
    installed.COMMAND,
    installed.INIT,
    installed.SECOND_APP,
    environments.SUBJECT,
    start.EMPTIED,
    start.USED,
    run_app.SUBJECT,
    setup_fresh.SUBJECT,
    fixtures.SESSION,
    fixtures.DATABASES,
    app_load.PEOPLE_REQUESTS,
    app_load.PEOPLE_P99,
    app_load.LOG_IN_REQUESTS,
    app_load.LOG_IN_P99,
    seed.SUBJECT,
    dump_and_load.SUBJECT,
    replica_set.WRITABLE,
    replica_set.HEALTHY,
    cluster.WRITABLE,
    cluster.HEALTHY,
    cluster.SECOND_UP,
    cluster.DOWN,
    cluster.MEMORY,
    hosts.SET,
    hosts.CLUSTER,
    *hosts.GROWTH,
)
