# shellcheck shell=sh
. lib/binary.sh
cat > "$t"
arrived
