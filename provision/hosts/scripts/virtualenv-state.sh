# shellcheck shell=sh
# $1: data_dir; $2: the virtualenv's name. What is in it is compared with what was in it when it was complete.
. lib/absolute.sh
. lib/packages.sh
d=$(absolute "$1")/env/$2
if [ ! -s "$d/.complete" ]; then echo absent
elif packages "$d" 2>/dev/null | cmp -s - "$d/.complete" && "$d/bin/python" -I -c "import gunicorn.app.base" 2>/dev/null
then echo right
else echo drifted; fi
