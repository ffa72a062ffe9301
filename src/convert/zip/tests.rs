use std::io::Cursor;
use std::time::{Duration, Instant};

use super::*;

/// A zip with one stored entry and a comment. `wide` also writes its sizes with 64 bits.
fn zip(name: &str, data: &[u8], comment: &[u8], wide: bool) -> Vec<u8> {
    let short = |n: usize| (n as u16).to_le_bytes();
    let word = |n: usize| (n as u32).to_le_bytes();
    let long = |n: usize| (n as u64).to_le_bytes();
    let mut out = Vec::new();
    out.extend(LOCAL_HEADER);
    out.extend([0; 14]);
    out.extend([word(data.len()), word(data.len())].concat());
    out.extend([short(name.len()), short(3)].concat());
    out.extend(name.as_bytes());
    out.extend(b"pad");
    out.extend(data);
    let directory = out.len();
    out.extend(DIRECTORY_ENTRY);
    out.extend([0; 16]);
    let size = if wide { [0xff; 4] } else { word(data.len()) };
    out.extend([size, size].concat());
    let extra = if wide {
        [&short(1)[..], &short(24), &long(data.len()), &long(data.len()), &long(0)].concat()
    } else {
        vec![]
    };
    out.extend([short(name.len()), short(extra.len()), short(0)].concat());
    out.extend([0; 8]);
    out.extend(if wide { [0xff; 4] } else { word(0) });
    out.extend(name.as_bytes());
    out.extend(&extra);
    let end = out.len();
    let (count, len, offset) = if wide {
        out.extend(END_64);
        out.extend([0; 28]);
        out.extend([long(1), long(end - directory), long(directory)].concat());
        out.extend(LOCATOR_64);
        out.extend([0; 4]);
        out.extend(long(end));
        out.extend([0; 4]);
        ([0xff; 2], [0xff; 4], [0xff; 4])
    } else {
        (short(1), word(end - directory), word(directory))
    };
    out.extend(END);
    out.extend([0; 6]);
    out.extend(count);
    out.extend(len);
    out.extend(offset);
    out.extend(short(comment.len()));
    out.extend(comment);
    out
}

fn read(bytes: &[u8]) -> Result<HashMap<String, Span>> {
    entries(&mut Cursor::new(bytes), bytes.len() as u64, Path::new("f.ckpt"))
}

#[test]
fn stored_entry_is_found_with_any_comment_and_width() {
    for wide in [false, true] {
        for comment in [&b""[..], b"text", &[b'P'; 65535]] {
            let bytes = zip("a/data.pkl", b"hello", comment, wide);
            let found = read(&bytes).unwrap()["a/data.pkl"];
            assert_eq!(&bytes[found.offset as usize..][..found.len as usize], b"hello");
        }
    }
}

#[test]
fn every_truncation_and_changed_byte_is_an_error_or_stays_inside_the_file() {
    for wide in [false, true] {
        let bytes = zip("a/data.pkl", b"hello", b"", wide);
        // Miri gets some of them, and tests/miri/damaged.rs.
        let step = if cfg!(miri) { 13 } else { 1 };
        for len in (0..bytes.len()).step_by(step) {
            let refused = read(&bytes[..len]).unwrap_err().to_string();
            assert!(refused.contains("f.ckpt") && refused.contains("offset"), "{refused}");
        }
        for at in (0..bytes.len()).step_by(step) {
            for value in [0, 1, 0x7f, 0x80, 0xfe, 0xff] {
                let mut bad = bytes.clone();
                bad[at] = value;
                for span in read(&bad).into_iter().flatten().map(|(_, span)| span) {
                    assert!(span.offset + span.len <= bytes.len() as u64, "byte {at} = {value}: {span:?}");
                }
            }
        }
    }
}

#[test]
fn a_file_that_is_less_than_an_end_record_has_none() {
    // Found by fuzzing: where arithmetic is checked, the length of the comment overflowed.
    let bytes = [&END[..], &[0; END_BYTES - END.len()]].concat();
    assert!(read(&bytes).unwrap().is_empty());
    for len in 0..bytes.len() {
        let refused = read(&bytes[..len]).unwrap_err().to_string();
        assert!(refused.contains("no end record"), "{refused}");
    }
}

#[test]
fn millions_of_end_records_take_no_time() {
    // Each announces the longest comment; only one whose comment ends the file counts.
    let mut record = END.to_vec();
    record.extend([1, 0, 0, 0, 0, 0, 1, 0, 46, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff]);
    let bytes = record.repeat(1 << 19);
    let start = Instant::now();
    assert!(read(&bytes).is_err());
    assert!(start.elapsed() < Duration::from_secs(2), "{:?}", start.elapsed());
}

#[test]
fn repeated_and_compressed_entries_are_refused() {
    let bytes = zip("a", b"hello", b"", false);
    let directory = bytes.len() - END_BYTES - DIRECTORY_ENTRY_BYTES - 1;
    let mut compressed = bytes.clone();
    compressed[directory + 10] = 8;
    assert!(matches!(read(&compressed), Err(Error::Unsupported(what)) if what.contains("compressed")));
    let entry = &bytes[directory..bytes.len() - END_BYTES];
    let mut twice = [&bytes[..directory], entry, entry, &bytes[bytes.len() - END_BYTES..]].concat();
    let end = twice.len() - END_BYTES;
    twice[end + 10] = 2;
    twice[end + 12] = 2 * entry.len() as u8;
    let refused = read(&twice).unwrap_err().to_string();
    assert!(refused.contains("twice"), "{refused}");
}
