use std::fs;
use std::path::Path;

use journal::{Cursor, Lsn, Next, Tip};
use proptest::prelude::*;
use tempfile::TempDir;

use super::*;
use crate::error::{Error, Place, What};
use crate::forge::{Forge, STREAM};

fn cut(forge: &Forge, first: Tip, upto: Lsn) -> Cut {
    Cut { stream: STREAM, geometry: forge.geometry, first, opening: forge.opening_before(first.lsn), upto, level: 3 }
}

fn pack(dir: &Path, forge: &Forge, first: Tip, upto: Lsn) -> Finished {
    let mut writer = Writer::create(&dir.join("cutting"), cut(forge, first, upto)).expect("creates");
    let from = first.lsn.get() as usize;
    writer.push(&forge.bytes[from..]).expect("verifies");
    writer.finish().expect("has entries")
}

/// Everything that a batch hands out, verified the way every reader does it.
fn read_all(path: &Path) -> crate::error::Result<Vec<u8>> {
    let batch = Batch::open(path)?;
    let mut cursor = Cursor::new(batch.info().geometry, batch.info().first);
    let mut all = Vec::new();
    let mut raw = Vec::new();
    for index in 0..batch.frame_count() {
        let frame = batch.frame(index).expect("counted");
        batch.unpack(frame, &mut raw)?;
        let mut rest = &raw[..];
        while !rest.is_empty() {
            let next = cursor.next(rest).map_err(|fault| batch.damaged(frame.place(), What::Entry(fault)))?;
            let Next::Entry(entry) = next else { return Err(batch.damaged(frame.place(), What::Size)) };
            rest = &rest[entry.header.range().bytes() as usize..];
        }
        all.extend_from_slice(&raw);
    }
    assert_eq!(*cursor.tip(), batch.info().last);
    Ok(all)
}

fn sample() -> Forge {
    let mut forge = Forge::with(&[b"one", b"", &[9; 700]]);
    forge.mark("before").open(1, 2).data(b"two").mark("after");
    forge
}

#[test]
fn a_batch_says_what_it_holds() {
    let dir = TempDir::new().expect("temp");
    let forge = sample();
    let tips = forge.tips();
    let done = pack(dir.path(), &forge, tips[2], forge.end());
    let info = done.info.clone();
    assert_eq!((info.first, info.last), (tips[2], forge.tip));
    assert_eq!(info.opening, Some(forge.openings[0]));
    assert_eq!(info.openings, forge.openings[1..]);
    let names: Vec<_> = info.marks.iter().map(|mark| mark.name.as_str()).collect();
    assert_eq!(names, ["before", "after"]);
    assert_eq!(info.entries, 6);
    assert_eq!(info.first_time, tips[3].time);
    assert_eq!(info.term_seen().id, 101);
    let bytes = fs::read(&done.path).expect("there");
    assert_eq!(done.file_hash, *blake3::hash(&bytes).as_bytes());
    let path = done.publish(dir.path()).expect("renames");
    assert_eq!(path.file_name().and_then(|name| name.to_str()), Some(info.name().to_string().as_str()));
    assert_eq!(Batch::open(&path).expect("opens").info(), &info);
    assert_eq!(read_all(&path).expect("verifies"), &forge.bytes[tips[2].lsn.get() as usize..]);
    assert_eq!(verify_file(&path).expect("reads").into_result().expect("good"), info);
}

#[test]
fn no_entry_above_the_bound_goes_in() {
    let dir = TempDir::new().expect("temp");
    let forge = sample();
    let tips = forge.tips();
    for (upto, last) in [(tips[3].lsn, 3), (tips[3].lsn.advance(1), 3), (tips[4].lsn, 4), (Lsn::MAX, tips.len() - 1)] {
        assert_eq!(pack(dir.path(), &forge, tips[0], upto).info.last, tips[last], "{upto}");
    }
    let writer = Writer::create(&dir.path().join("x"), cut(&forge, tips[1], tips[1].lsn)).expect("creates");
    assert!(matches!(writer.finish(), Err(Error::Nothing { .. })));
    assert!(!dir.path().join("x").exists(), "an unfinished batch removes itself");
}

#[test]
fn damaged_entries_do_not_leave() {
    let dir = TempDir::new().expect("temp");
    let forge = sample();
    let mut bytes = forge.bytes.clone();
    let at = forge.tips()[3].lsn.get() as usize - 10;
    bytes[at] ^= 1;
    let mut writer = Writer::create(&dir.path().join("x"), cut(&forge, forge.tips()[0], Lsn::MAX)).expect("creates");
    let error = writer.push(&bytes).expect_err("a flipped payload");
    assert!(matches!(error, Error::Log(fault) if fault.at == forge.tips()[2].lsn), "{error}");
}

/// Every single bit that flips is noticed by an ordinary read, before a wrong byte is handed out.
#[test]
fn every_flipped_byte_is_noticed() {
    let dir = TempDir::new().expect("temp");
    let forge = sample();
    let done = pack(dir.path(), &forge, forge.tips()[0], forge.end());
    let good = fs::read(&done.path).expect("there");
    let path = dir.path().join("flipped");
    for at in 0..good.len() {
        for bit in [0x01, 0x80] {
            let mut bytes = good.clone();
            bytes[at] ^= bit;
            fs::write(&path, &bytes).expect("writes");
            let error = read_all(&path).expect_err("noticed");
            assert!(matches!(error, Error::Damaged { .. } | Error::Incompatible { .. }), "byte {at}: {error}");
            match verify_file(&path) {
                Ok(verdict) => assert!(!verdict.is_good(), "byte {at}"),
                Err(error) => assert!(matches!(error, Error::Incompatible { .. }), "byte {at}: {error}"),
            }
        }
    }
}

#[test]
fn a_batch_cut_off_anywhere_is_no_batch() {
    let dir = TempDir::new().expect("temp");
    let forge = sample();
    let done = pack(dir.path(), &forge, forge.tips()[0], forge.end());
    let good = fs::read(&done.path).expect("there");
    let path = dir.path().join("short");
    for bytes in 0..good.len() {
        fs::write(&path, &good[..bytes]).expect("writes");
        let error = read_all(&path).expect_err("noticed");
        assert!(matches!(error, Error::Damaged { what: What::Unfinished, .. }), "{bytes} bytes: {error}");
    }
    let mut longer = good.clone();
    longer.push(0);
    fs::write(&path, &longer).expect("writes");
    read_all(&path).expect_err("a byte too many");
}

/// Numbers that lie under matching checksums: what an attacker or a faulty program would write.
#[test]
fn hostile_numbers_are_bounded_before_room_is_made() {
    use super::layout::{FrameRecord, HEAD_BYTES, Summary, TRAILER_BYTES, Trailer};
    let dir = TempDir::new().expect("temp");
    let forge = sample();
    let done = pack(dir.path(), &forge, forge.tips()[0], forge.end());
    let good = fs::read(&done.path).expect("there");
    let trailer_at = good.len() - TRAILER_BYTES;
    let trailer = Trailer::decode(good[trailer_at..].try_into().expect("64")).expect("good");
    let summary = Summary::decode(&good[trailer.summary_at as usize..trailer_at]).expect("good");
    let path = dir.path().join("hostile");
    let far = Tip { lsn: Lsn::new(u64::MAX - 7), ..summary.last };
    let frame = summary.frames[0];
    type Lie = Box<dyn Fn(&mut Summary)>;
    let cases: Vec<(&str, Lie)> = vec![
        ("a bomb of one frame", Box::new(move |s| s.last = far)),
        ("packed size", Box::new(|s| s.frames[0].packed_bytes = u32::MAX)),
        ("no frames", Box::new(|s| s.frames.clear())),
        ("frames twice", Box::new(move |s| s.frames.push(FrameRecord { first: frame.first, ..frame }))),
        ("no entries", Box::new(|s| s.entries = 0)),
        ("a mark outside", Box::new(|s| s.marks[0].end = Lsn::MAX)),
        ("an opening outside", Box::new(|s| s.openings[1].first = Lsn::MAX)),
        ("openings gone", Box::new(|s| s.openings.clear())),
    ];
    for (name, change) in cases {
        let mut changed = summary.clone();
        change(&mut changed);
        let summary = changed.encode();
        let mut bytes = good[..trailer.summary_at as usize].to_vec();
        bytes.extend_from_slice(&summary);
        let (summary_bytes, summary_crc) = (summary.len() as u32, journal::crc32c(&summary));
        bytes.extend_from_slice(&Trailer { summary_bytes, summary_crc, ..trailer }.encode());
        fs::write(&path, &bytes).expect("writes");
        let error = Batch::open(&path).expect_err(name);
        assert!(matches!(error, Error::Damaged { what: What::Contradiction(_), .. }), "{name}: {error}");
    }
    // a time that nothing contradicts but the entries: only a full look can tell
    let mut changed = summary.clone();
    changed.last.time = Time::from_nanos(changed.last.time.as_nanos() + 1);
    let lie = changed.encode();
    let mut bytes = good[..trailer.summary_at as usize].to_vec();
    bytes.extend_from_slice(&lie);
    let hash = *blake3::hash(&bytes).as_bytes();
    bytes.extend_from_slice(&Trailer { summary_crc: journal::crc32c(&lie), hash, ..trailer }.encode());
    fs::write(&path, &bytes).expect("writes");
    let bad = verify_file(&path).expect("reads").bad;
    assert!(matches!(bad[..], [BadRange { what: What::Contradiction(_), .. }]), "{bad:?}");
    let mut bytes = good[..trailer_at].to_vec();
    let lies = Trailer { summary_at: HEAD_BYTES as u64, summary_bytes: u32::MAX, ..trailer };
    bytes.extend_from_slice(&lies.encode());
    fs::write(&path, &bytes).expect("writes");
    Batch::open(&path).expect_err("a summary of 4 GiB");
}

#[test]
fn one_bad_frame_does_not_hide_the_others() {
    let dir = TempDir::new().expect("temp");
    let mut forge = Forge::with(&[]);
    let mut noise = 1u64;
    for _ in 0..300 {
        let payload: Vec<u8> = std::iter::repeat_with(|| {
            noise = noise.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
            (noise >> 56) as u8
        })
        .take(10_000)
        .collect();
        forge.data(&payload);
    }
    let done = pack(dir.path(), &forge, forge.tips()[0], forge.end());
    let batch = Batch::open(&done.path).expect("opens");
    assert!(batch.frame_count() >= 3);
    let frame = *batch.frame(1).expect("three");
    let mut bytes = fs::read(&done.path).expect("there");
    bytes[frame.at as usize + 5] ^= 0x10;
    fs::write(&done.path, &bytes).expect("writes");
    let verdict = verify_file(&done.path).expect("reads");
    let places: Vec<_> = verdict.bad.iter().map(|bad| (bad.place, bad.what)).collect();
    let whole = Place::Bytes { from: 0, to: done.info.file_bytes - 64 };
    assert_eq!(places, [(frame.place(), What::Checksum), (whole, What::Hash)]);
    assert!(verdict.entries > 100, "{}", verdict.entries);
    for lsn in [forge.tips()[1].lsn, frame.first.lsn, forge.end()] {
        let tip = Batch::open(&done.path).expect("opens").tip_at(lsn);
        assert_eq!(tip.is_ok(), lsn != frame.first.lsn);
    }
}

/// The largest entry, and the longest `Pad`: what is left when the largest entry just doesn't fit.
#[test]
fn the_largest_entries_are_frames_of_their_own() {
    let dir = TempDir::new().expect("temp");
    let mut forge = Forge::sized(8 << 20);
    forge.open(1, 1);
    let largest = vec![3; journal::PAYLOAD_BYTES_MAX];
    let longest = journal::entry_bytes(largest.len()) + journal::EPOCH_ROOM_BYTES - 8;
    for _ in 0..6 {
        forge.data(&largest);
    }
    let fill = forge.geometry.room(forge.end()) - longest - journal::HEADER_BYTES as u64;
    forge.data(&vec![4; fill as usize]).data(&largest);
    let pad = forge.tips().iter().position(|tip| tip.lsn.get() == 8 << 20).expect("a boundary");
    assert_eq!(forge.tips()[pad].lsn.bytes_since(forge.tips()[pad - 1].lsn), longest);
    let done = pack(dir.path(), &forge, forge.tips()[0], forge.end());
    assert_eq!(read_all(&done.path).expect("verifies"), forge.bytes);
    assert!(verify_file(&done.path).expect("reads").is_good());
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 40, ..ProptestConfig::default() })]

    /// Any history, cut anywhere, pushed in pieces of any size, comes back byte for byte.
    #[test]
    fn any_history_comes_back(
        sizes in prop::collection::vec((0usize..16_000, 0u8..8), 1..120),
        (from, to) in (0usize..100, 0usize..100),
        piece in 100usize..70_000,
    ) {
        let dir = TempDir::new().expect("temp");
        let mut forge = Forge::with(&[]);
        for (run, (size, what)) in sizes.iter().enumerate() {
            match what {
                0 => forge.open(1, run as u32 + 2),
                1 => forge.mark(&format!("m{size}")),
                _ => forge.data(&vec![*what; *size]),
            };
        }
        let tips = forge.tips();
        let from = from * (tips.len() - 1) / 100;
        let to = (from + 1 + to * (tips.len() - from) / 100).min(tips.len() - 1);
        let (first, last) = (tips[from], tips[to]);
        let mut writer = Writer::create(&dir.path().join("b"), cut(&forge, first, last.lsn)).expect("creates");
        let mut ready = piece;
        loop {
            let at = writer.tip().lsn.get() as usize;
            let end = (at + ready).min(forge.bytes.len());
            match writer.push(&forge.bytes[at..end]).expect("verifies") {
                0 if end == forge.bytes.len() || writer.tip().lsn == last.lsn => break,
                0 => ready += piece,
                _ => ready = piece,
            }
        }
        let done = writer.finish().expect("has entries");
        prop_assert_eq!(done.info.last, last);
        let wanted = &forge.bytes[first.lsn.get() as usize..last.lsn.get() as usize];
        prop_assert_eq!(&read_all(&done.path).expect("verifies"), wanted);
        prop_assert!(verify_file(&done.path).expect("reads").is_good());
        let batch = Batch::open(&done.path).expect("opens");
        for tip in &tips {
            let inside = tip.lsn >= first.lsn && tip.lsn <= last.lsn;
            prop_assert_eq!(batch.tip_at(tip.lsn).expect("good"), inside.then_some(*tip));
        }
    }
}
