"""A test double for mongos, for machines that can get a mongod but no mongos.

It is a router only. Config servers, shards, chunks, balancing and the routing of every read and write stay
MongoDB's own: a mongod that is a shard knows how to route, and answers the internal commands ``clusterInsert``,
``clusterFind`` … and, with its config servers, ``_configsvrAddShard``, ``_shardsvrCreateCollection`` … This program
speaks the wire protocol to clients as mongos does and hands their commands to those. It belongs to the tests and is
never imported by the tool. Verified against mongod 6.0.5; the internal commands are not a public interface and
change between major versions.

What a real mongos does and this does not
    - sessions and transactions (``hello`` announces no sessions, so drivers send none; retryable writes are off),
    - change streams (``$changeStream`` in ``clusterAggregate`` makes mongod 6.0.5 abort, so it is refused),
    - ``explain``, ``mapReduce``, ``reshardCollection``, ``refineCollectionShardKey``: answered with an error,
    - ``killCursors`` on the shards' router cursors: the cursor is forgotten here and times out there,
    - read preferences for the commands that go to one shard directly: those always use the primary,
    - MONGODB-X509 log-in of clients (SCRAM log-in, TLS, and x.509 towards the cluster work),
    - auditing, compression, ``$currentOp`` and ``killOp`` over the cluster, load balancer support,
    - keeping a client's log-in over a failover of the config servers: its connection is closed, the driver reconnects.
"""
