# shellcheck shell=sh
rm -f "$1"/app/releases/*/.started
