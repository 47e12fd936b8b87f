# shellcheck shell=sh
# shellcheck disable=SC3045 # every sh of a Linux host has ulimit -H
exec 2>/dev/null
echo "clock=$(date +%s.%N)"
. lib/absolute.sh
. lib/units.sh
echo "system=$(uname -s)"
echo "machine=$(uname -m)"
[ ! -r /etc/os-release ] || (. /etc/os-release; echo "distribution=$PRETTY_NAME")
echo "libc=$(getconf GNU_LIBC_VERSION)"
if ! grep -q '^flags' /proc/cpuinfo; then echo avx=unknown
elif grep -m1 '^flags' /proc/cpuinfo | grep -qw avx; then echo avx=yes
else echo avx=no; fi
echo "processors=$(getconf _NPROCESSORS_ONLN)"
echo "memory=$(sed -n 's/^MemTotal: *\([0-9]*\).*/\1/p' /proc/meminfo)"
echo "available=$(sed -n 's/^MemAvailable: *\([0-9]*\).*/\1/p' /proc/meminfo)"
echo "user=$(id -un)"
echo "uid=$(id -u)"
echo "home=$HOME"
if [ "$(id -u)" != 0 ] && sudo -n true; then echo sudo=yes; else echo sudo=no; fi
d=$(absolute "$1")
d0=$d
echo "data_dir=$d"
if [ -d "$d" ]; then echo exists=yes; else echo exists=no; fi
while [ ! -e "$d" ]; do d=$(dirname "$d"); done
if [ -d "$d" ] && [ -w "$d" ] && [ -x "$d" ]; then echo writable=yes; else echo writable=no; fi
df -Pk "$d" | awk 'NR == 2 {print "size=" $2; print "free=" $4}'
echo "files=$(ulimit -Hn)"
echo "huge_pages=$(sed -n 's/.*\[\([a-z]*\)\].*/\1/p' /sys/kernel/mm/transparent_hugepage/enabled)"
cat /proc/net/tcp /proc/net/tcp6 | sed -n 's/^ *[0-9]*: /tcp=0: /p' | awk '$4 == "0A"'
for r in "$d0"/*/*.pid; do [ ! -r "$r" ] || sed -n 's/^port=/ours=/p' "$r"; done
k=$(units)
echo "systemd=$k"
if [ -n "$k" ]; then
    own=
    [ "$k" = system ] || { own=--user; export XDG_RUNTIME_DIR="${XDG_RUNTIME_DIR:-/run/user/$(id -u)}"; }
    for c in "$d0"/*/*.conf "$d0"/*/app/current; do
        [ -r "$c" ] || continue
        p=${c#"$d0"/}
        p=${p%%/*}
        n=${c##*/}
        if [ "$n" = current ]; then
            read -r n < "$c"
            ! systemctl $own is-active --quiet "flask-$p.service" ||
                sed -n 's/.*"bind": *".*:\([0-9]*\)".*/ours=\1/p' "${c%current}releases/$n/serve.json"
        else
            ! systemctl $own is-active --quiet "mongodb-$p-${n%.conf}.service" || sed -n 's/^ *port: */ours=/p' "$c"
        fi
    done
fi
echo "python=$("$2" -c 'import platform; print(platform.python_version())')"
shift 2
for t in "$@"; do command -v "$t" >/dev/null || echo "missing=$t"; done
