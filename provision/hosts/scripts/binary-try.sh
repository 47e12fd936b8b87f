# shellcheck shell=sh
. lib/absolute.sh
f=$(absolute "$1")/$2
shift 2
said=$(env "$@" "$f" --version 2>&1) || { s=$?; printf '%s\n' "$said" >&2; exit $s; }
printf '%s\n' "$said" | head -n 1 > "$f.version"
cat "$f.version"
