# shellcheck shell=sh
# The deployment's directory, absolute, and the kind of systemd units that this user can have.
. lib/absolute.sh
. lib/units.sh
absolute "$1"
echo
units
