# shellcheck shell=sh
# shellcheck disable=SC2086 # $units are several words
# Arguments: node and unit, in turn.
. lib/systemd.sh
cd "$here" || exit 1
umask 077
units=
while [ $# -gt 0 ]; do
    mkdir -p "$1" || exit 1
    systemctl $own link --quiet "$here/$2" || exit 1
    units="$units $2"
    shift 2
done
systemctl $own daemon-reload && systemctl $own reset-failed $units 2>/dev/null
systemctl $own enable --quiet $units && systemctl $own start $units
