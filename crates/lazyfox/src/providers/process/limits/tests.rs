use std::io::{BufRead as _, BufReader};
use std::os::unix::process::CommandExt as _;
use std::process::{Child, Command, Stdio};

use lazyfox_core::id::WorkerId;

use super::*;

const MIB: u64 = 1024 * 1024;

/// Processes that hold memory, in a group of their own, as a worker with its home in `home`.
struct Group {
    home: tempfile::TempDir,
    leader: Child,
}

impl Group {
    /// Runs a Python script and waits until it has said so many lines.
    fn run(script: &str, lines: usize) -> Self {
        let home = tempfile::tempdir().unwrap();
        let path = home.path().join("w-1");
        let mut leader = Command::new("python3")
            .args(["-c", script])
            .env(MARKER, &path)
            .process_group(0)
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let said = BufReader::new(leader.stdout.take().unwrap()).lines();
        assert_eq!(said.take(lines).flatten().count(), lines);
        Self { home, leader }
    }

    fn meter(&self, limit: u64) -> Meter {
        let worker: WorkerId = "w-1".parse().unwrap();
        let main = i32::try_from(self.leader.id()).unwrap();
        Meter::new(&Home::of(self.home.path(), &worker), main, limit)
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        let pid = Pid::from_child(&self.leader);
        let _ = rustix::process::kill_process_group(pid, rustix::process::Signal::KILL);
        let _ = self.leader.wait();
    }
}

#[test]
fn all_processes_count_together_wherever_they_went() {
    // The third one is in a session of its own, and nobody's child by the time it is looked at.
    let script = "
import os, signal
def hold():
    global held
    held = bytearray(b'x') * (40 << 20)
    os.write(1, b'holds\\n')
    signal.pause()
if os.fork() == 0: hold()
if os.fork() == 0:
    parent = os.getpid()
    if os.fork() == 0:
        os.setsid()
        os.chdir('/')
        while os.getppid() == parent: pass
        hold()
    os._exit(0)
os.wait()
hold()";
    let group = Group::run(script, 3);
    assert!(!group.meter(160 * MIB).exceeds().unwrap());
    let mut meter = group.meter(110 * MIB);
    assert!(meter.exceeds().unwrap());
    assert_eq!(meter.members.len(), 3);
    let stray = *meter.members.iter().next_back().unwrap();
    rustix::process::kill_process(Pid::from_raw(stray).unwrap(), rustix::process::Signal::KILL)
        .unwrap();
}

#[test]
fn memory_that_is_shared_counts_once() {
    let script = "
import os, signal
held = bytearray(b'x') * (80 << 20)
for _ in range(3):
    if os.fork() == 0: break
os.write(1, b'holds\\n')
signal.pause()";
    let group = Group::run(script, 4);
    let mut meter = group.meter(160 * MIB);
    assert!(!meter.exceeds().unwrap());
    let by_itself: u64 = meter.members.iter().map(|&pid| resident(pid)).sum();
    assert!(by_itself > 4 * 80 * MIB, "{by_itself}: it is not shared");
    assert!(group.meter(60 * MIB).exceeds().unwrap());
}

#[test]
fn files_that_are_only_mapped_do_not_count() {
    let script = "
import mmap, os, signal, tempfile
file = tempfile.TemporaryFile(dir='.')
file.truncate(200 << 20)
mapped = mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ)
sum(mapped[i] for i in range(0, len(mapped), 4096))
os.write(1, b'holds\\n')
signal.pause()";
    let group = Group::run(script, 1);
    let status = format!("/proc/{}/status", group.leader.id());
    let status = std::fs::read_to_string(status).unwrap();
    assert!(kibibytes(&status, "VmRSS:").unwrap() > 200 * MIB);
    assert!(!group.meter(100 * MIB).exceeds().unwrap());
}

#[test]
fn counting_exactly_takes_a_small_share_of_the_time() {
    let group = Group::run(
        "import os, signal; os.write(1, b'here\\n'); signal.pause()",
        1,
    );
    let mut meter = group.meter(MIB);
    meter.exact_from = Instant::now() + Duration::from_secs(3600);
    assert!(!meter.exceeds().unwrap());
    meter.exact_from = Instant::now();
    assert!(meter.exceeds().unwrap());
    assert!(meter.exact_from > Instant::now());
}

#[test]
fn processes_that_were_started_before_the_limit_have_it_too() {
    let script = "
import os, signal
if os.fork() == 0 and os.fork() == 0: pass
os.write(1, b'here\\n')
signal.pause()";
    let group = Group::run(script, 3);
    limit_open_files(Pid::from_child(&group.leader), 77).unwrap();
    let mut meter = group.meter(u64::MAX);
    meter.find_members().unwrap();
    assert_eq!(meter.members.len(), 3);
    for pid in meter.members {
        let limits = std::fs::read_to_string(format!("/proc/{pid}/limits")).unwrap();
        let files = limits
            .lines()
            .find(|line| line.starts_with("Max open files"));
        let words: Vec<&str> = files.unwrap().split_whitespace().collect();
        assert_eq!(words[3..5], ["77", "77"], "{pid}");
    }
}

#[test]
fn a_limit_that_cannot_be_given_says_why() {
    let group = Group::run(
        "import os, signal; os.write(1, b'here\\n'); signal.pause()",
        1,
    );
    // More than the kernel gives to anybody.
    let error = limit_open_files(Pid::from_child(&group.leader), 1 << 40).unwrap_err();
    let error = error.to_string();
    assert!(
        error.contains("open_files") && error.contains("1099511627776"),
        "{error}"
    );
}
