//! Reading a file in place, without a map.

use std::io;
use std::os::unix::fs::FileExt;

/// Reads from `at` on until `buffer` is full or the file ends; returns how many bytes there were. A call that a signal
/// interrupted is made again: on a network or a FUSE file system that may happen to any of them.
pub(crate) fn fill<F: FileExt + ?Sized>(file: &F, buffer: &mut [u8], at: u64) -> io::Result<usize> {
    let mut filled = 0;
    while filled < buffer.len() {
        match file.read_at(&mut buffer[filled..], at + filled as u64) {
            Ok(0) => break,
            Ok(count) => filled += count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(filled)
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;

    /// Ten bytes, at most three at once, and every other call is interrupted.
    struct Stutters(Cell<bool>);

    impl FileExt for Stutters {
        fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
            if !self.0.replace(!self.0.get()) {
                return Err(io::ErrorKind::Interrupted.into());
            }
            let left = (0..10u8).skip(offset as usize).take(buffer.len().min(3));
            Ok(buffer.iter_mut().zip(left).map(|(to, byte)| *to = byte).count())
        }

        fn write_at(&self, _: &[u8], _: u64) -> io::Result<usize> {
            Err(io::ErrorKind::Unsupported.into())
        }
    }

    #[test]
    fn a_read_that_is_short_or_interrupted_goes_on() {
        for (at, wanted, expected) in [(0, 10, 10), (2, 5, 5), (4, 100, 6), (10, 1, 0), (0, 0, 0)] {
            let mut buffer = vec![0; wanted];
            assert_eq!(fill(&Stutters(Cell::new(false)), &mut buffer, at).unwrap(), expected);
            let bytes: Vec<u8> = (at as u8..).take(expected).collect();
            assert_eq!(buffer[..expected], bytes);
        }
    }
}
