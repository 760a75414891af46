//! Socket paths of any length.

use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::fs::{Mode, OFlags};

/// A path in a unix socket's address has at most 107 bytes and a zero (unix(7)).
const PATH_BYTES_MAX: usize = 107;

/// A path that fits into a socket's address, and names the same file for as long as this value lives.
#[derive(Debug)]
pub(super) struct Short {
    path: PathBuf,
    _folder: Option<OwnedFd>,
}

impl Short {
    /// The path.
    pub(super) fn path(&self) -> &Path {
        &self.path
    }
}

/// `path`, or where it is too long, the same through an open folder: /proc/self/fd/N/NAME.
pub(super) fn short(path: &Path) -> io::Result<Short> {
    let (folder, name) = match (path.parent(), path.file_name()) {
        (Some(folder), Some(name)) if path.as_os_str().len() > PATH_BYTES_MAX => (folder, name),
        _ => return Ok(Short { path: path.to_owned(), _folder: None }),
    };
    let folder = rustix::fs::open(folder, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?;
    let path = PathBuf::from(format!("/proc/self/fd/{}", folder.as_raw_fd())).join(name);
    Ok(Short { path, _folder: Some(folder) })
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::{UnixListener, UnixStream};

    use super::*;

    #[test]
    fn a_socket_below_a_long_path_is_reached() {
        let root = tempfile::tempdir().expect("a folder");
        for depth in [1, 60] {
            let folder = root.path().join("deep/".repeat(depth));
            std::fs::create_dir_all(&folder).expect("folders");
            let path = folder.join("a.sock");
            let listener = short(&path).and_then(|short| UnixListener::bind(short.path())).expect("bind");
            short(&path).and_then(|short| UnixStream::connect(short.path())).expect("connect");
            listener.accept().expect("accept");
        }
    }
}
