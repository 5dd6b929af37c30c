//! The programs of the servers: where they are, how they are started, and how one knows that they answer.
//!
//! As `tests/servers` has them, where the same programs are found and started for tests that kill nothing.
#![cfg_attr(
    not(all(
        feature = "mysql",
        feature = "nats",
        feature = "rabbitmq",
        feature = "redis"
    )),
    allow(dead_code, reason = "for the servers that are left out")
)]

use std::{
    env, fs,
    net::TcpListener,
    path::{Path, PathBuf},
    process::{Child, Command, Output, Stdio},
};

use sqlx::Connection;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Program {
    Postgres,
    MariaDb,
    Redis,
    Nats,
    RabbitMq,
}

/// How a prepared server is started, each time.
pub struct Start {
    program: PathBuf,
    arguments: Vec<String>,
    environment: Vec<(&'static str, String)>,
    folder: PathBuf,
    /// RabbitMQ's name service. Not started beforehand, the server would start one that outlives it.
    epmd: Option<Child>,
}

impl Program {
    pub const fn name(self) -> &'static str {
        match self {
            Self::Postgres => "postgres",
            Self::MariaDb => "mariadb",
            Self::Redis => "redis",
            Self::Nats => "nats",
            Self::RabbitMq => "rabbitmq",
        }
    }

    pub fn url(self, port: u16) -> String {
        match self {
            Self::Postgres => format!("postgres://postgres@127.0.0.1:{port}/postgres"),
            Self::MariaDb => format!("mysql://root@127.0.0.1:{port}/mysql"),
            Self::Redis => format!("redis://127.0.0.1:{port}"),
            Self::Nats => format!("nats://127.0.0.1:{port}"),
            Self::RabbitMq => format!("amqp://guest:guest@127.0.0.1:{port}"),
        }
    }

    /// What ends it for good, at once.
    pub const fn last_signal(self) -> &'static str {
        match self {
            Self::Postgres => "-QUIT",
            _ => "-KILL",
        }
    }

    /// Makes its data, and says how it is started.
    pub fn prepare(self, folder: &Path, port: u16) -> Start {
        let path = |name: &str| folder.join(name).display().to_string();
        let mut start = Start {
            program: self.find(),
            arguments: Vec::new(),
            environment: Vec::new(),
            folder: folder.to_owned(),
            epmd: None,
        };
        let mut arguments = |text: &str| {
            start
                .arguments
                .extend(text.split_whitespace().map(str::to_owned));
        };
        match self {
            // What dies is a process and not the machine: what it gave the operating system is kept, with fsync or without.
            Self::Postgres => {
                let data = path("data");
                arguments(&format!("-D {data} -p {port} -k {}", folder.display()));
                arguments(
                    "-c listen_addresses=127.0.0.1 -c fsync=off -c max_prepared_transactions=8",
                );
                let initdb = start.program.with_file_name("initdb");
                let mut make = start.as_server_user(&initdb);
                make.args(["-D", &data, "-U", "postgres", "--auth=trust", "--no-sync"]);
                make.args(["--encoding=UTF8", "--no-locale"]);
                run(&mut make);
            }
            // At 2 each commit is written to the operating system, for the same reason.
            Self::MariaDb => {
                // One that starts deletes what it takes for remains of temporary tables, also those of others.
                start.environment = vec![("TMPDIR", folder.display().to_string())];
                let (data, socket) = (path("data"), path("socket"));
                arguments(&format!("--no-defaults --datadir={data} --socket={socket}"));
                arguments(&format!("--port={port} --bind-address=127.0.0.1"));
                arguments(&format!("--pid-file={}", path("pid")));
                arguments("--innodb-flush-log-at-trx-commit=2");
                let mut make = start.as_server_user(&find("mariadb-install-db", self));
                make.args(["--no-defaults", "--auth-root-authentication-method=normal"]);
                make.args([&format!("--datadir={data}"), "--skip-log-bin"]);
                run(&mut make);
            }
            Self::Redis => {
                arguments(&format!("--port {port} --bind 127.0.0.1 --appendonly yes"));
                arguments(&format!("--appendfsync always --dir {}", folder.display()));
            }
            Self::Nats => arguments(&format!(
                "-a 127.0.0.1 -p {port} -js -sd {}",
                folder.display()
            )),
            Self::RabbitMq => {
                let [epmd, distribution] = [free_port(), free_port()];
                fs::write(folder.join("plugins"), "[].\n").unwrap();
                start.environment = vec![
                    ("ERL_EPMD_PORT", epmd.to_string()),
                    ("ERL_EPMD_ADDRESS", "127.0.0.1".to_owned()),
                    ("RABBITMQ_NODENAME", format!("mainstay{port}@localhost")),
                    ("RABBITMQ_NODE_IP_ADDRESS", "127.0.0.1".to_owned()),
                    ("RABBITMQ_NODE_PORT", port.to_string()),
                    ("RABBITMQ_DIST_PORT", distribution.to_string()),
                    ("RABBITMQ_MNESIA_BASE", path("mnesia")),
                    ("RABBITMQ_LOG_BASE", path("log")),
                    ("RABBITMQ_PID_FILE", path("pid")),
                    ("RABBITMQ_ENABLED_PLUGINS_FILE", path("plugins")),
                    ("RABBITMQ_CONF_ENV_FILE", path("none")),
                    ("RABBITMQ_CONFIG_FILE", path("rabbitmq")), // with `.conf`, if there is one
                    ("RABBITMQ_ADVANCED_CONFIG_FILE", path("none")),
                ];
                let mut names = start.as_server_user(&find("epmd", self));
                start.epmd = Some(names.stdin(Stdio::null()).spawn().unwrap());
            }
        }
        start
    }

    fn find(self) -> PathBuf {
        match self {
            Self::Postgres => find("postgres", self),
            Self::MariaDb => find("mariadbd", self),
            Self::Redis => find("redis-server", self),
            Self::Nats => find("nats-server", self),
            Self::RabbitMq => find("rabbitmq-server", self),
        }
    }
}

impl Start {
    pub fn add_arguments(&mut self, arguments: Vec<String>) {
        self.arguments.extend(arguments);
    }

    pub fn command(&self) -> Command {
        let mut command = self.as_server_user(&self.program);
        command.args(&self.arguments);
        command
    }

    /// Another program of the server's, in its environment. Databases refuse to run as root, and programs that talk to
    /// RabbitMQ want its user's home.
    pub fn as_server_user(&self, program: &Path) -> Command {
        let mut command = if is_root() {
            let group = run(Command::new("id").args(["-g", "nobody"]));
            let group = String::from_utf8(group.stdout).unwrap();
            let mut command = Command::new("setpriv");
            command.args(["--reuid=nobody", "--clear-groups"]);
            command
                .arg(format!("--regid={}", group.trim()))
                .arg(program);
            command
        } else {
            Command::new(program)
        };
        command.current_dir(&self.folder).env("HOME", &self.folder);
        command.envs(self.environment.iter().map(|(name, value)| (name, value)));
        command
    }
}

impl Drop for Start {
    fn drop(&mut self) {
        if let Some(epmd) = &mut self.epmd {
            let _ = epmd.kill();
            let _ = epmd.wait();
        }
    }
}

/// Whether it takes connections and answers.
pub async fn is_ready(program: Program, port: u16) -> bool {
    let url = program.url(port);
    match program {
        Program::Postgres => sqlx::PgConnection::connect(&url).await.is_ok(),
        #[cfg(feature = "mysql")]
        Program::MariaDb => sqlx::MySqlConnection::connect(&url).await.is_ok(),
        // It says LOADING while it reads its file.
        Program::Redis => talk(port, "PING\r\n", "+PONG").await,
        Program::Nats => talk(port, "", "INFO").await,
        _ => talk(port, "AMQP\0\0\x09\x01", "\x01").await,
    }
}

async fn talk(port: u16, say: &str, expect: &str) -> bool {
    let talk = async {
        let mut stream = TcpStream::connect(("127.0.0.1", port)).await?;
        stream.write_all(say.as_bytes()).await?;
        let mut heard = vec![0; expect.len()];
        stream.read_exact(&mut heard).await?;
        std::io::Result::Ok(heard == expect.as_bytes())
    };
    talk.await.unwrap_or(false)
}

/// Where `tests/servers` looks: first for RabbitMQ's scripts that do not change the user, then in the path, then for the newest
/// Postgres.
pub fn find(name: &str, of: Program) -> PathBuf {
    let versions = fs::read_dir("/usr/lib/postgresql").into_iter().flatten();
    let mut versions: Vec<PathBuf> = versions.flatten().map(|found| found.path()).collect();
    versions.sort_by_key(|path| {
        let version = path.file_name().and_then(|name| name.to_str());
        version.and_then(|version| version.parse::<u32>().ok())
    });
    let path = env::var_os("PATH").unwrap_or_default();
    let mut folders = vec![PathBuf::from("/usr/lib/rabbitmq/bin")];
    folders.extend(env::split_paths(&path));
    folders.extend(versions.into_iter().rev().map(|path| path.join("bin")));
    folders.push(PathBuf::from("/usr/sbin"));
    let mut found = folders.into_iter().map(|folder| folder.join(name));
    let found = found.find(|path| path.is_file());
    let of = of.name();
    found.unwrap_or_else(|| {
        panic!(
            "{name} is not installed, which this test starts and kills; to leave out what does, on purpose: \
             MAINSTAY_TEST_WITHOUT_KILLS={of}"
        )
    })
}

pub fn is_root() -> bool {
    run(Command::new("id").arg("-u")).stdout == b"0\n"
}

/// Runs it to its end, which must be a good one.
pub fn run(command: &mut Command) -> Output {
    let output = command.output().unwrap();
    assert!(output.status.success(), "{command:?}: {output:?}");
    output
}

/// Outside the range that outgoing connections take theirs from, or one could sit on it while its server is dead.
pub fn free_port() -> u16 {
    loop {
        let port = rand::random_range(20_000..32_000);
        if TcpListener::bind(("127.0.0.1", port)).is_ok() {
            return port;
        }
    }
}
