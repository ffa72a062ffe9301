//! Saving the state of a context, and restoring it in another.

use esolm::{Config, Context, ContextParams, Error, GenerateParams, Kernels, KvType, Prompt, Variant};

use crate::extend::{SAME, begin_part, finish, more};
use crate::reference::{MASK, Network, Random, config};
use crate::replay::largest_difference;
use crate::runs::{context, diffusion, params};

#[test]
fn restored_state_continues_as_the_saved_context() {
    for variant in [Variant::EsoB, Variant::Ar] {
        let model = Network::small(variant, 1).model();
        for kv_type in [KvType::F32, KvType::F16] {
            let new = |params: ContextParams| Context::new(&model, &params).unwrap();
            let mut context = new(ContextParams { kv_type, ..params(2) });
            let prompts = begin_part(&mut context, 20, 100);
            let bytes = context.save().unwrap();
            assert_eq!(context.saved_size().unwrap(), bytes.len());
            let (tokens, order) = (context.tokens(0).unwrap().to_vec(), context.order(0).unwrap().to_vec());
            context.extend(&prompts, &more(7)).unwrap();
            let expected = finish(&mut context);
            let mut contexts = [
                (new(ContextParams { kv_type, ..params(2) }), 0.0),
                (new(ContextParams { kv_type, batch_rows: 5, ..params(4) }), SAME),
                // Computed again, in another precision or by other kernels: close.
                (new(ContextParams { kv_type: KvType::F32, ..params(2) }), 5e-2),
                (new(ContextParams { kv_type, kernels: Kernels::Ggml, ..params(2) }), 5e-2),
            ];
            for (number, (context, tolerance)) in contexts.iter_mut().enumerate() {
                // Restoring replaces any generation.
                context.begin(&[Prompt::default()], &more(3)).unwrap();
                context.step().unwrap();
                context.restore(&bytes).unwrap();
                assert_eq!((context.sequences(), context.progress()), (2, (0, 0)));
                assert_eq!(context.tokens(0).unwrap(), tokens);
                assert_eq!(context.order(0).unwrap(), order);
                assert!(context.step().unwrap().is_none());
                let again = context.save().unwrap();
                assert_eq!(context.saved_size().unwrap(), again.len());
                assert!(number > 1 || again == bytes, "saving what was restored");
                context.extend(&prompts, &more(7)).unwrap();
                let first = |run: &[Vec<f32>]| run[..2].to_vec();
                let found = finish(context);
                if *tolerance == 0.0 {
                    assert_eq!(found, expected, "bit by bit");
                }
                let difference = largest_difference(&first(&found.logits), &first(&expected.logits));
                assert!(difference <= *tolerance, "{variant:?} {kv_type:?} {number}: {difference:e}");
            }
        }
    }
}

/// `bytes` with the checksum corrected.
fn with_checksum(mut bytes: Vec<u8>) -> Vec<u8> {
    let body = bytes.len() - 4;
    let crc = crc32fast::hash(&bytes[..body]);
    bytes[body..].copy_from_slice(&crc.to_le_bytes());
    bytes
}

#[test]
fn save_to_replaces_the_file_atomically() {
    let dir = tempfile::tempdir().unwrap();
    let (path, folder) = (dir.path().join("a.state"), dir.path().join("folder"));
    std::fs::create_dir(&folder).unwrap();
    let mut context = context(&Network::small(Variant::EsoB, 1).model(), 2);
    for length in [10, 20] {
        begin_part(&mut context, length, 100);
        context.save_to(&path).unwrap();
        assert_eq!(std::fs::read(&path).unwrap(), context.save().unwrap());
    }
    assert!(matches!(context.save_to(dir.path().join("no/place")), Err(Error::Io { .. })));
    assert!(matches!(context.save_to(&folder), Err(Error::InvalidArgument(_))));
    let unable = self::context(&Network::small(Variant::Mdlm, 1).model(), 1);
    let before = std::fs::read(&path).unwrap();
    assert!(matches!(unable.save_to(&path), Err(Error::Unsupported(_))));
    assert_eq!(std::fs::read(&path).unwrap(), before);
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 2, "nothing is left behind");
}

#[test]
fn restored_cache_is_used() {
    let model = Network::small(Variant::EsoB, 1).model();
    let mut context = context(&model, 2);
    let prompts = begin_part(&mut context, 20, 100);
    let bytes = context.save().unwrap();
    let mut run = |bytes: &[u8]| {
        context.restore(bytes).unwrap();
        context.extend(&prompts, &more(7)).unwrap();
        finish(&mut context)
    };
    let expected = run(&bytes);
    let mut changed = bytes.clone();
    // Set a value in the first sequence's keys to 3.
    let place = (36 + 20 + 20 * 8 + 2000) & !3;
    changed[place..place + 4].copy_from_slice(&3f32.to_le_bytes());
    assert!(largest_difference(&run(&with_checksum(changed)).logits[..1], &expected.logits[..1]) > 1e-3);
}

#[test]
fn saved_size_is_exact_at_every_step() {
    for variant in [Variant::EsoB, Variant::Ar] {
        let model = Network::small(variant, 1).model();
        for (kv_type, kernels) in
            [(KvType::F32, Kernels::Own), (KvType::F16, Kernels::Own), (KvType::F16, Kernels::Ggml)]
        {
            let mut context = Context::new(&model, &ContextParams { kv_type, kernels, ..params(2) }).unwrap();
            let check = |context: &Context| {
                let bytes = context.save().unwrap();
                assert_eq!(context.saved_size().unwrap(), bytes.len());
                bytes.len()
            };
            let mut sizes = vec![check(&context)];
            let prompts = [Prompt::prefix(&[1, 2]).unwrap(), Prompt::default()];
            context.begin(&prompts, &more(3)).unwrap();
            sizes.push(check(&context));
            while context.step().unwrap().is_some() {
                sizes.push(check(&context));
            }
            assert!(sizes.len() > 5 && sizes.is_sorted_by(|a, b| a < b), "{sizes:?}");
        }
    }
}

#[test]
fn damaged_states_are_refused() {
    let model = Network::small(Variant::EsoB, 1).model();
    let mut context = Context::new(&model, &ContextParams { kv_type: KvType::F16, ..params(2) }).unwrap();
    let small = GenerateParams { length: 5, ..diffusion() };
    context.begin(&[Prompt::default()], &small).unwrap();
    finish(&mut context);
    let bytes = context.save().unwrap();
    assert!(bytes.len() > 500, "{}", bytes.len());
    let before = (context.progress(), context.tokens(0).unwrap().to_vec());
    let mut refuse = |bytes: &[u8], what: &str| {
        let error = context.restore(bytes).unwrap_err();
        // A state with more sequences may fit another context.
        let expected = match what {
            "more sequences" => matches!(&error, Error::InvalidArgument(_)),
            _ => matches!(&error, Error::BadFile { .. }),
        };
        assert!(expected, "{what}: {error}");
        assert_eq!((context.progress(), context.tokens(0).unwrap().to_vec()), before);
    };
    for place in 0..bytes.len() {
        let mut changed = bytes.clone();
        for bit in [0, 3, 7] {
            changed[place] = bytes[place] ^ (1 << bit);
            refuse(&changed, &format!("byte {place}"));
        }
        refuse(&bytes[..place], &format!("cut at {place}"));
    }
    refuse(&[&bytes[..], &[0]].concat(), "a byte more");
    // With a correct checksum, the content itself is checked.
    let with = |place: usize, number: u32| {
        let mut changed = bytes.clone();
        changed[place..place + 4].copy_from_slice(&number.to_le_bytes());
        with_checksum(changed)
    };
    for (place, number, what) in [
        (0, 0, "magic"),
        (8, 3, "version"),
        (12, 1, "model"),
        (16, 1, "model"),
        (20, 1, "precision"),
        (20, 2, "no cache"),
        (20, 3, "unknown precision"),
        (24, 2, "sequences"),
        (24, u32::MAX, "more sequences"),
        (28, u32::MAX, "length"),
        (28, 4, "length"),
        (32, 6, "known"),
        (32, u32::MAX, "known"),
        (36, 5, "committed"),
        (36, u32::MAX, "committed"),
        (40, 1, "what ended the text"),
        (40, 4, "a stop string without bytes"),
        (44, 7, "bytes without a stop string"),
        (48, 48, "position"),
        (52, MASK, "token"),
        (52, u32::MAX, "token"),
    ] {
        refuse(&with(place, number), what);
    }
    let position = u32::from_le_bytes(bytes[56..60].try_into().unwrap());
    refuse(&with(48, position), "a position twice");
    refuse(&with_checksum([&bytes[..bytes.len() - 4], &[0; 12]].concat()), "more behind the end");
    refuse(&with(24, 0), "what is left over");
}

#[test]
fn finished_blocks_are_known_in_a_state() {
    let blocks = Config { variant: Variant::Bd3Lm, block_length: 6, ..config(2, 4) };
    let model = Network::random(blocks, 3).model();
    let mut context = context(&model, 1);
    context.begin(&[Prompt::default()], &diffusion()).unwrap();
    while context.cached_tokens(0).unwrap() == 0 {
        context.step().unwrap();
    }
    let mut bytes = context.save().unwrap();
    context.restore(&bytes).unwrap();
    let [length, known, committed] = [28, 32, 36].map(|at| bytes[at]);
    assert!(committed > 0 && known < length);
    // The known one at position 0 is behind all others: a block to be written that has no rows.
    let at =
        (0..known as usize).map(|number| 48 + 8 * number).find(|&at| bytes[at..at + 4] == [0; 4]).unwrap();
    bytes[at] = length - 1;
    let error = context.restore(&with_checksum(bytes)).unwrap_err();
    assert!(error.to_string().contains("finished blocks"), "{error}");
}

#[test]
fn random_changes_with_correct_checksum_do_no_harm() {
    let model = Network::small(Variant::EsoB, 1).model();
    let mut context = context(&model, 2);
    begin_part(&mut context, 20, 100);
    let bytes = context.save().unwrap();
    let mut random = Random(8);
    let mut taken = 0;
    for case in 0..3000 {
        let mut changed = bytes.clone();
        for _ in 0..1 + random.below(3) {
            // Half of the changes in the first bytes, where the sizes are.
            let place = if random.below(2) == 0 { random.below(240) } else { random.below(bytes.len()) };
            changed[place] = random.next() as u8;
        }
        let len = if case % 3 == 0 { 40 + random.below(bytes.len() - 40) } else { bytes.len() };
        changed.truncate(len);
        if context.restore(&with_checksum(changed)).is_ok() {
            taken += 1;
            if taken % 20 == 0
                && context.extend(&vec![Prompt::default(); context.sequences()], &more(1)).is_ok()
            {
                // Keys and values may be any numbers: a text, or an error that says that they are not finite.
                while matches!(context.step(), Ok(Some(_))) {}
            }
        }
    }
    assert!(taken > 300, "{taken}");
}

#[test]
fn state_without_a_generation_restores_to_none() {
    let model = Network::small(Variant::EsoB, 1).model();
    let mut context = Context::new(&model, &params(1)).unwrap();
    let nothing = context.save().unwrap();
    assert_eq!(context.saved_size().unwrap(), nothing.len());
    context.begin(&[Prompt::default()], &more(3)).unwrap();
    context.step().unwrap();
    context.restore(&nothing).unwrap();
    assert_eq!((context.sequences(), context.progress()), (0, (0, 0)));
    assert!(context.step().unwrap().is_none() && context.tokens(0).is_err());
}

#[test]
fn state_of_version_1_is_read() {
    let model = Network::small(Variant::EsoB, 1).model();
    let mut context = context(&model, 2);
    let prompts = begin_part(&mut context, 20, 100);
    let bytes = context.save().unwrap();
    context.extend(&prompts, &more(7)).unwrap();
    let expected = finish(&mut context);
    // The sequences end in their cache: magic and five numbers, then two equal parts, then the checksum.
    let part = (bytes.len() - 28 - 4) / 2;
    let mut old = bytes[..28].to_vec();
    old[8..12].copy_from_slice(&1u32.to_le_bytes());
    for sequence in bytes[28..bytes.len() - 4].chunks(part) {
        old.extend([&sequence[..12], &sequence[20..]].concat());
    }
    old.extend([0; 4]);
    context.restore(&with_checksum(old)).unwrap();
    assert_eq!(context.save().unwrap(), bytes);
    context.extend(&prompts, &more(7)).unwrap();
    assert_eq!(finish(&mut context), expected);
}

#[test]
fn file_is_read_if_it_can_be_a_state_of_this_context() {
    let folder = tempfile::tempdir().unwrap();
    let [file, other] = ["a.state", "b.state"].map(|name| folder.path().join(name));
    let model = Network::small(Variant::EsoB, 1).model();
    let mut larger = context(&model, 3);
    larger.begin(&[const { Prompt { known: Vec::new() } }; 3], &more(3)).unwrap();
    finish(&mut larger);
    larger.save_to(&file).unwrap();
    larger.restore_from(&file).unwrap();
    assert_eq!(Context::saved_sequences(&file).unwrap(), 3);
    let refused =
        |context: &mut Context, path: &std::path::Path| context.restore_from(path).unwrap_err().to_string();
    // The full texts of a context with the precision that takes most are the most that is read.
    let mut same = Context::new(&model, &ContextParams { kv_type: KvType::F32, ..params(3) }).unwrap();
    same.restore_from(&file).unwrap();
    assert_eq!(same.save().unwrap(), std::fs::read(&file).unwrap());
    let message = refused(&mut context(&model, 2), &file);
    assert!(message.contains("a state of 3 sequences, where there is room for 2"), "{message}");
    let shorter = ContextParams { length: 24, ..params(3) };
    let message = refused(&mut Context::new(&model, &shorter).unwrap(), &file);
    assert!(message.contains("a.state: a saved state of ") && message.contains("has room for"), "{message}");
    // A file without end, or nearly so: nothing of it is read but its head.
    for (head, expected) in [
        (&b"ESOLM-"[..], "b.state: saved state: it does not start with the magic bytes"),
        (b"ESOLM-ST\x63", "b.state: saved state: it has version 99"),
        (&std::fs::read(&file).unwrap()[..28], "b.state: a saved state of 1099511627776 bytes"),
    ] {
        std::fs::write(&other, head).unwrap();
        std::fs::File::options().write(true).open(&other).unwrap().set_len(1 << 40).unwrap();
        let message = refused(&mut larger, &other);
        assert!(message.contains(expected), "{message}");
        let count = Context::saved_sequences(&other).map_err(|error| error.to_string());
        assert_eq!(count, if head.len() < 28 { Err(message) } else { Ok(3) });
    }
    for (content, expected) in [(&b""[..], "b.state: saved state: it is cut off"), (b"ESOLM-ST", "cut off")] {
        std::fs::write(&other, content).unwrap();
        let message = refused(&mut larger, &other);
        assert!(message.contains(expected), "{message}");
        assert_eq!(Context::saved_sequences(&other).unwrap_err().to_string(), message);
    }
    let message = refused(&mut larger, folder.path());
    assert!(message.contains("is no regular file"), "{message}");
    assert_eq!(larger.sequences(), 3);
}

/// Conversations that give their places to others meanwhile.
#[test]
fn saved_sequence_goes_on_in_another_place_beside_others() {
    let small = |variant| Network::small(variant, 1).model();
    let others = [crate::wedlm::model("wedlm-qwen3"), crate::bd3lm::network(1).model()];
    for model in [small(Variant::EsoB), small(Variant::Ar)].into_iter().chain(others) {
        let variant = model.config().variant;
        let mut context = context(&model, 3);
        let (question, next) = (Prompt::prefix(&[1, 2, 3]).unwrap(), Prompt::prefix(&[4, 5]).unwrap());
        let how = |seed| GenerateParams {
            length: 0,
            max_tokens: 6,
            seed,
            ignore_eos: true,
            ..GenerateParams::default()
        };
        let finish = |context: &mut Context| while context.step().unwrap().is_some() {};
        let kept = context.add_sequence(&question, &how(1)).unwrap();
        finish(&mut context);
        let bytes = context.save_sequence(kept).unwrap();
        assert_eq!(context.saved_sequence_size(kept).unwrap(), bytes.len());
        let first = context.tokens(kept).unwrap().to_vec();
        context.append_sequence(kept, None, &next, &how(2)).unwrap();
        finish(&mut context);
        let expected = context.tokens(kept).unwrap().to_vec();
        context.remove_sequence(kept).unwrap();
        // Others take its place, one of them in the middle of its text.
        let others = [
            context.add_sequence(&next, &how(3)).unwrap(),
            context.add_sequence(&question, &how(4)).unwrap(),
        ];
        context.step().unwrap();
        let again = context.restore_sequence(&bytes).unwrap();
        assert!(!others.contains(&again), "{variant:?}");
        assert_eq!(context.tokens(again).unwrap(), first, "{variant:?}");
        assert_eq!(context.save_sequence(again).unwrap(), bytes, "{variant:?}");
        context.append_sequence(again, None, &next, &how(2)).unwrap();
        finish(&mut context);
        assert_eq!(context.tokens(again).unwrap(), expected, "{variant:?}");
        // The others were not disturbed.
        for (number, (prompt, seed)) in others.into_iter().zip([(&next, 3), (&question, 4)]) {
            let mut alone = self::context(&model, 1);
            alone.add_sequence(prompt, &how(seed)).unwrap();
            finish(&mut alone);
            assert_eq!(context.tokens(number).unwrap(), alone.tokens(0).unwrap(), "{variant:?}");
        }
        // A state of a whole context that has one sequence is one, too.
        let mut alone = self::context(&model, 1);
        alone.restore(&bytes).unwrap();
        assert_eq!(alone.save().unwrap(), bytes, "{variant:?}");
        assert_eq!(alone.tokens(0).unwrap(), first);
        let full = alone.restore_sequence(&bytes).unwrap_err();
        assert!(full.to_string().contains("in use"), "{full}");
    }
}

#[test]
fn what_is_no_saved_sequence_is_refused_and_changes_nothing() {
    let model = Network::small(Variant::EsoB, 1).model();
    let mut two = context(&model, 3);
    begin_part(&mut two, 20, 100);
    let (both, one) = (two.save().unwrap(), two.save_sequence(1).unwrap());
    let none = context(&model, 1).save().unwrap();
    let before = two.save().unwrap();
    let mut damaged = one.clone();
    damaged[60] ^= 1;
    for (bytes, says) in [
        (&both, "a state of 2 sequences"),
        (&none, "a state without a sequence"),
        (&damaged, "damaged"),
        (&one[..one.len() - 9].to_vec(), "damaged"),
    ] {
        let error = two.restore_sequence(bytes).unwrap_err();
        assert!(error.to_string().contains(says), "{error}");
        assert_eq!((two.sequences(), two.save().unwrap() == before), (2, true));
    }
    let mut short = Context::new(&model, &ContextParams { length: 10, ..params(2) }).unwrap();
    let error = short.restore_sequence(&one).unwrap_err();
    assert!(error.to_string().contains("10 tokens"), "{error}");
    for number in [2, 3] {
        assert!(matches!(two.save_sequence(number), Err(Error::InvalidArgument(_))));
        assert!(matches!(two.saved_sequence_size(number), Err(Error::InvalidArgument(_))));
    }
    let unable = context(&Network::small(Variant::Mdlm, 1).model(), 1);
    assert!(matches!(unable.save_sequence(0), Err(Error::Unsupported(_) | Error::InvalidArgument(_))));
    two.restore_sequence(&one).unwrap();
}
