"""A local image that stands for the official mongo image on machines without an image registry.

It holds a real mongod with the libraries it is linked with, busybox, and a Python that runs the router stand-in
under the name mongos. It is made of what this machine has: nothing is downloaded.

What it does as the official image does (github.com/docker-library/mongo, docker-entrypoint.sh):
    - mongod runs as mongodb, 999:999: started as root it changes the owner of /data/db and /data/configdb and drops
      its rights; started as another user (``user:`` in compose) it leaves everything as it is;
    - arguments that begin with ``-`` are mongod's; any other command is executed as it stands;
    - MONGO_INITDB_ROOT_USERNAME and _PASSWORD, or the files that ``…_FILE`` name, create a user with the role root on
      an empty data directory and add ``--auth``; one without the other, or both forms at once, is an error;
    - ``--config`` is honoured, also for where the data is; without a bind address it listens on all;
    - /data/db and /data/configdb are volumes, 27017 is exposed, MONGO_VERSION is set.

What the official image has and this one does not:
    mongosh, bash, apt, /docker-entrypoint-initdb.d, MONGO_INITDB_DATABASE, numactl; and a real mongos.
"""
