//! One frame: whole entries, packed alone, so that a reader can begin at any of them.

use std::io;

use journal::{EPOCH_ROOM_BYTES, PAYLOAD_BYTES_MAX, entry_bytes};
use zstd::bulk::{Compressor, Decompressor};

/// A frame is closed before it would grow beyond this, unless one entry alone is larger.
pub(crate) const FRAME_RAW_BYTES: usize = 1 << 20;
/// Raw bytes of the largest frame: one entry of the largest size, or the longest `Pad`.
pub(crate) const FRAME_RAW_BYTES_MAX: usize = entry_bytes(PAYLOAD_BYTES_MAX) as usize + EPOCH_ROOM_BYTES as usize;

/// Most bytes that a frame of the largest size packs to.
pub(crate) fn packed_bytes_max() -> usize {
    zstd::zstd_safe::compress_bound(FRAME_RAW_BYTES_MAX)
}

/// Packs frames with one level.
pub(crate) struct Packer {
    zstd: Compressor<'static>,
    packed: Vec<u8>,
}

impl Packer {
    pub(crate) fn new(level: i32) -> io::Result<Packer> {
        Ok(Packer { zstd: Compressor::new(level)?, packed: Vec::with_capacity(packed_bytes_max()) })
    }

    pub(crate) fn pack(&mut self, raw: &[u8]) -> io::Result<&[u8]> {
        assert!(raw.len() <= FRAME_RAW_BYTES_MAX, "a frame holds at most one entry of the largest size");
        self.packed.clear();
        self.zstd.compress_to_buffer(raw, &mut self.packed)?;
        Ok(&self.packed)
    }
}

impl std::fmt::Debug for Packer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Packer").finish_non_exhaustive()
    }
}

/// Unpacks into `raw`, which afterwards holds exactly `raw_bytes`; `false`: the bytes don't unpack to that many.
/// Never makes more room than `raw_bytes`, whatever the packed bytes claim.
pub(crate) fn unpack(packed: &[u8], raw_bytes: usize, raw: &mut Vec<u8>) -> io::Result<bool> {
    raw.clear();
    raw.resize(raw_bytes, 0);
    let mut zstd = Decompressor::new()?;
    match zstd.decompress_to_buffer(packed, &mut raw[..]) {
        Ok(bytes) if bytes == raw_bytes => Ok(true),
        _ => {
            raw.clear();
            Ok(false)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_frame_unpacks_to_its_own_size_alone() {
        let mut packer = Packer::new(1).expect("zstd");
        let bomb = packer.pack(&vec![0; FRAME_RAW_BYTES_MAX]).expect("packs").to_vec();
        assert!(bomb.len() < 1000);
        let mut raw = Vec::new();
        for bytes in [0, 1, 4096, FRAME_RAW_BYTES_MAX - 1] {
            assert!(!unpack(&bomb, bytes, &mut raw).expect("zstd"), "{bytes}");
            assert!(raw.is_empty() && raw.capacity() < FRAME_RAW_BYTES_MAX);
        }
        assert!(unpack(&bomb, FRAME_RAW_BYTES_MAX, &mut raw).expect("zstd"));
        assert!(!unpack(&bomb[..bomb.len() - 1], FRAME_RAW_BYTES_MAX, &mut raw).expect("zstd"));
    }
}
