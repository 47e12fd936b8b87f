# shellcheck shell=sh
# $3: seconds to wait before SIGKILL; 0: SIGKILL at once. Then the names of units.
. lib/systemd.sh
patience=$1
shift
[ "$patience" != 0 ] || systemctl $own kill --signal=KILL "$@" 2>/dev/null
timeout --signal=KILL "$((patience + 10))" systemctl $own stop "$@"
systemctl $own kill --signal=KILL "$@" 2>/dev/null
systemctl $own reset-failed "$@" 2>/dev/null
true
