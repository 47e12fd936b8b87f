# shellcheck shell=sh
. lib/absolute.sh
. lib/incoming.sh
set -e
umask 077
f=$(absolute "$1")/$2
mkdir -p -- "$(dirname "$f")"
incoming "$f"
trap 'rm -f "$t"' EXIT
trap 'exit 1' HUP TERM INT
if command -v curl >/dev/null; then curl -fsSL --connect-timeout 3 "$4"
else wget -q -T 3 -t 1 -O - "$4"; fi | tar -xzOf - --wildcards "*/bin/$5" > "$t"
[ "$(sha256sum < "$t" | cut -d' ' -f1)" = "$3" ] || exit 65
chmod 0700 "$t"
mv -f "$t" "$f"
