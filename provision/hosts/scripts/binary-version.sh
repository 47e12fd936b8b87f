# shellcheck shell=sh
. lib/absolute.sh
f=$(absolute "$1")/$2
[ -s "$f.version" ] && cat "$f.version"
