//! Models from readers and parts of files; locked and prefetched weights; what models support.

use std::cell::RefCell;
use std::io::{self, ErrorKind, Seek, Write};
use std::ops::ControlFlow;

use esolm::{
    Adaptive, Confidence, Config, Error, Feature, GenerateParams, LoadMode, LoadOptions, Model, ModelReader,
    Order, Prompt, ScoreParams, Variant,
};

use crate::reference::{Network, config};
use crate::runs::{context, default_model, diffusion, finish};

/// Reads bytes in pieces of up to `most`, and fails at byte `fails_at`; each second call is interrupted.
struct Pieces<'a> {
    bytes: &'a [u8],
    size: u64,
    most: usize,
    fails_at: Option<usize>,
    calls: usize,
}

impl<'a> Pieces<'a> {
    fn new(bytes: &'a [u8], most: usize) -> Self {
        Self { bytes, size: bytes.len() as u64, most, fails_at: None, calls: 0 }
    }
}

impl ModelReader for Pieces<'_> {
    fn size(&self) -> u64 {
        self.size
    }

    fn read_at(&mut self, offset: u64, buffer: &mut [u8]) -> io::Result<usize> {
        self.calls += 1;
        if self.calls.is_multiple_of(2) {
            return Err(ErrorKind::Interrupted.into());
        }
        let at = offset as usize;
        if self.fails_at.is_some_and(|fails_at| at >= fails_at) {
            return Err(io::Error::other("the archive is damaged"));
        }
        let rest = self.bytes.get(at..).unwrap_or_default();
        let count = rest.len().min(buffer.len()).min(self.most);
        buffer[..count].copy_from_slice(&rest[..count]);
        Ok(count)
    }
}

fn text(model: &Model) -> Vec<u32> {
    let mut context = context(model, 1);
    context.begin(&[Prompt::default()], &diffusion()).unwrap();
    finish(&mut context);
    context.tokens(0).unwrap().to_vec()
}

#[test]
fn reader_gives_the_model_of_its_bytes() {
    let bytes = Network::small(Variant::EsoB, 1).to_gguf();
    let expected = text(&Model::from_bytes(&bytes, &LoadOptions::default()).unwrap());
    for most in [1000, usize::MAX] {
        let mut reader = Pieces::new(&bytes, most);
        let model = Model::from_reader(&mut reader, &LoadOptions::default()).unwrap();
        assert_eq!(model.file_bytes(), bytes.len());
        assert_eq!(text(&model), expected);
        assert!(reader.calls >= 2 * (bytes.len() / most));
    }
}

#[test]
fn readers_that_fail_are_reported() {
    let bytes = Network::small(Variant::EsoB, 1).to_gguf();
    let open = |change: &dyn Fn(&mut Pieces<'_>)| {
        let mut reader = Pieces::new(&bytes, 5000);
        change(&mut reader);
        Model::from_reader(&mut reader, &LoadOptions::default()).unwrap_err()
    };
    let early = open(&|reader| reader.size += 1);
    assert!(matches!(&early, Error::Io { .. }) && early.to_string().contains("it ends at byte"), "{early}");
    let own = open(&|reader| reader.fails_at = Some(9000));
    assert!(matches!(&own, Error::Io { .. }) && own.to_string().contains("the archive is damaged"), "{own}");
    for (size, said) in [(0, "is empty"), (u64::MAX, "address space"), (100, "(reader)")] {
        let error = open(&|reader| reader.size = size);
        assert!(matches!(&error, Error::BadFile { .. }) && error.to_string().contains(said), "{error}");
    }
    let cancel = |_| ControlFlow::Break(());
    let options = LoadOptions { progress: Some(&cancel), ..LoadOptions::default() };
    let cancelled = Model::from_reader(&mut Pieces::new(&bytes, 5000), &options);
    assert!(matches!(cancelled, Err(Error::Cancelled)));
}

#[test]
fn part_of_an_open_file_is_a_model() {
    let bytes = Network::small(Variant::EsoB, 1).to_gguf();
    let expected = text(&Model::from_bytes(&bytes, &LoadOptions::default()).unwrap());
    for before in [0, 13, 64, 4096] {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(&vec![b'x'; before]).unwrap();
        file.write_all(&bytes).unwrap();
        file.rewind().unwrap();
        let (offset, len) = (before as u64, bytes.len() as u64);
        for mode in [LoadMode::Map, LoadMode::Copy] {
            let options = LoadOptions { mode, mlock: true, prefetch: true, ..LoadOptions::default() };
            for len in [None, Some(len)] {
                let model = Model::from_file(&file, offset, len, &options).unwrap();
                assert_eq!(text(&model), expected, "{before} {mode:?}");
            }
            let beyond = Model::from_file(&file, offset, Some(len + 1), &options);
            assert!(matches!(beyond, Err(Error::InvalidArgument(_))));
            assert!(matches!(
                Model::from_file(&file, u64::MAX, Some(1), &options),
                Err(Error::InvalidArgument(_))
            ));
        }
        assert_eq!(file.stream_position().unwrap(), 0);
    }
}

#[test]
fn prefetching_reports_its_progress() {
    let seen = RefCell::new(Vec::new());
    let progress = |fraction| {
        seen.borrow_mut().push(fraction);
        ControlFlow::Continue(())
    };
    let options = LoadOptions { prefetch: true, progress: Some(&progress), ..LoadOptions::default() };
    let model = Model::open(default_model(), &options).unwrap();
    let seen = seen.into_inner();
    assert!(seen.len() > model.file_bytes() / (8 << 20) && seen.is_sorted() && seen.last() == Some(&1.0));
}

/// What models say they can do, they can do, and the rest they refuse.
#[test]
fn features_are_those_of_the_variant() {
    for variant in [Variant::EsoB, Variant::EsoA, Variant::Mdlm, Variant::Ar] {
        let model = Network::random(Config { variant, ..config(1, 4) }, 1).model();
        let has = |feature| model.supports(feature);
        let mut context = context(&model, 1);
        context.begin(&[Prompt::prefix(&[1, 2]).unwrap()], &GenerateParams::default()).unwrap();
        let name = variant.name();
        assert_eq!(has(Feature::States), context.save().is_ok(), "{name}");
        assert_eq!(
            has(Feature::Extend),
            context.extend(&[Prompt::default()], &GenerateParams::default()).is_ok()
        );
        let hole = [Prompt { known: vec![(3, 1), (0, 1)] }];
        assert_eq!(has(Feature::Holes), context.begin(&hole, &GenerateParams::default()).is_ok(), "{name}");
        let strided = GenerateParams {
            order: Order::Strided { stride: 4, shuffle: false },
            ..GenerateParams::default()
        };
        assert_eq!(has(Feature::Orders), context.begin(&[Prompt::default()], &strided).is_ok(), "{name}");
        let adaptive = Adaptive {
            confidence: Confidence::Probability,
            threshold: 0.5,
            window: 4,
            ..Adaptive::default()
        };
        let adaptive = GenerateParams { adaptive: Some(adaptive), alpha_0: 1.0, ..GenerateParams::default() };
        assert_eq!(has(Feature::Adaptive), context.begin(&[Prompt::default()], &adaptive).is_ok(), "{name}");
        let ahead = GenerateParams { lookahead: 2, alpha_0: 0.5, ..GenerateParams::default() };
        assert_eq!(has(Feature::Lookahead), context.begin(&[Prompt::default()], &ahead).is_ok(), "{name}");
        let none = ScoreParams { orders: 0, draws: 0, ..ScoreParams::default() };
        let mut scores = |params: &ScoreParams| {
            context.score_text(&[1, 2, 3], params, |_, _| ControlFlow::Continue(())).is_ok()
        };
        assert_eq!(has(Feature::ScoreOrder), scores(&ScoreParams { orders: 1, ..none }), "{name}");
        let diffusion = ScoreParams { draws: 1, alpha_0: 1.0, ..none };
        assert_eq!(has(Feature::ScoreDiffusion), scores(&diffusion), "{name}");
        assert_eq!(has(Feature::Diffusion), variant != Variant::Ar);
        assert_eq!(has(Feature::Sequential), variant != Variant::Mdlm);
        // It has no tokenizer.
        assert!(![Feature::Text, Feature::StepText, Feature::Grammar, Feature::Chat].into_iter().any(has));
    }
    let model = Model::open(default_model(), &LoadOptions::default()).unwrap();
    // It has no chat template.
    assert!(Feature::ALL.into_iter().all(|feature| model.supports(feature) == (feature != Feature::Chat)));
    let names: std::collections::HashSet<_> = Feature::ALL.into_iter().map(Feature::name).collect();
    assert_eq!(names.len(), Feature::ALL.len());
}
