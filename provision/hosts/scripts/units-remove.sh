# shellcheck shell=sh
# Arguments: the names of units. They are unknown to systemd afterwards.
. lib/systemd.sh
systemctl $own disable --quiet "$@" 2>/dev/null
for unit in "$@"; do rm -f "$here/$unit"; done
systemctl $own daemon-reload
