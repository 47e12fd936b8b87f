# shellcheck shell=sh
. lib/absolute.sh
f=$(absolute "$1")/$2
[ -x "$f" ] && [ "$(stat -c %s "$f")" = "$3" ]
