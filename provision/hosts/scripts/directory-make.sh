# shellcheck shell=sh
. lib/absolute.sh
d=$(absolute "$1")
echo "$d"
umask 077
if mkdir -p -- "$d" && chmod 0700 -- "$d" && [ -w "$d" ]; then exit 0; fi
if [ ! -e "$d" ] && sudo -n true 2>/dev/null; then
    exec sudo -n install -d -m 0700 -o "$(id -u)" -g "$(id -g)" "$d"
fi
exit 77
