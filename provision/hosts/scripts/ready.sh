# shellcheck shell=sh
# $1: how many binaries; then path and size of each; then ports, as /proc/net/tcp writes them.
n=$1
shift
while [ "$n" -gt 0 ]; do
    [ -x "$1" ] && [ "$(stat -c %s "$1")" = "$2" ] || { echo "$1"; exit 78; }
    shift 2
    n=$((n - 1))
done
for port in "$@"; do
    ! cat /proc/net/tcp /proc/net/tcp6 2>/dev/null | grep -q "^ *[0-9]*: [0-9A-F]*:$port [0-9A-F]*:0000 0A " ||
        { echo "$port"; exit 79; }
done
