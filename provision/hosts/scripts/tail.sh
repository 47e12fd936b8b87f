# shellcheck shell=sh
[ ! -r "$1" ] || tail -n "$3" "$1"
printf '\n\036\n'
[ ! -r "$2" ] || tail -n "$3" "$2"
