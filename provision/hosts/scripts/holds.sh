# shellcheck shell=sh
# $2: a port, as /proc/net/tcp writes it; $3: a process. Prints whether the port is free, that process's, or another's;
# "unknown" where this user may not look at the process.
sockets=$(cat /proc/net/tcp /proc/net/tcp6 2>/dev/null |
    awk -v port=":$2" '$4 == "0A" && substr($2, length($2) - 4) == port { print $10 }')
[ -n "$sockets" ] || { echo free; exit 0; }
opened=$(ls -l "/proc/$3/fd" 2>/dev/null) || { [ ! -d "/proc/$3" ] && echo other || echo unknown; exit 0; }
for each in $sockets; do
    case $opened in *"socket:[$each]"*) echo own; exit 0 ;; esac
done
echo other
