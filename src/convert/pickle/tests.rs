use super::*;

/// Protocol 2: `{"a": [1, -2], "b": b"\xff"}` with bytes as protocol 2 writes them, and a memo.
const SMALL: &[u8] =
    b"\x80\x02}q\x00(X\x01\x00\x00\x00aq\x01]q\x02(K\x01J\xfe\xff\xff\xffeX\x01\x00\x00\x00bq\x03\
c_codecs\nencode\nq\x04X\x02\x00\x00\x00\xc3\xbfq\x05X\x06\x00\x00\x00latin1q\x06\x86q\x07Rq\x08u.";

fn error(bytes: &[u8]) -> String {
    Pickle::parse(bytes, "f.pkl").map(|_| ()).unwrap_err().to_string()
}

/// The pickle of a real checkpoint, which the published crate does not have.
fn real() -> Option<Vec<u8>> {
    let golden = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/tiny-B");
    if !golden.exists() {
        println!("skipped: no {}", golden.display());
        return None;
    }
    let all = std::fs::read(golden.join("checkpoint.ckpt")).unwrap();
    let mut file = std::io::Cursor::new(&all);
    let span = crate::convert::zip::entries(&mut file, all.len() as u64, "golden".as_ref()).unwrap()["archive/data.pkl"];
    Some(all[span.offset as usize..][..span.len as usize].to_vec())
}

#[test]
fn pickled_values_are_read() {
    let pickle = Pickle::parse(SMALL, "f").unwrap();
    let list = pickle.get(pickle.root(), "a").unwrap();
    let [one, two] = *pickle.elements(list) else { unreachable!() };
    assert_eq!(pickle.unsigned(one), Some(1));
    assert!(matches!(pickle.node(two), Node::Int(-2)));
    let b = pickle.get(pickle.root(), "b").unwrap();
    assert_eq!(pickle.bytes(b).unwrap(), Some(vec![0xff]));
    assert_eq!(pickle.class(b).unwrap().1, "encode", "a call is kept, not made");
    assert!(pickle.get(pickle.root(), "c").is_none());
}

#[test]
fn integers_of_any_length_are_read() {
    for (bytes, expected) in [
        (&b"\x80\x02\x8a\x00."[..], Some(0)),
        (b"\x80\x02\x8a\x01\xff.", Some(-1)),
        (b"\x80\x02\x8a\x02\xff\x00.", Some(255)),
        (b"\x80\x02\x8a\x09\xff\xff\xff\xff\xff\xff\xff\xff\x00.", None),
        (b"\x80\x02\x8a\x09\x01\x00\x00\x00\x00\x00\x00\x80\xff.", Some(i64::MIN + 1)),
    ] {
        let pickle = Pickle::parse(bytes, "f").unwrap();
        match (pickle.node(pickle.root()), expected) {
            (Node::Int(int), Some(value)) => assert_eq!(*int, value),
            (Node::BigInt, None) => {}
            other => unreachable!("{other:?}"),
        }
    }
}

#[test]
fn value_may_contain_itself() {
    let pickle = Pickle::parse(b"\x80\x02]q\x00h\x00a.", "f").unwrap();
    assert_eq!(pickle.elements(pickle.root()), [pickle.root()]);
}

#[test]
fn malformed_pickles_are_errors_with_an_offset() {
    assert!(error(b"").contains("offset 0"));
    assert!(error(b"(lp0\n.").contains("protocol 2"));
    assert!(error(b"\x80\x06N.").contains("protocol 6"));
    assert!(error(b"\x80\x02.").contains("empty stack"));
    assert!(error(b"\x80\x02N(.").contains("empty stack"), "a mark protects what lies below it");
    assert!(error(b"\x80\x02Nt.").contains("mark"));
    assert!(error(b"\x80\x02h\x07.").contains("memo entry 7"));
    assert!(error(b"\x80\x02j\xff\xff\xff\xff.").contains("memo entry 4294967295"));
    assert!(error(b"\x80\x02NNa.").contains("no list"));
    assert!(error(b"\x80\x02N(NNu.").contains("no dictionary"));
    assert!(error(b"\x80\x02}(Nu.").contains("without a value"));
    assert!(error(b"\x80\x02NNb.").contains("no object"));
    assert!(error(b"\x80\x02NN\x93.").contains("not text"));
    assert!(error(b"\x80\x02cos").contains("no end"));
    assert!(error(b"\x80\x02i__main__\nx\n.").contains("0x69"));
}

#[test]
fn huge_lengths_are_not_allocated() {
    assert!(error(b"\x80\x02X\xff\xff\xff\xffa.").contains("announced"));
    assert!(error(b"\x80\x04\x8d\xff\xff\xff\xff\xff\xff\xff\xffa.").contains("announced"));
    assert!(error(b"\x80\x04\x8e\xff\xff\xff\xff\xff\xff\xff\x7fa.").contains("announced"));
    assert!(error(b"\x80\x02\x8b\xff\xff\xff\xffa.").contains("announced"));
}

#[test]
fn deep_nesting_needs_no_deep_stack() {
    let mut bytes = b"\x80\x02".to_vec();
    bytes.resize(500_002, b']');
    bytes.resize(1_000_001, b'a');
    bytes.push(b'.');
    assert!(Pickle::parse(&bytes, "f").is_ok());
}

#[test]
fn values_take_memory_in_proportion_to_the_pickle() {
    // By one byte each: values, references to one of them, entries of the memo, tuples, objects.
    for code in [&b"N"[..], b"2", b"\x94", b"\x85", b"2\x81", b"]", b"}"] {
        let mut bytes = b"\x80\x04NN".to_vec();
        bytes.extend(code.repeat((8 << 20) / code.len()));
        let refused = error(&bytes);
        assert!(refused.contains("values") && refused.contains("offset"), "{refused}");
    }
}

#[test]
fn shared_values_are_not_copied() {
    // Each list holds the one before it twice: 2^200 leaves if anyone copied.
    let mut bytes = b"\x80\x02]q\x00".to_vec();
    for _ in 0..200 {
        bytes.extend(b"](h\x00h\x00eq\x00");
    }
    bytes.push(b'.');
    let pickle = Pickle::parse(&bytes, "f").unwrap();
    assert_eq!(pickle.nodes.len(), 201);
}

#[test]
fn truncated_pickle_is_an_error() {
    (0..SMALL.len()).for_each(|len| _ = error(&SMALL[..len]));
    if cfg!(miri) {
        return;
    }
    let Some(bytes) = real() else { return };
    assert!(Pickle::parse(&bytes, "f").is_ok());
    for len in (0..200).chain((200..bytes.len()).step_by(61)) {
        error(&bytes[..len]);
    }
}

#[test]
fn no_changed_byte_crashes() {
    // Miri, which takes a thousand times as long, gets some of them, and tests/miri/damaged.rs.
    let (positions, values) = if cfg!(miri) { (5, 85) } else { (1, 1) };
    for at in (0..SMALL.len()).step_by(positions) {
        for value in (0..=255).step_by(values) {
            let mut bad = SMALL.to_vec();
            bad[at] = value;
            let _ = Pickle::parse(&bad, "f");
        }
    }
    if cfg!(miri) {
        return;
    }
    let Some(bytes) = real() else { return };
    for at in (0..bytes.len()).step_by(97) {
        for mask in [0x01, 0x80, 0xff] {
            let mut bad = bytes.clone();
            bad[at] ^= mask;
            let _ = Pickle::parse(&bad, "f");
        }
    }
}
