# shellcheck shell=sh
# Arguments: the names of nodes.
. lib/alive.sh
for node in "$@"; do
    if alive "$node"; then echo "$node running $pid $frozen"
    elif [ -s "$here/$node.exit" ]; then read -r status < "$here/$node.exit"; echo "$node ended $status"
    else echo "$node absent"; fi
done
