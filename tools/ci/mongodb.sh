#!/bin/sh
# MongoDB for a job of any CI, and for a development container: 'mongodb.sh install', 'start', 'logs', 'stop'.
#
# What you may set:
#   MONGODB_VERSION      8.0.17, for example; empty: a mongod that is there, else the tool's default
#   MONGODB_TOPOLOGY     single (one member, the default), replica-set or sharded
#   MONGODB_AUTH         true: users and passwords; default: false
#   MONGODB_PORT         the first port; default: 27017
#   PROVISION_PACKAGE    what pip installs; default: flaskbook-provision
#   PROVISION_HOME       where everything goes; default: ~/.provision
# 'start' prints the connection string, and nothing else, on standard output. On GitHub it is also the output uri and
# the variable MONGODB_URI of the steps that follow.
set -eu

home=${PROVISION_HOME:-${HOME:-/root}/.provision}
package=${PROVISION_PACKAGE:-flaskbook-provision}
project=$home/project
provision=$home/venv/bin/provision

say() { printf '%s\n' "$*" >&2; }

die() {
    say "error: $1"
    say "  next: $2"
    exit 1
}

python() {
    for each in python3 python3.14 python3.13 python3.12 python3.11; do
        if command -v "$each" >/dev/null 2>&1 && "$each" -c 'import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
            printf '%s\n' "$each"
            return
        fi
    done
    return 1
}

install() {
    if ! found=$(python); then
        if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null 2>&1; then
            say "Installing Python"
            apt-get -q update >&2
            DEBIAN_FRONTEND=noninteractive apt-get -q install --yes --no-install-recommends python3 python3-venv ca-certificates >&2
        fi
        found=$(python) || die "no Python 3.11 or newer with venv is installed" "install it: apt-get install python3 python3-venv"
    fi
    mkdir -p "$home"
    "$found" -m venv "$home/venv"
    "$home/venv/bin/python" -m pip install --quiet --disable-pip-version-check "$package" >&2
}

# The settings of the one deployment, ci.
settings() {
    printf 'paths: {data: data, log: log}\n'
    printf 'deployments:\n  ci:\n    topology: %s\n    port: %s\n    auth: %s\n' "${MONGODB_TOPOLOGY:-single}" "${MONGODB_PORT:-27017}" "${MONGODB_AUTH:-false}"
    [ -z "${MONGODB_VERSION-}" ] || printf '    mongod: "%s"\n' "$MONGODB_VERSION"
}

start() {
    mkdir -p "$project"
    settings >"$project/invoke.yaml"
    if ! "$provision" --search-root "$project" start --on ci >"$home/start.out"; then
        logs >&2 || true
        return 1
    fi
    user=
    [ "${MONGODB_AUTH:-false}" != true ] || user=--user=root
    uri=$("$provision" --search-root "$project" uri --on ci $user)
    if [ -n "${GITHUB_OUTPUT-}" ]; then
        # Whatever is printed later, the password is not shown.
        password=$(printf '%s\n' "$uri" | sed -n 's,^[a-z+]*://[^:/]*:\([^@]*\)@.*,\1,p')
        [ -z "$password" ] || printf '::add-mask::%s\n' "$password" >&2
        printf 'uri=%s\n' "$uri" >>"$GITHUB_OUTPUT"
        printf 'MONGODB_URI=%s\n' "$uri" >>"$GITHUB_ENV"
    fi
    printf '%s\n' "$uri"
}

logs() { "$provision" --search-root "$project" logs --on ci --all; }

stop() { "$provision" --search-root "$project" stop --on ci >&2; }

case ${1-} in
install | start | logs | stop) "$1" ;;
*) die "there is no command '${1-}'" "type: mongodb.sh install, start, logs or stop" ;;
esac
