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
cat > "$t"
[ "$(sha256sum < "$t" | cut -d' ' -f1)" = "$3" ] || exit 65
chmod 0700 "$t"
mv -f "$t" "$f"
