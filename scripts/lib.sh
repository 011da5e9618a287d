# shellcheck shell=bash
# Shared by the scripts: where things are, how to get a missing tool, how to run programs in the background and leave
# nothing behind, and how to start tunneld with a desktop behind it. Sourced, never run; the caller has set -euo pipefail.

ROOT="$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)"
export ROOT
export CACHE="$ROOT/.cache" # whatever the scripts download or build for themselves; never committed

say() { printf '%s\n' "$*"; }
die() {
    printf '%s: %s\n' "${0##*/}" "$*" >&2
    exit 1
}
have() { command -v "$1" >/dev/null 2>&1; }

# need TOOL PACKAGE: makes sure that TOOL is there, installing Debian's PACKAGE where that is possible without asking.
# Returns 1, having said what to do, where it is not.
need() {
    have "$1" && return
    if have apt-get && [[ $(id -u) == 0 ]]; then
        say "    installing $2"
        export DEBIAN_FRONTEND=noninteractive RUNLEVEL=1 # ask nothing, start no service
        { apt-get update && apt-get install -y --no-install-recommends "$2"; } </dev/null >"$CACHE/apt.log" 2>&1 || true
        hash -r
        have "$1" && return
    fi
    say "    $1 is missing: install the package $2 (on Debian: sudo apt-get install $2)"
    return 1
}

# --- Programs in the background. Each gets its own process group, so that Ctrl-C reaches this script alone, which then
# --- stops them in order, last started first.

GROUPS_STARTED=()
WORK="" # a temporary folder, removed at the end

# leave_nothing_behind: makes $WORK, and arranges that it and every program of `background` are gone when the script ends.
leave_nothing_behind() {
    unset "${!TUNNEL@}" # settings of tunneld and tunnel: here only flags count
    WORK="$(mktemp -d "${TMPDIR:-/tmp}/tunnel.XXXXXX")"
    trap stop_everything EXIT
    trap 'exit 130' INT
    trap 'exit 143' TERM HUP
}

# background LOG COMMAND...: starts it with its output in LOG and its process id in $STARTED.
background() {
    local log=$1
    shift
    : >"$log" # it may be read before the program is there
    set -m
    "$@" </dev/null >"$log" 2>&1 &
    STARTED=$!
    set +m
    GROUPS_STARTED+=("$STARTED")
}

# running PID...: whether each still runs.
running() {
    local pid
    for pid in "$@"; do kill -0 "$pid" 2>/dev/null || return 1; done
}

# stop PID: asks the program and its children to end, and insists after 5 s.
stop() {
    local tries
    kill -TERM -- "-$1" 2>/dev/null || return 0
    for ((tries = 0; tries < 50; tries++)); do
        kill -0 -- "-$1" 2>/dev/null || break
        sleep 0.1
    done
    kill -KILL -- "-$1" 2>/dev/null || true
    wait "$1" 2>/dev/null || true
}

stop_everything() {
    local i
    trap '' INT TERM HUP
    for ((i = ${#GROUPS_STARTED[@]} - 1; i >= 0; i--)); do stop "${GROUPS_STARTED[i]}"; done
    GROUPS_STARTED=()
    if [[ -n $WORK ]]; then rm -rf "$WORK"; fi
}

# wait_until SECONDS PID COMMAND...: runs COMMAND every 0.1 s until it succeeds; 1 when the time is over or PID has ended.
wait_until() {
    local tries=$(($1 * 10)) pid=$2
    shift 2
    while ! "$@"; do
        running "$pid" && ((tries-- > 0)) || return 1
        sleep 0.1
    done
}

# port_in LOG: the port that the program writing LOG says it listens on; 1 while it has not said so.
port_in() {
    local port
    port="$(sed -n 's/\x1b\[[0-9;]*m//g; s/.*listening.*[:.0-9]:\([0-9][0-9]*\).*/\1/p' "$1" | head -n 1)"
    [[ -n $port ]] && printf '%s\n' "$port"
}

# isolated [UNSHARE OPTION...] -- COMMAND...: runs it in mount and process namespaces of its own; all that it starts ends with it.
isolated() {
    local options=()
    while [[ $1 != -- ]]; do options+=("$1") && shift; done
    shift
    OUTSIDE="$(readlink /proc/self/ns/mnt)" unshare --mount --propagation private --pid --fork --kill-child --mount-proc "${options[@]}" "$@"
}

# own_folders FOLDER...: for a command of `isolated`. What is written there goes on top of what is there, in memory and for this
# command alone; /run is empty.
own_folders() {
    local folder name
    [[ -n ${OUTSIDE:-} && $(readlink /proc/self/ns/mnt) != "$OUTSIDE" ]] || die "this would change the machine itself: no namespace of its own"
    mkdir "$WORK/over"
    mount -t tmpfs tmpfs "$WORK/over"
    for folder in "$@"; do
        name=${folder//\//-}
        mkdir "$WORK/over/$name" "$WORK/over/$name.work"
        mount -t overlay -o "lowerdir=$folder,upperdir=$WORK/over/$name,workdir=$WORK/over/$name.work" overlay "$folder"
    done
    mount -t tmpfs tmpfs /run
}

# --- tunneld, and a desktop behind it.

# build PROFILE [PACKAGE...]: builds these programs, or all; sets $BIN, the folder they are in. Scripts of developers
# build all: cargo builds anew what programs share when another choice of them asks for other features of it.
build() {
    local profile=$1 packages=(--workspace)
    shift
    if (($# > 0)); then packages=("${@/#/--package=}"); fi
    have cargo || die "cargo is missing: install Rust first (https://rustup.rs)"
    need cc build-essential || exit 1
    cargo build --locked --profile "$profile" --manifest-path "$ROOT/Cargo.toml" \
        "${packages[@]}" --bins || die "the build failed"
    BIN="$(cargo metadata --locked --no-deps --format-version 1 --manifest-path "$ROOT/Cargo.toml" |
        sed -n 's/.*"target_directory":"\([^"]*\)".*/\1/p')"
    BIN="$BIN/$([[ $profile == dev ]] && echo debug || echo "$profile")"
}

# start_server [FLAG...]: makes a certificate and a secret in $WORK and starts tunneld on a free port. Sets $URL, $CA and
# $SERVER, and exports what `tunneld token` needs.
start_server() {
    local port
    "$BIN/tunneld" certs --out "$WORK/certs" --host localhost --host 127.0.0.1 >"$WORK/certs.log" 2>&1 ||
        die "$(<"$WORK/certs.log")"
    CA="$WORK/certs/ca.pem"
    (umask 077 && head -c 32 /dev/urandom | od -An -v -tx1 | tr -d ' \n' >"$WORK/secret")
    background "$WORK/tunneld.log" "$BIN/tunneld" serve --listen 127.0.0.1:0 \
        --tls-cert "$WORK/certs/server.pem" --tls-key "$WORK/certs/server-key.pem" --jwt-secret-file "$WORK/secret" \
        --log-level info "$@"
    SERVER=$STARTED
    wait_until 10 "$SERVER" port_in "$WORK/tunneld.log" >/dev/null || {
        cat "$WORK/tunneld.log" >&2
        die "tunneld did not start; it said the above"
    }
    port="$(port_in "$WORK/tunneld.log")"
    URL="https://localhost:$port"
}

# token FILE USER [FLAG...]: mints a token into FILE.
token() {
    local file=$1 user=$2
    shift 2
    (umask 077 && "$BIN/tunneld" token --jwt-secret-file "$WORK/secret" --user "$user" "$@" >"$file" 2>"$WORK/token.log") ||
        die "$(<"$WORK/token.log")"
}

# start_desktop USER UPSTREAM [FLAG...]: starts a client of USER in front of UPSTREAM and waits until the server has it.
# The token that it and its user's callers share is in $WORK/USER.token, its process id in $DESKTOP.
start_desktop() {
    local user=$1 upstream=$2
    shift 2
    token "$WORK/$user.token" "$user" --scope connect,proxy --ttl 12h
    background "$WORK/tunnel-$user.log" "$BIN/tunnel" connect --token-file "$WORK/$user.token" --server "$URL" \
        --to "$upstream" --ca "$CA" --log-level info "$@"
    DESKTOP=$STARTED
    wait_until 10 "$DESKTOP" connected "$user" || {
        cat "$WORK/tunnel-$user.log" >&2
        die "the client did not connect; it said the above"
    }
}

# connected USER: whether the server says that a desktop of USER is there.
connected() {
    curl -s --max-time 2 --cacert "$CA" -H "Authorization: Bearer $(<"$WORK/$1.token")" "$URL/api/tunnel/status" |
        grep -q '"connected":true'
}
