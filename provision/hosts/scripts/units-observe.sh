# shellcheck shell=sh
# Arguments: node and unit, in turn.
. lib/started.sh
. lib/systemd.sh
while [ $# -gt 0 ]; do
    node=$1 unit=$2
    shift 2
    state='' sub='' status='' code='' pid='' frozen=''
    while IFS='=' read -r key value; do
        case $key in
            ActiveState) state=$value ;; SubState) sub=$value ;;
            ExecMainStatus) status=$value ;; ExecMainCode) code=$value ;; MainPID) pid=$value ;;
        esac
    done <<END
$(systemctl $own show "$unit" -p ActiveState -p SubState -p ExecMainStatus -p ExecMainCode -p MainPID)
END
    started "${pid:-0}" || frozen=
    # 2: it was ended by a signal, as a shell would say it.
    [ "$code" != 2 ] || status=$((128 + status))
    case $state:$sub in
        *:auto-restart|failed:*) echo "$node ended $status" ;;
        active:*|activating:*|reloading:*|deactivating:*) echo "$node running $pid $frozen" ;;
        *) echo "$node absent" ;;
    esac
done
