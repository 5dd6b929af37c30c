# Redis 7 or newer.
redis_installed() { command -v redis-server >/dev/null; }
redis_packages() { echo redis-server; }
redis_container_port() { echo 6379; }
redis_url() { echo "redis://127.0.0.1:$1"; }
redis_start() {
    local dir=$1 port=$2
    spawn TERM redis-server --port "$port" --bind 127.0.0.1 --dir "$dir" --save "" --appendonly yes
    await Redis listening "$port"
}
