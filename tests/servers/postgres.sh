# PostgreSQL 14 or newer.
postgres_bin() {
    local found
    found=$(command -v initdb || ls -d /usr/lib/postgresql/*/bin/initdb /opt/homebrew/opt/postgresql*/bin/initdb 2>/dev/null | sort -V | tail -n 1)
    [ -n "$found" ] && dirname "$(readlink -f "$found")"
}
postgres_installed() { [ -n "$(postgres_bin)" ]; }
postgres_packages() { echo postgresql; }
postgres_container_port() { echo 5432; }
postgres_url() { echo "postgres://postgres@127.0.0.1:$1/postgres"; }
postgres_start() {
    local dir=$1 port=$2 bin
    bin=$(postgres_bin)
    as_server_user "$bin/initdb" -D "$dir/data" -U postgres --auth=trust --encoding=UTF8 --no-locale --no-sync >"$dir.initdb.log" 2>&1 \
        || { cat "$dir.initdb.log" >&2; die "initdb failed"; }
    # The tests kill processes, not the machine: fsync buys nothing here. Who measures says otherwise in POSTGRES_OPTIONS.
    # shellcheck disable=SC2086
    spawn QUIT "$bin/postgres" -D "$dir/data" -p "$port" -k "$dir" -c listen_addresses=127.0.0.1 -c fsync=off -c max_connections=400 ${POSTGRES_OPTIONS:-}
    await PostgreSQL "$bin/pg_isready" -q -h 127.0.0.1 -p "$port"
}
