# shellcheck shell=sh
# $2: all (the directory itself, too) or some; $3: data or keep. Then the names of nodes.
. lib/alive.sh
all=$1 data=$2
shift 2
cd "$here" 2>/dev/null || exit 0
for node in "$@"; do
    ! alive "$node" || { echo "$node is running" >&2; exit 1; }
    rm -f "$node.pid" "$node.exit" "$node.conf"
    [ "$data" != data ] || rm -rf -- "./$node" "./$node.log" "./$node.out"
done
[ "$all" != all ] || rm -rf keyfile host.pem ca.pem .incoming.*
cd /
rmdir "$here" 2>/dev/null || true
