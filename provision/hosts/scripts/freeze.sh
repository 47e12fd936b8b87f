# shellcheck shell=sh
# $2: process, system or user; $3: the node; $4: its unit; $5: a signal. Prints how it was before.
. lib/alive.sh
kind=$1 node=$2 unit=$3 signal=$4
if [ "$kind" = process ]; then alive "$node" || { echo absent; exit 0; }
else
    own=
    [ "$kind" = system ] || { own=--user; export XDG_RUNTIME_DIR="${XDG_RUNTIME_DIR:-/run/user/$(id -u)}"; }
    pid=$(systemctl $own show "$unit" -p MainPID --value)
    started "${pid:-0}" || { echo absent; exit 0; }
fi
echo "${frozen:-running}"
kill -s "$signal" "$pid"
