#!/bin/sh
# The data of nodes in Docker's volumes, each mounted at /v/NODE: copied out of them and in, and swapped for others.
# A volume is the data folder itself and can't be renamed. So its entries move, all within the volume; a file named
# .complete says that all that was there has moved. Each action can be done again from wherever it was cut off.
#
# data_folders.sh out|in NODE:FOLDER...   copies /v/NODE to /s/FOLDER, or /s/FOLDER to what is incoming of NODE
# data_folders.sh size|room|data|take|discard|forward|back|keep NODE...
set -eu

# Whether an entry belongs to the swap, or to snapshots, and not to the data.
own() {
    case ${1##*/} in
        .incoming | .replaced | .returning | .undo | .trash | .complete | .undone) return 0 ;;
    esac
    return 1
}

there() { [ -e "$1" ] || [ -L "$1" ]; }

# Move, or copy, what is named behind two folders into the second of them.
move_named() {
    to=$2
    shift 2
    [ $# -eq 0 ] || mv -f "$@" "$to/"
}

copy_named() {
    to=$2
    shift 2
    [ $# -eq 0 ] || cp "$@" "$to/"
}

# Move all data in one folder to another. Many at a time: to start a program takes longer than to move a file.
move_all() {
    for entry in "$1"/* "$1"/.[!.]*; do
        if there "$entry" && ! own "$entry"; then
            set -- "$@" "$entry"
            if [ $# -ge 200 ]; then
                move_named "$@"
                set -- "$1" "$2"
            fi
        fi
    done
    move_named "$@"
}

# Copy all data in one folder to another, but for what a mongod makes anew.
copy_all() {
    for entry in "$1"/* "$1"/.[!.]*; do
        case ${entry##*/} in
            mongod.lock | diagnostic.data | _tmp | WiredTigerPreplog*) continue ;;
        esac
        if own "$entry" || ! there "$entry" || [ -S "$entry" ]; then
            continue
        fi
        if [ -d "$entry" ]; then
            mkdir "$2/${entry##*/}"
            copy_all "$entry" "$2/${entry##*/}"
        else
            set -- "$@" "$entry"
            if [ $# -ge 200 ]; then
                copy_named "$@"
                set -- "$1" "$2"
            fi
        fi
    done
    copy_named "$@"
}

# Delete what is incoming; what was the undo becomes that again.
discard() {
    if [ -e "$1/.incoming/.undone" ]; then
        rm -f "$1/.incoming/.undone"
        mv "$1/.incoming" "$1/.undo"
    fi
    rm -rf "$1/.incoming"
}

action=$1
shift
for argument; do
    node=${argument%%:*}
    folder=${argument#*:}
    data=/v/$node
    case $action in
        out)
            mkdir "/s/$folder"
            copy_all "$data" "/s/$folder"
            chown -R "$(stat -c %u:%g /s)" "/s/$folder"
            ;;
        in)
            discard "$data"
            mkdir "$data/.incoming"
            copy_all "/s/$folder" "$data/.incoming"
            chown -R "$(stat -c %u:%g "$data")" "$data/.incoming"
            ;;
        size)
            if [ -e "$data/WiredTiger" ]; then
                du -sk "$data" | cut -f 1
            fi
            ;;
        room)
            df -Pk "$data" | tail -n 1
            ;;
        data)
            if [ -e "$data/WiredTiger" ]; then
                printf '%s\n' "$node"
            fi
            ;;
        take)
            discard "$data"
            if [ -d "$data/.undo" ]; then
                : > "$data/.undo/.undone"
                rm -f "$data/.undo/.complete"
                mv "$data/.undo" "$data/.incoming"
                printf '%s\n' "$node"
            fi
            ;;
        discard)
            discard "$data"
            ;;
        forward)
            if [ -d "$data/.incoming" ]; then
                if [ ! -e "$data/.replaced/.complete" ]; then
                    mkdir -p "$data/.replaced"
                    move_all "$data" "$data/.replaced"
                    : > "$data/.replaced/.complete"
                    sync
                fi
                move_all "$data/.incoming" "$data"
            fi
            ;;
        back)
            if [ -e "$data/.replaced/.complete" ]; then
                mkdir -p "$data/.incoming"
                move_all "$data" "$data/.incoming"
                mv "$data/.replaced" "$data/.returning"
            elif [ -d "$data/.replaced" ]; then
                mv "$data/.replaced" "$data/.returning"
            fi
            if [ -d "$data/.returning" ]; then
                rm -f "$data/.returning/.complete"
                move_all "$data/.returning" "$data"
                rmdir "$data/.returning"
            fi
            discard "$data"
            ;;
        keep)
            if [ -d "$data/.replaced" ]; then
                rm -rf "$data/.undo"
                mv "$data/.replaced" "$data/.undo"
            fi
            rm -rf "$data/.incoming"
            ;;
    esac
done
sync
