//! A server of a test's own, which can be killed and started again.

use std::{
    env, fs,
    io::Write,
    os::unix::process::CommandExt,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::Duration,
};

use tokio::time::{Instant, sleep, timeout};
use uuid::Uuid;

use super::programs::{Program, Start, find, free_port, is_ready, is_root, run};

/// A server on a free port with a folder of its own. Dropped, both are gone.
///
/// It is a direct child that is waited for, in a process group of its own: a signal reaches what a shell script in between
/// has started, and a killed server is known to be dead before the next one starts on its data.
pub struct Server {
    program: Program,
    start: Start,
    folder: PathBuf,
    port: u16,
    child: Option<Child>,
}

/// Longer than any of them takes on a busy machine.
const PATIENCE: Duration = Duration::from_secs(60);

impl Server {
    /// A new one, running.
    ///
    /// `None` only if the environment says that servers of this name are not for tests to kill, and then it is said.
    ///
    /// # Panics
    /// When it is not installed: a test that kills it is not left out in silence.
    pub async fn start(program: Program) -> Option<Self> {
        Self::furnished(program, |_| Vec::new()).await
    }

    /// The same, with files of the caller's in its folder, and arguments that the caller adds to its own.
    pub async fn furnished(
        program: Program,
        furnish: impl FnOnce(&Path) -> Vec<String>,
    ) -> Option<Self> {
        let name = program.name();
        let spared = env::var("MAINSTAY_TEST_WITHOUT_KILLS").unwrap_or_default();
        if spared.split([' ', ',']).any(|spared| spared == name) {
            let test = std::thread::current();
            // Past the test harness, which keeps to itself what a passing test prints.
            let _ = writeln!(
                std::io::stderr(),
                "left out: {}, because MAINSTAY_TEST_WITHOUT_KILLS names {name}",
                test.name().unwrap_or_default()
            );
            return None;
        }
        let folder = env::temp_dir().join(format!("mainstay-{name}-{}", Uuid::now_v7().simple()));
        fs::create_dir_all(&folder).unwrap();
        if is_root() {
            run(Command::new("chown").arg("nobody").arg(&folder));
        }
        let port = free_port();
        let mut start = program.prepare(&folder, port);
        start.add_arguments(furnish(&folder));
        let mut server = Self {
            program,
            start,
            folder,
            port,
            child: None,
        };
        server.start_again().await;
        Some(server)
    }

    pub fn url(&self) -> String {
        self.program.url(self.port)
    }

    /// Sends the signal and waits until nothing of it is left.
    pub async fn stop(&mut self, signal: &str) {
        let mut child = self.child.take().expect("it runs");
        signal_group(&child, signal);
        let dead = async {
            while child.try_wait().unwrap().is_none() {
                sleep(Duration::from_millis(2)).await;
            }
        };
        let died = timeout(PATIENCE, dead).await;
        died.expect("a signal ends it");
    }

    /// Starts it and waits until it answers.
    ///
    /// As often as it takes: what a killed Postgres leaves behind holds its shared memory for a moment, and a server that
    /// finds it refuses to start.
    pub async fn start_again(&mut self) {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let runs = match &mut self.child {
                Some(child) => child.try_wait().unwrap().is_none(),
                None => false,
            };
            if !runs {
                self.child = Some(self.spawn());
            } else if is_ready(self.program, self.port).await {
                return;
            }
            assert!(
                Instant::now() < deadline,
                "it did not come up: {}",
                fs::read_to_string(self.log()).unwrap_or_default()
            );
            sleep(Duration::from_millis(5)).await;
        }
    }

    pub const fn port(&self) -> u16 {
        self.port
    }

    /// Where it keeps its data.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// Another of its programs, which runs as its user.
    pub fn tool(&self, name: &str) -> Command {
        self.start.as_server_user(&find(name, self.program))
    }

    /// Tells a running RabbitMQ something, and gives back what it says.
    #[cfg(feature = "rabbitmq")]
    pub async fn control(&self, arguments: &[&str]) -> String {
        let mut command = self.tool("rabbitmqctl");
        command.args(arguments);
        let told = tokio::process::Command::from(command)
            .output()
            .await
            .unwrap();
        assert!(told.status.success(), "{told:?}");
        String::from_utf8(told.stdout).unwrap()
    }

    fn spawn(&self) -> Child {
        let mut appending = fs::File::options();
        let log = appending
            .create(true)
            .append(true)
            .open(self.log())
            .unwrap();
        let mut command = self.start.command();
        command
            .process_group(0)
            .stdin(Stdio::null())
            .stdout(log.try_clone().unwrap())
            .stderr(log);
        command.spawn().unwrap()
    }

    fn log(&self) -> PathBuf {
        self.folder.with_extension("log")
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if let Some(mut child) = self.child.take() {
            // A Postgres that is killed otherwise leaves children behind, which write into the folder.
            signal_group(&child, self.program.last_signal());
            let _ = child.wait();
        }
        let _ = fs::remove_dir_all(&self.folder);
        let _ = fs::remove_file(self.log());
    }
}

fn signal_group(child: &Child, signal: &str) {
    let group = format!("-{}", child.id());
    let sent = Command::new("kill").args([signal, "--", &group]).status();
    assert!(sent.unwrap().success(), "{signal} reached nobody");
}
