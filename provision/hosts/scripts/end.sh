# shellcheck shell=sh
# $2: seconds to wait before SIGKILL; 0: SIGKILL at once. Then the names of nodes.
. lib/alive.sh
patience=$1
shift
signal=TERM
[ "$patience" != 0 ] || signal=KILL
for node in "$@"; do
    ! alive "$node" || { kill -s $signal "$pid"; kill -s CONT "$pid"; }  # one that is paused must hear it, too
done
deadline=$(($(date +%s) + patience + 1))
while :; do
    left=
    for node in "$@"; do ! alive "$node" || left="$left $node"; done
    [ -n "$left" ] || break
    if [ "$(date +%s)" -ge "$deadline" ]; then
        for node in $left; do ! alive "$node" || kill -s KILL "$pid"; done
        deadline=$((deadline + 10))
    fi
    sleep 0.02
done
n=0
for node in "$@"; do
    # The shell that waits for it has the last word; it would leave a file behind.
    while [ -e "$here/$node.pid" ] && [ ! -s "$here/$node.exit" ] && [ $n -lt 100 ]; do n=$((n + 1)); sleep 0.02; done
    rm -f "$here/$node.pid" "$here/$node.exit"
done
