# NATS with JetStream.
nats_bin() { PATH="$PATH:/usr/sbin" command -v nats-server || true; }
nats_installed() { [ -n "$(nats_bin)" ]; }
nats_packages() { echo nats-server; }
nats_container_port() { echo 4222; }
nats_url() { echo "nats://127.0.0.1:$1"; }
nats_start() {
    local dir=$1 port=$2
    spawn TERM "$(nats_bin)" -a 127.0.0.1 -p "$port" -js -sd "$dir"
    await NATS listening "$port"
}
