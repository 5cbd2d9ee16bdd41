//! The process that keeps the server while the test lives, and ends it when the test does.
//!
//! A test that is killed runs no destructors, and statics are never dropped. So a shell stands
//! between the test and the server, in a process group of its own, and reads orders from a pipe.

use std::fs;
use std::io::{BufRead as _, BufReader, Write as _};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

use anyhow::{Context as _, Result, bail};

use super::programs::{Account, without_settings};

const SCRIPT: &str = include_str!("keeper.sh");
/// How much of the server's log an error shows, in lines.
const LOG_LINES: usize = 20;

pub(super) struct Keeper {
    home: PathBuf,
    process: Child,
    /// Closed first when the keeper is dropped.
    orders: Option<ChildStdin>,
    answers: BufReader<ChildStdout>,
}

impl Keeper {
    pub(super) fn start(programs: &Path, account: Option<Account>, home: &Path) -> Result<Self> {
        let mut shell = Command::new("/bin/sh");
        shell
            .args(["-c", SCRIPT, "keeper"])
            .args([programs, home])
            // Where the account may be, which is not said of where the tests run.
            .current_dir(home)
            // What the terminal sends to the tests is not for it.
            .process_group(0)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            // Not that of the tests: who reads it to its end must not wait for the server.
            .stderr(Stdio::null());
        without_settings(&mut shell);
        if let Some(Account { user, group }) = account {
            shell.uid(user).gid(group);
        }
        let mut process = shell.spawn().context("cannot start /bin/sh")?;
        let orders = process.stdin.take().expect("it is piped");
        let answers = process.stdout.take().expect("it is piped");
        Ok(Self {
            home: home.to_owned(),
            process,
            orders: Some(orders),
            answers: BufReader::new(answers),
        })
    }

    /// Has an order carried out, see the script.
    pub(super) fn order(&mut self, order: &str) -> Result<()> {
        let orders = self.orders.as_mut().expect("only a drop takes it");
        let mut code = String::new();
        writeln!(orders, "{order}")
            .and_then(|()| self.answers.read_line(&mut code))
            .context("the keeper of the server is gone")?;
        match code.trim() {
            "0" => Ok(()),
            code => bail!("{order} failed ({code})\n{}", self.logs()),
        }
    }

    fn logs(&self) -> String {
        let read = |name| fs::read_to_string(self.home.join(name)).unwrap_or_default();
        let said = read("order.log") + &read("server.log");
        let lines: Vec<&str> = said.lines().collect();
        lines[lines.len().saturating_sub(LOG_LINES)..].join("\n")
    }
}

impl Drop for Keeper {
    fn drop(&mut self) {
        self.orders = None;
        // It ends the server and removes the directory first.
        let _ = self.process.wait();
    }
}
