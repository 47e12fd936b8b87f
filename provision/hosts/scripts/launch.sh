# shellcheck shell=sh
# shellcheck disable=SC2163,SC2016 # `line` is NAME=value; the inner shell expands what is in single quotes
# Arguments: node, port and command (quoted for a shell), in turn. Standard input: `NAME=value` lines for the
# environment, nothing secret. The shell that stays writes down how its program ended.
. lib/alive.sh
cd "$here" || exit 1
umask 077
while read -r line; do export "$line"; done
begun=
while [ $# -gt 0 ]; do
    node=$1 port=$2 command=$3
    shift 3
    ! alive "$node" || continue
    rm -f "$node.exit" "$node.pid"
    { mkdir -p "$node" && : > "$node.out"; } || exit 1
    PROVISION_NODE="$here:$node" setsid sh -c '
        node=$1 port=$2 boot=$3
        eval "set -- $4"
        "$@" &
        pid=$!
        read -r stat < "/proc/$pid/stat"
        set -- ${stat##*) }
        printf "pid=%s\nstart=%s\nboot=%s\nport=%s\n" "$pid" "${20}" "$boot" "$port" > "$node.pid.new" &&
            mv -f "$node.pid.new" "$node.pid" || { kill "$pid"; exit 1; }
        wait "$pid"
        echo $? > "$node.exit"
    ' supervise "$node" "$port" "$boot" "$command" </dev/null >"$node.out" 2>&1 &
    begun="$begun $node"
done
n=0
for node in $begun; do
    while [ ! -e "$node.pid" ] && [ ! -s "$node.exit" ] && [ $n -lt 500 ]; do n=$((n + 1)); sleep 0.02; done
    [ -e "$node.pid" ] || { echo "$node could not be started: $(cat "$node.out")" >&2; exit 1; }
done
