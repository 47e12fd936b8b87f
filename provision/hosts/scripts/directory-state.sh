# shellcheck shell=sh
. lib/absolute.sh
d=$(absolute "$1")
if [ ! -d "$d" ]; then echo "absent $d"
elif [ ! -w "$d" ] || [ "$(stat -c %a "$d")" != 700 ]; then echo "drifted $d"
else echo "right $d"; fi
