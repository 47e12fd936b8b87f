# shellcheck shell=sh
for each in "$1/app" "$1/app.pid" "$1/app.out"; do [ ! -e "$each" ] || echo "$each"; done
