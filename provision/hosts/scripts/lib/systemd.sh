# shellcheck shell=sh
# shellcheck disable=SC2034 # for the script that uses this
# For nodes that are systemd units. $2: system or user. Units are linked from the deployment's directory, so
# that what the tool wrote is in `data_dir` alone.
here=$1 kind=$2
shift 2
own=
[ "$kind" = system ] || { own=--user; export XDG_RUNTIME_DIR="${XDG_RUNTIME_DIR:-/run/user/$(id -u)}"; }
