#!/bin/sh
# Installs tunneld from the files beside this one, or updates it, on a machine with systemd. deploy.sh copies all of it there
# and runs this as root. An update drops no request; one that does not work leaves everything as it was.
set -eu

here=$(cd "$(dirname "$0")" && pwd)
program=/usr/local/bin/tunneld
restart=/usr/local/sbin/tunneld-restart
units=/etc/systemd/system
etc=/etc/tunneld

say() { printf '%s\n' "$*"; }
fail() {
    printf 'install: %s\n' "$*" >&2
    exit 1
}

# put MODE FILE TARGET: in one step, so that nobody ever sees half of it.
put() {
    mkdir -p "${3%/*}"
    install -m "$1" "$2" "$3.new"
    mv -f "$3.new" "$3"
}

# keep FILE, restore FILE: what was there before, if anything. None of these names has a space.
keep() { if [ -e "$1" ]; then cp -p "$1" "$1.old"; fi; }
restore() { if [ -e "$1.old" ]; then mv -f "$1.old" "$1"; fi; }

[ "$(id -u)" = 0 ] || fail "root alone can do that"
command -v systemctl >/dev/null || fail "there is no systemd here"
version=$("$here/tunneld" --version) || fail "this program does not run on $(uname -sm); build it for that, or on an older system"

id tunneld >/dev/null 2>&1 || systemd-sysusers "$here/tunneld.sysusers"
mkdir -p "$etc"
[ -d /var/lib/tunneld ] || install -d -m 700 -o tunneld -g tunneld /var/lib/tunneld
[ -e "$etc/secret" ] || (umask 077 && od -An -v -tx1 -N32 /dev/urandom | tr -d ' \n' >"$etc/secret")

# The new program judges the files that will be in force, before anything is replaced.
next=$etc/.next
rm -rf "$next"
mkdir -m 700 "$next"
trap 'rm -rf "$next"' EXIT
for file in "$etc"/*; do if [ -f "$file" ]; then cp -pL "$file" "$next"; fi; done
brought=""
for file in tunneld.toml server.pem server-key.pem; do
    if [ -e "$here/$file" ]; then
        install -m 600 "$here/$file" "$next/$file"
        brought="$brought $etc/$file"
    fi
done
[ -e "$next/tunneld.toml" ] || fail "there is no $etc/tunneld.toml; the first time say --config FILE, which deploy/tunneld.example.toml shows"
if ! "$here/tunneld" check --config "$next/tunneld.toml" >/dev/null 2>"$next/said"; then
    sed "s|$next/|$etc/|g" "$next/said" >&2
    fail "nothing was changed: $version refuses the configuration, for the reason above"
fi

replaced="$program $units/tunneld.service $restart$brought"
for file in $replaced; do keep "$file"; done
for file in $brought; do mv -f "$next/${file##*/}" "$file"; done
put 755 "$here/tunneld" "$program"
put 755 "$here/tunneld-restart" "$restart"
sed "s|^ExecStart=/usr/bin/tunneld |ExecStart=$program |" "$here/tunneld.service" >"$here/service"
put 644 "$here/service" "$units/tunneld.service"
if [ ! -e "$units/tunneld.socket" ]; then
    # Where the configuration listens, and its admin interface; from then on this file is the administrator's.
    addresses=$("$program" check --sockets --config "$etc/tunneld.toml")
    { sed '/ListenStream=/d; /^# The admin interface/d; /^Backlog=/d' "$here/tunneld.socket" | sed '/^\[Install\]/,$d'
        for address in $addresses; do say "ListenStream=$address"; done
        printf 'Backlog=4096\n\n[Install]\nWantedBy=sockets.target\n'; } >"$here/socket"
    put 644 "$here/socket" "$units/tunneld.socket"
fi
systemctl daemon-reload

if systemctl is-active --quiet tunneld.service; then
    if ! "$restart"; then
        for file in $replaced; do restore "$file"; done
        systemctl daemon-reload
        fail "nothing was changed: $version does not start, for the reason above"
    fi
    say "updated to $version"
else
    systemctl enable --now tunneld.socket tunneld.service ||
        fail "$version is installed and does not start: journalctl -u tunneld says why; mend it and run this again"
    say "installed $version"
fi
