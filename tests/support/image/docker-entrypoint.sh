#!/bin/sh
# Behaves as the entry point of the official mongo image does; see the docstring of tests/support/image/__init__.py.
set -eu

fail() {
    echo >&2 "error: $*"
    exit 1
}

case ${1-} in
'' | -*) set -- mongod "$@" ;;
esac

# As root: hand the data to the image's user and come back as that user.
if [ "$(id -u)" = 0 ] && { [ "$1" = mongod ] || [ "$1" = mongos ]; }; then
    if [ "$1" = mongod ]; then
        find /data/configdb /data/db ! -user mongodb -exec chown mongodb '{}' +
    fi
    # Logs go to the container's own output, which belongs to root. It may be a pipe that can't be given away.
    chown mongodb /proc/self/fd/1 /proc/self/fd/2 2>/dev/null || true
    exec su -p -s /bin/sh -c 'exec "$0" "$@"' -- mongodb "$0" "$@"
fi

if [ "$1" = mongod ]; then
    for name in MONGO_INITDB_ROOT_USERNAME MONGO_INITDB_ROOT_PASSWORD; do
        eval "value=\${$name-} file=\${${name}_FILE-}"
        if [ -n "$value" ] && [ -n "$file" ]; then
            fail "both $name and ${name}_FILE are set (but are exclusive)"
        fi
        if [ -n "$file" ]; then
            value=$(cat "$file")
            eval "export $name=\$value"
        fi
        unset "${name}_FILE"
    done
    if [ -n "${MONGO_INITDB_ROOT_USERNAME-}" ] && [ -n "${MONGO_INITDB_ROOT_PASSWORD-}" ]; then
        # Creates the root user on empty data.
        router-standin-python /opt/router-standin/initdb.py "$@"
        set -- "$@" --auth
    elif [ -n "${MONGO_INITDB_ROOT_USERNAME-}${MONGO_INITDB_ROOT_PASSWORD-}" ]; then
        fail 'missing "MONGO_INITDB_ROOT_USERNAME" or "MONGO_INITDB_ROOT_PASSWORD": both must be given for a user to be created'
    fi
    # The outside of a container is not "localhost": listen everywhere unless something else was asked for.
    binds=false
    config=
    previous=
    for argument in "$@"; do
        case $argument in
        --bind_ip | --bind_ip=* | --bind_ip_all) binds=true ;;
        --config=*) config=${argument#--config=} ;;
        esac
        case $previous in
        -f | --config) config=$argument ;;
        esac
        previous=$argument
    done
    if [ -n "$config" ] && grep -qE '^[[:space:]]*"?bindIp(All)?"?[[:space:]]*:' "$config"; then
        binds=true
    fi
    if [ "$binds" = false ]; then
        set -- "$@" --bind_ip_all
    fi
fi

unset MONGO_INITDB_ROOT_USERNAME MONGO_INITDB_ROOT_PASSWORD MONGO_INITDB_DATABASE
exec "$@"
