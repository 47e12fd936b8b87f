# shellcheck shell=sh
# sha256_of FILE: prints it. openssl, which a host need not have, is several times as fast as sha256sum.
sha256_of() {
    sum=$(openssl dgst -sha256 -r < "$1" 2>/dev/null) || sum=$(sha256sum < "$1")
    echo "${sum%% *}"
}
