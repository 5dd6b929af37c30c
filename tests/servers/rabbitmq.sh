# RabbitMQ 3.10 or newer. Its name service (epmd) gets a port of its own, so that no daemon outlives the run.
rabbitmq_bin() { ls /usr/lib/rabbitmq/bin/rabbitmq-server 2>/dev/null || command -v rabbitmq-server || true; }
rabbitmq_installed() { [ -n "$(rabbitmq_bin)" ]; }
rabbitmq_packages() { echo rabbitmq-server; }
rabbitmq_container_port() { echo 5672; }
rabbitmq_url() { echo "amqp://guest:guest@127.0.0.1:$1"; }
rabbitmq_start() {
    local dir=$1 port=$2
    epmd_port=$(free_port)
    : >"$dir/enabled_plugins"
    printf '[].\n' >"$dir/enabled_plugins"
    chmod -R a+rX "$dir"
    spawn TERM env ERL_EPMD_PORT="$epmd_port" ERL_EPMD_ADDRESS=127.0.0.1 RABBITMQ_NODENAME="mainstay$port@localhost" RABBITMQ_NODE_IP_ADDRESS=127.0.0.1 \
        RABBITMQ_NODE_PORT="$port" RABBITMQ_DIST_PORT="$(free_port)" RABBITMQ_MNESIA_BASE="$dir/mnesia" RABBITMQ_LOG_BASE="$dir/log" \
        RABBITMQ_PID_FILE="$dir/pid" RABBITMQ_ENABLED_PLUGINS_FILE="$dir/enabled_plugins" RABBITMQ_CONF_ENV_FILE="$dir/none" \
        RABBITMQ_CONFIG_FILE="$dir/rabbitmq" RABBITMQ_ADVANCED_CONFIG_FILE="$dir/none" "$(rabbitmq_bin)"
    await RabbitMQ listening "$port"
}
