//! The service under test: a child process that is started, SIGKILLed and started again.

use std::{net::SocketAddr, path::PathBuf, process::Stdio, time::Duration};

use rustix::process::{Pid, Signal, kill_process};
use tokio::{
    io::{AsyncBufReadExt, BufReader},
    process::{Child, Command},
    sync::watch,
    time::timeout,
};

use super::DrillError;

/// How long a start may take; it migrates a database first.
const START_MAX: Duration = Duration::from_secs(30);
/// How long a polite shutdown may take.
const STOP_MAX: Duration = Duration::from_secs(20);

/// A child that runs `payments serve`, and where it can be reached at the moment.
#[derive(Debug)]
pub struct Service {
    environment: Vec<(&'static str, String)>,
    log: PathBuf,
    address: watch::Sender<Option<SocketAddr>>,
    child: Option<Child>,
    /// How often it was killed.
    pub kills: u64,
}

impl Service {
    /// A service that is not running yet. Its log goes to `log`.
    pub fn new(environment: Vec<(&'static str, String)>, log: PathBuf) -> Self {
        Self {
            environment,
            log,
            address: watch::Sender::new(None),
            child: None,
            kills: 0,
        }
    }

    /// Where the service listens; `None` while it is down.
    pub fn address(&self) -> watch::Receiver<Option<SocketAddr>> {
        self.address.subscribe()
    }

    /// Starts the child and waits until it says where it listens.
    ///
    /// # Errors
    /// When it cannot be started or ends before it listens; the end of its log is part of the message.
    pub async fn start(&mut self) -> Result<(), DrillError> {
        let log = std::fs::OpenOptions::new()
            .create(true)
            .append(true)
            .open(&self.log)
            .map_err(DrillError::io("open the service's log"))?;
        let program = std::env::current_exe().map_err(DrillError::io("find this program"))?;
        let mut child = Command::new(program)
            .arg("serve")
            .envs(
                self.environment
                    .iter()
                    .map(|(name, value)| (*name, value.as_str())),
            )
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(log)
            .kill_on_drop(true)
            .spawn()
            .map_err(DrillError::io("start the service"))?;
        let stdout = child
            .stdout
            .take()
            .ok_or_else(|| DrillError::new("the service has no standard output"))?;
        let mut lines = BufReader::new(stdout).lines();
        let said = timeout(START_MAX, lines.next_line()).await;
        let address = match said {
            Ok(Ok(Some(line))) => line
                .strip_prefix("listening on http://")
                .and_then(|address| address.parse().ok()),
            _ => None,
        };
        let Some(address) = address else {
            let _ = child.kill().await;
            return Err(DrillError::new(format!(
                "the service did not start; its log ends with: {}",
                self.end_of_log()
            )));
        };
        // Whatever else it says must not fill the pipe and block it.
        tokio::spawn(async move { while let Ok(Some(_)) = lines.next_line().await {} });
        self.child = Some(child);
        self.address.send_replace(Some(address));
        Ok(())
    }

    /// SIGKILLs the child: no handler runs, nothing is flushed.
    ///
    /// # Errors
    /// When the child cannot be signalled.
    pub async fn kill(&mut self) -> Result<(), DrillError> {
        if let Some(mut child) = self.child.take() {
            child
                .kill()
                .await
                .map_err(DrillError::io("kill the service"))?;
            self.address.send_replace(None);
            self.kills += 1;
        }
        Ok(())
    }

    /// Asks the child to end (SIGTERM) and returns whether it did so cleanly and in time.
    ///
    /// # Errors
    /// When the child cannot be signalled or waited for.
    pub async fn stop(&mut self) -> Result<bool, DrillError> {
        let Some(mut child) = self.child.take() else {
            return Ok(true);
        };
        let pid = child.id().and_then(|pid| Pid::from_raw(pid.cast_signed()));
        let Some(pid) = pid else { return Ok(false) };
        kill_process(pid, Signal::TERM).map_err(DrillError::because("ask the service to end"))?;
        match timeout(STOP_MAX, child.wait()).await {
            Ok(status) => Ok(status
                .map_err(DrillError::io("wait for the service"))?
                .success()),
            Err(_) => Ok(false),
        }
    }

    fn end_of_log(&self) -> String {
        let log = std::fs::read_to_string(&self.log).unwrap_or_default();
        let lines: Vec<_> = log.lines().rev().take(3).collect();
        lines.into_iter().rev().collect::<Vec<_>>().join(" | ")
    }
}
