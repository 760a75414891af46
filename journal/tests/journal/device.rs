//! What a durable append costs the device, read from the counters of a loop device with a file system of its own: a store
//! through a mapping, a growing file or a file that was never written would each show here.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use journal::{Disk, Geometry, Item, Journal, NodeId, Options, Role, Storage, StreamId};

use crate::lifecycle::start_run;

const IMAGE_BYTES: u64 = 512 << 20;
const COMMITS: u64 = 500;
/// The device is shared with the file system's own writes: the quietest of these is what an append costs.
const RUNS: usize = 3;
const RECORD_BYTES: usize = 1024;
const SECTOR_BYTES: u64 = 512;

/// A file system on a loop device, mounted. Both go when it is dropped.
pub(crate) struct LoopDisk {
    folder: tempfile::TempDir,
    device: String,
    mounted: bool,
}

impl LoopDisk {
    /// `None`, and a line that says why, where that can't be had.
    pub(crate) fn mount(mkfs: &[&str], bytes: u64) -> Option<LoopDisk> {
        match LoopDisk::try_mount(mkfs, bytes) {
            Ok(disk) => Some(disk),
            Err(why) => {
                println!("skipped: no file system of its own by {mkfs:?}: {why}");
                None
            }
        }
    }

    fn try_mount(mkfs: &[&str], bytes: u64) -> Result<LoopDisk, String> {
        let folder = tempfile::tempdir().map_err(|error| error.to_string())?;
        let image = folder.path().join("image");
        let file = fs::File::create(&image).map_err(|error| error.to_string())?;
        file.set_len(bytes).map_err(|error| error.to_string())?;
        let (program, arguments) = mkfs.split_first().ok_or("no command")?;
        done(Command::new(program).args(arguments).arg(&image))?;
        let device = done(Command::new("losetup").args(["--find", "--show"]).arg(&image))?;
        let device = String::from_utf8_lossy(&device.stdout).trim().to_owned();
        let mut disk = LoopDisk { folder, device, mounted: false };
        fs::create_dir(disk.dir()).map_err(|error| error.to_string())?;
        done(Command::new("mount").args(["-o", "noatime"]).arg(&disk.device).arg(disk.dir()))?;
        disk.mounted = true;
        Ok(disk)
    }

    /// Where it is mounted.
    pub(crate) fn dir(&self) -> PathBuf {
        self.folder.path().join("mounted")
    }

    /// Flushes and bytes written since the device was made.
    fn counters(&self) -> (u64, u64) {
        let name = Path::new(&self.device).file_name().unwrap().to_str().unwrap();
        let text = fs::read_to_string(format!("/sys/block/{name}/stat")).unwrap();
        let fields: Vec<u64> = text.split_whitespace().map(|field| field.parse().unwrap()).collect();
        (fields[15], fields[6] * SECTOR_BYTES)
    }
}

impl Drop for LoopDisk {
    fn drop(&mut self) {
        if self.mounted {
            let _ = done(Command::new("umount").arg(self.dir()));
        }
        let _ = done(Command::new("losetup").args(["--detach", &self.device]));
    }
}

fn done(command: &mut Command) -> Result<Output, String> {
    let output = command.output().map_err(|error| error.to_string())?;
    match output.status.success() {
        true => Ok(output),
        false => Err(String::from_utf8_lossy(&output.stderr).trim().to_owned()),
    }
}

/// Flushes and bytes per lone durable append: the least of some runs.
fn cost(disk: &LoopDisk) -> (f64, f64) {
    let options = Options { geometry: Geometry::new(64 << 20).unwrap(), ..Options::default() };
    let dir = disk.dir().join("journal");
    let journal = Journal::create(&dir, StreamId::random(), NodeId::random(), Role::Primary, options).unwrap();
    start_run(&journal);
    let record = [7; RECORD_BYTES];
    let append = || journal.append(Item::record(&[&record])).unwrap().durable().unwrap();
    append();
    done(&mut Command::new("sync")).unwrap();
    let mut least = (f64::INFINITY, f64::INFINITY);
    for _ in 0..RUNS {
        let before = disk.counters();
        for _ in 0..COMMITS {
            append();
        }
        let after = disk.counters();
        let each = |now: u64, then: u64| (now - then) as f64 / COMMITS as f64;
        least = (least.0.min(each(after.0, before.0)), least.1.min(each(after.1, before.1)));
    }
    journal.close().unwrap();
    least
}

#[test]
fn a_lone_commit_costs_one_flush_and_two_pages_at_most() {
    for mkfs in [&["mkfs.ext4", "-q", "-F"][..], &["mkfs.xfs", "-q", "-f"]] {
        let Some(disk) = LoopDisk::mount(mkfs, IMAGE_BYTES) else { continue };
        let (flushes, bytes) = cost(&disk);
        println!("{}: {flushes:.3} flushes and {bytes:.0} bytes a commit of {RECORD_BYTES} bytes", mkfs[0]);
        // beside the commits: the evidence, once a second
        assert!(flushes <= 1.05, "{}: {flushes} flushes a commit", mkfs[0]);
        assert!(bytes <= 5632.0, "{}: {bytes} bytes a commit", mkfs[0]);
    }
}

/// A file system that can't allocate without writing (ext4 without extents, as an upgraded ext3 is). A segment was a hole
/// there where the log came in large groups: a full disk was then met by a commit, not by the append that needed the room.
#[test]
fn a_file_is_allocated_for_real_also_where_that_takes_writing() {
    let mkfs = ["mkfs.ext4", "-q", "-F", "-O", "^extents,^64bit,^metadata_csum"];
    let Some(disk) = LoopDisk::mount(&mkfs, 32 << 20) else { return };
    let (path, bytes) = (disk.dir().join("file"), 1_000_000);
    let file = Disk.create(&path, bytes).unwrap();
    file.sync().unwrap();
    let found = fs::metadata(&path).unwrap();
    assert!(found.len() == bytes && found.blocks() * SECTOR_BYTES >= bytes, "{} blocks", found.blocks());
    assert!(fs::read(&path).unwrap().iter().all(|&byte| byte == 0));
    // and where there is no space for it, nothing is left
    let too_large = disk.dir().join("too large");
    assert_eq!(Disk.create(&too_large, 64 << 20).unwrap_err().kind(), std::io::ErrorKind::StorageFull);
    assert!(!too_large.exists());
}
