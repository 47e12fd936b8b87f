# shellcheck shell=sh
. lib/started.sh
here=$1
shift
read -r boot < /proc/sys/kernel/random/boot_id
alive() {
    pid='' start='' on=''
    [ -r "$here/$1.pid" ] || return 1
    while IFS='=' read -r key value; do
        case $key in pid) pid=$value ;; start) start=$value ;; boot) on=$value ;; esac
    done < "$here/$1.pid"
    [ -n "$pid" ] && [ "$on" = "$boot" ] && started "$pid" && [ "$start_now" = "$start" ]
}
