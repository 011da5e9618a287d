#!/usr/bin/env bash
# Installs tunneld on a server, or updates it there without dropping a request. Only ssh is needed.
set -euo pipefail

USAGE='Usage: deploy/deploy.sh [OPTION...] [USER@]HOST [SSH OPTION...]

Installs tunneld on a server with systemd, or updates it there without dropping a request.

  --config FILE    the configuration, for /etc/tunneld/tunneld.toml; needed the first time
  --tls-cert FILE  the certificate, for /etc/tunneld/server.pem
  --tls-key FILE   its private key, for /etc/tunneld/server-key.pem
  --binary FILE    the program; else it is built, and taken from target/release
  --help           this text

The secret that signs tokens is made on the server, the first time.

Without root, USER must be allowed to use sudo without a password. The new program checks the configuration before
anything is replaced; if it does not start, the old one goes on with what it had.

Examples:
  deploy/deploy.sh --config tunneld.toml --tls-cert fullchain.pem --tls-key privkey.pem root@tunnel.example.com
  deploy/deploy.sh root@tunnel.example.com -p 2222     the next version, by an ssh on another port'

HERE="$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)"

die() {
    printf 'deploy.sh: %s\n' "$*" >&2
    exit 1
}
usage() {
    printf '%s\n' "$USAGE" >&2
    exit 64
}

main() {
    local host
    STAGE="$(mktemp -d)"
    trap 'rm -rf "$STAGE"' EXIT
    while (($# > 0)); do
        case "$1" in
        --config) stage tunneld.toml "$@" && shift 2 ;;
        --tls-cert) stage server.pem "$@" && shift 2 ;;
        --tls-key) stage server-key.pem "$@" && shift 2 ;;
        --binary) stage tunneld "$@" && shift 2 ;;
        --help | -h) printf '%s\n' "$USAGE" && return ;;
        -*) usage ;;
        *) break ;;
        esac
    done
    (($# > 0)) || usage
    host=$1
    shift
    SSH=(ssh "$@" "$host")

    if [[ ! -e $STAGE/tunneld ]]; then
        cargo build --release --locked --package tunneld --manifest-path "$HERE/../Cargo.toml"
        cp "$HERE/../target/release/tunneld" "$STAGE"
    fi
    chmod 755 "$STAGE/tunneld"
    cp "$HERE"/{install.sh,tunneld-restart,tunneld.service,tunneld.socket,tunneld.sysusers} "$STAGE"

    # One connection: the files, and then what to do with them. They are gone again in any case.
    # shellcheck disable=SC2016 # the server expands it
    tar -C "$STAGE" -c . | "${SSH[@]}" '
        set -e
        stage=$(mktemp -d /var/tmp/tunneld.XXXXXX)
        trap "rm -rf \"$stage\"" EXIT
        tar -C "$stage" -x --no-same-owner -f -
        if [ "$(id -u)" = 0 ]; then sh "$stage/install.sh"; else sudo -n sh "$stage/install.sh"; fi'
}

# stage NAME FLAG FILE...: what is to be copied.
stage() {
    (($# > 2)) || usage
    [[ -f $3 ]] || die "$2: there is no file $3"
    cp "$3" "$STAGE/$1"
}

main "$@"
