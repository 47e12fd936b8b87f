#!/bin/sh
# Run a mongod on data in a folder that is mounted at /s, until the standard input ends: that comes with the end of the
# command that started it, however that ended. Its files go to the folder's owner then.
#
# open_folder.sh MONGOD-OPTION...
set -u

exec 3<&0 # a command in the background has no standard input of its own
mongod "$@" &
mongod=$!
{
    while read -r _ <&3; do :; done
    kill -TERM "$mongod"
} &
status=0
wait "$mongod" || status=$?
chown -R "$(stat -c %u:%g /s)" /s
exit "$status"
