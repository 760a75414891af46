//! Machines made of a test disk, a file system on it and a boot id.
//!
//! ```text
//!  the test -> namespace { keeper of the disks -> namespace { the test again: machines, nodes, boot ids } }
//! ```
//! Two mount namespaces, one inside the other: whoever is killed when, every mount and every device ends with its process,
//! and the process that unmounts a file system is never the one that its disk waits for.

use std::any::type_name;
use std::cell::Cell;
use std::env;
use std::fs;
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use super::drives::{Drives, Fate, Keeper};
use crate::kills::Dice;
use crate::nodes::Daemon;

/// Which of the processes this is: [`KEEPER`], or the folder of the disks.
const INSIDE: &str = "TOWLINE_TEST_ROOM";
const KEEPER: &str = "keeper";
/// Where a node reads which boot of the machine this is.
const BOOT_ID: &str = "/proc/sys/kernel/random/boot_id";
const EXT4_BYTES: u64 = 96 << 20;
/// The least that mkfs.xfs takes.
const XFS_BYTES: u64 = 300 << 20;

/// Where machines stand.
pub(crate) struct Room {
    drives: Drives,
    machines: Cell<u64>,
    boots: Cell<u64>,
    kinds: Vec<&'static str>,
    folder: PathBuf,
}

impl Room {
    /// Runs `test` again in a process of its own; `Some` in there, `None` outside and where the machine doesn't allow it,
    /// said so.
    pub(crate) fn enter<F: Fn()>(_test: F) -> Option<Room> {
        let (_, test) = type_name::<F>().split_once("::").expect("a path");
        let entered = match env::var_os(INSIDE) {
            None => missing().and_then(|()| inside(test, KEEPER.as_ref())),
            Some(who) if who == KEEPER => keep(test),
            Some(folder) => return Room::open(folder.into()).map_err(skip).ok(),
        };
        entered.map_err(skip).ok();
        None
    }

    fn open(folder: PathBuf) -> Result<Room, String> {
        let drives = Drives::connect(&folder.join("disks"), &folder.join("orders")).unwrap();
        let room = Room { drives, machines: Cell::new(0), boots: Cell::new(0), kinds: kinds(), folder };
        room.boot(1);
        call("mount", [Path::new("--bind"), &room.folder.join("boot_id"), Path::new(BOOT_ID)])?;
        Machine::try_new(&room, "ext4")?;
        Ok(room)
    }

    /// Processes that start from now on believe to be in this boot.
    fn boot(&self, number: u64) {
        fs::write(self.folder.join("boot_id"), format!("00000000-0000-0000-0000-{number:012x}\n")).unwrap();
    }

    /// A folder for what is on no test disk.
    pub(crate) fn scratch(&self) -> &Path {
        &self.folder
    }

    /// The disks.
    pub(crate) fn drives(&self) -> &Drives {
        &self.drives
    }

    /// The file systems that there are tests for.
    pub(crate) fn kinds(&self) -> &[&'static str] {
        &self.kinds
    }

    /// Cuts the power of these machines when their disks have been written to or flushed so often: at one instant the
    /// processes are killed and the disks stop.
    pub(crate) fn cut_after(&self, steps: u64, machines: &[(&Machine<'_>, Option<&Daemon>)]) {
        let disks = machines.iter().map(|(machine, _)| machine.disk).collect();
        let pids = machines.iter().filter_map(|(_, daemon)| daemon.map(Daemon::pid)).collect();
        self.drives.cut_after(steps, disks, pids);
    }
}

/// A machine with one disk.
pub(crate) struct Machine<'r> {
    room: &'r Room,
    kind: &'static str,
    disk: usize,
    boot: u64,
    at: PathBuf,
    is_on: bool,
}

impl<'r> Machine<'r> {
    /// A machine with a new file system of that kind.
    pub(crate) fn new(room: &'r Room, kind: &'static str) -> Machine<'r> {
        Machine::try_new(room, kind).unwrap()
    }

    fn try_new(room: &'r Room, kind: &'static str) -> Result<Machine<'r>, String> {
        let disk = room.drives.add(if kind == "xfs" { XFS_BYTES } else { EXT4_BYTES });
        let file = room.drives.file(disk).display().to_string();
        match kind {
            "xfs" => call("mkfs.xfs", ["-q", &file])?,
            _ => call("mkfs.ext4", ["-q", "-F", &file])?,
        };
        let at = room.folder.join(format!("machine-{}", room.machines.replace(room.machines.get() + 1)));
        fs::create_dir(&at).unwrap();
        let mut machine = Machine { room, kind, disk, boot: 0, at, is_on: false };
        machine.power_on()?;
        Ok(machine)
    }

    /// The machine comes up again with what is left of its disk, under another boot id.
    pub(crate) fn reboot(&mut self, fate: Fate, dice: &mut Dice) {
        self.power_off();
        self.disk = self.room.drives.what_is_left(self.disk, fate, dice);
        self.power_on().unwrap_or_else(|what| panic!("the file system itself doesn't survive this: {what}"));
    }

    /// A folder on its disk.
    pub(crate) fn data(&self) -> PathBuf {
        self.at.join("data")
    }

    /// Which of the disks it has.
    pub(crate) fn disk(&self) -> usize {
        self.disk
    }

    /// A process that starts now starts on this machine.
    pub(crate) fn step_in(&self) {
        self.room.boot(self.boot);
    }

    fn power_on(&mut self) -> Result<(), String> {
        self.boot = self.room.boots.replace(self.room.boots.get() + 1) + 1;
        // the file system before the last power cut has the same identity
        let options = if self.kind == "xfs" { "loop,nouuid" } else { "loop" };
        let file = self.room.drives.file(self.disk).display().to_string();
        call("mount", ["-t", self.kind, "-o", options, &file, &self.at.display().to_string()])?;
        self.is_on = true;
        Ok(())
    }

    fn power_off(&mut self) {
        if std::mem::take(&mut self.is_on) && call("umount", [&self.at]).is_err() {
            // a process that a failed test left behind may still have files open there
            let _ = call("umount", [Path::new("-l"), &self.at]);
        }
    }
}

impl Drop for Machine<'_> {
    fn drop(&mut self) {
        self.power_off();
    }
}

/// Runs a command of the system; what it printed, or what went wrong.
fn call<S: AsRef<std::ffi::OsStr>>(command: &str, args: impl IntoIterator<Item = S>) -> Result<String, String> {
    let output = Command::new(command).args(args).output().map_err(|error| format!("{command}: {error}"))?;
    match output.status.success() {
        true => Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned()),
        false => Err(format!("{command}: {}", String::from_utf8_lossy(&output.stderr).trim())),
    }
}

/// Keeps the disks while the test runs inside.
fn keep(test: &str) -> Result<(), String> {
    let folder = tempfile::tempdir().unwrap();
    let disks = folder.path().join("disks");
    fs::create_dir(&disks).unwrap();
    let orders = UnixListener::bind(folder.path().join("orders")).unwrap();
    let _keeper = Keeper::start(&disks, orders).map_err(|error| format!("FUSE can't be mounted: {error}"))?;
    inside(test, folder.path())
}

/// Runs the test in a mount namespace of its own. That it fails in there is no reason to skip it.
fn inside(test: &str, who: &Path) -> Result<(), String> {
    let mut inside = Command::new("unshare");
    inside.arg("--mount").arg(env::current_exe().unwrap()).args([test, "--exact", "--nocapture"]);
    let output = inside.env(INSIDE, who).stdin(Stdio::null()).output().map_err(|error| format!("unshare: {error}"))?;
    let said = [output.stdout, output.stderr].concat();
    println!("{}", String::from_utf8_lossy(&said));
    assert!(output.status.success(), "{test} failed, see above");
    Ok(())
}

fn skip(what: String) {
    println!("SKIPPED: the power can't be cut here: {what}");
}

/// An error when this machine lacks something.
fn missing() -> Result<(), String> {
    if !rustix::process::geteuid().is_root() {
        return Err("only root can mount".into());
    }
    if let Some(device) = ["/dev/fuse", "/dev/loop-control"].into_iter().find(|device| !Path::new(device).exists()) {
        return Err(format!("there is no {device}"));
    }
    call("unshare", ["--mount", "true"]).and(call("mount", ["--version"])).and(call("mkfs.ext4", ["-V"])).map(drop)
}

fn kinds() -> Vec<&'static str> {
    let known = fs::read_to_string("/proc/filesystems").unwrap_or_default();
    let xfs = known.lines().any(|line| line.trim() == "xfs") && call("mkfs.xfs", ["-V"]).is_ok();
    if xfs { vec!["ext4", "xfs"] } else { vec!["ext4"] }
}
