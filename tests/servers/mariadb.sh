# MariaDB 10.11 or newer.
mariadb_bin() {
    local found
    found=$(PATH="$PATH:/usr/sbin" command -v mariadbd || true)
    echo "$found"
}
mariadb_installed() { [ -n "$(mariadb_bin)" ] && command -v mariadb-install-db >/dev/null; }
mariadb_packages() { echo mariadb-server; }
mariadb_container_port() { echo 3306; }
mariadb_url() { echo "mysql://root@127.0.0.1:$1/test"; }
mariadb_start() {
    local dir=$1 port=$2
    as_server_user mariadb-install-db --no-defaults --datadir="$dir/data" --auth-root-authentication-method=normal --skip-log-bin >"$dir.install.log" 2>&1 \
        || { cat "$dir.install.log" >&2; die "mariadb-install-db failed"; }
    spawn TERM "$(mariadb_bin)" --no-defaults --datadir="$dir/data" --port="$port" --socket="$dir/mariadb.sock" --bind-address=127.0.0.1 \
        --pid-file="$dir/mariadb.pid" --innodb-flush-log-at-trx-commit=2 --max-connections=400
    await MariaDB mariadb --no-defaults -h 127.0.0.1 -P "$port" -u root -e 'CREATE DATABASE IF NOT EXISTS test'
}
