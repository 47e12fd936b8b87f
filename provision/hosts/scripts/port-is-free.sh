# shellcheck shell=sh
# $1: a port as /proc/net/tcp writes it; $2: how many tenths of a second to wait for it.
n=$2
while cat /proc/net/tcp /proc/net/tcp6 2>/dev/null | grep -q "^ *[0-9]*: [0-9A-F]*:$1 [0-9A-F]*:0000 0A "; do
    [ "$n" -gt 0 ] || exit 79
    n=$((n - 1))
    sleep 0.1
done
