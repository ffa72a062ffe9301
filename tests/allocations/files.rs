//! Model files that are opened, quantized and converted where an allocation fails, alone or with all behind it, and a tokenizer
//! that is used at first then: an error, each in a process of its own. What ends the process instead is small, or the tokenizer
//! library's, and counted.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::Ordering;

use esolm::convert::{Options, convert};
use esolm::gguf::TensorType;
use esolm::quantize::{QuantizeOptions, quantize};
use esolm::{Error, LoadOptions, Model};

use super::{ALLOCATIONS, FAILING, FOR_GOOD, LEAST};

/// Says to a process of its own which of the [`CASES`] to try, of how many bytes an allocation is counted, which one fails,
/// and whether those behind it do, too.
const CASE: &str = "ESOLM_FAILING_ALLOCATION_OF_FILE";
/// Say which file it is, and what is to come of it.
const INPUT: &str = "ESOLM_FAILING_ALLOCATION_IN";
const EXPECTED: &str = "ESOLM_FAILING_ALLOCATION_EXPECTED";
/// Bytes of an allocation that depends on what is in a file. Below are names, what messages are made of, and the values of
/// these files' JSON.
const LARGE: usize = 4096;
/// Allocations of any size that are tried of a case.
const TRIED: usize = 150;

type Result<T> = std::result::Result<T, Box<dyn std::error::Error>>;

/// What is done with a file.
struct Case {
    name: &'static str,
    input: &'static str,
    run: fn(&Path, &Path) -> esolm::Result<()>,
    /// How many of a hundred large allocations, and of all that are tried, may end the process: in converting, those of JSON and
    /// of the header of safetensors files, whose libraries cannot be refused (their size is limited); of a tokenizer, its
    /// library's tables; otherwise, names of files and what is asked of the system.
    most_ended: [usize; 2],
}

const CASES: [Case; 5] = [
    Case { name: "open", input: "models/stories-q8_0.gguf", run: open, most_ended: [0, 3] },
    Case { name: "quantize", input: "models/stories-q8_0.gguf", run: requantize, most_ended: [0, 2] },
    Case {
        name: "convert a pickle",
        input: "tests/golden/tiny-A/checkpoint.ckpt",
        run: make,
        most_ended: [0, 8],
    },
    Case { name: "convert shards", input: "tests/golden/wedlm-qwen3", run: make, most_ended: [0, 50] },
    Case { name: "tokenizer", input: "models/stories-q8_0.gguf", run: tokenizer, most_ended: [75, 90] },
];

fn open(input: &Path, _: &Path) -> esolm::Result<()> {
    Model::open(input, &LoadOptions { device: "cpu".into(), ..LoadOptions::default() }).map(|_| ())
}

fn requantize(input: &Path, output: &Path) -> esolm::Result<()> {
    let options = QuantizeOptions { threads: 1, ..QuantizeOptions::new(TensorType::Q4_0) };
    quantize(input, output, &options, &mut |_| ()).map(|_| ())
}

fn make(input: &Path, output: &Path) -> esolm::Result<()> {
    let options = Options { threads: 1, tensor_type: TensorType::Q8_0, ..Options::default() };
    convert(input, output, &options, &mut |_| ()).map(|_| ())
}

/// The first use of a tokenizer, which works the next time if there was no memory.
fn tokenizer(input: &Path, _: &Path) -> esolm::Result<()> {
    let failing = FAILING.swap(0, Ordering::Relaxed);
    let model = Model::open(input, &LoadOptions { device: "cpu".into(), ..LoadOptions::default() })?;
    ALLOCATIONS.store(0, Ordering::Relaxed);
    FAILING.store(failing, Ordering::Relaxed);
    let first = model.tokenizer().map(|_| ());
    let counted = ALLOCATIONS.load(Ordering::Relaxed);
    FAILING.store(0, Ordering::Relaxed);
    if matches!(first, Err(Error::OutOfMemory(_))) {
        assert!(!model.tokenizer()?.encode("once upon a time")?.is_empty());
    }
    ALLOCATIONS.store(counted, Ordering::Relaxed);
    first
}

/// What `main` does first: in a process that is to try a case, nothing else. Whether it is one.
pub(super) fn in_its_own_process() -> Result<bool> {
    let Ok(case) = std::env::var(CASE) else { return Ok(false) };
    let numbers: std::result::Result<Vec<usize>, _> = case.split(' ').map(str::parse).collect();
    let &[case, least, failing, for_good] = numbers?.as_slice() else { return Err("four numbers".into()) };
    let case = CASES.get(case).ok_or("a case")?;
    let folder = tempfile::tempdir()?;
    let (input, output) = (PathBuf::from(std::env::var(INPUT)?), folder.path().join("made.gguf"));
    ALLOCATIONS.store(0, Ordering::Relaxed);
    LEAST.store(least, Ordering::Relaxed);
    FOR_GOOD.store(for_good > 0, Ordering::Relaxed);
    FAILING.store(failing, Ordering::Relaxed);
    let done = (case.run)(&input, &output);
    FAILING.store(0, Ordering::Relaxed);
    println!("{} {}", ALLOCATIONS.load(Ordering::Relaxed), done.is_err());
    match done {
        // One that can be done without.
        Ok(()) if !output.exists() => (),
        Ok(()) => assert!(std::fs::read(&output)? == std::fs::read(std::env::var(EXPECTED)?)?),
        Err(Error::OutOfMemory(_)) if failing > 0 => assert!(!output.exists()),
        Err(error) => return Err(error.into()),
    }
    Ok(true)
}

/// The file of a case; a checkpoint without its tokenizer, whose library cannot be refused.
fn input(case: &Case, folder: &Path) -> Result<PathBuf> {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join(case.input);
    if file.extension().is_none_or(|ending| ending != "ckpt") {
        return Ok(file);
    }
    let mut bytes = std::fs::read(&file)?;
    let name = b"tokenizers";
    let places: Vec<usize> =
        bytes.windows(name.len()).enumerate().filter(|(_, found)| found == name).map(|(at, _)| at).collect();
    assert!(!places.is_empty());
    places.into_iter().for_each(|at| bytes[at] = b'T');
    let changed = folder.join("checkpoint.ckpt");
    std::fs::write(&changed, bytes)?;
    Ok(changed)
}

/// The allocations of at least `least` bytes of a case, and whether it was refused; `None` if it ended the process.
fn run(
    case: (usize, &Path, &Path),
    least: usize,
    failing: usize,
    for_good: bool,
) -> Result<Option<(usize, bool)>> {
    let mut command = Command::new(std::env::current_exe()?);
    let (number, input, expected) = case;
    let case = format!("{number} {least} {failing} {}", u8::from(for_good));
    command.env(CASE, &case).env(INPUT, input).env(EXPECTED, expected);
    let output = command.stderr(Stdio::piped()).output()?;
    let said = String::from_utf8_lossy(&output.stderr);
    if output.status.success() {
        let said = String::from_utf8(output.stdout)?;
        let (count, refused) = said.trim().split_once(' ').ok_or("a number and whether it is refused")?;
        return Ok(Some((count.parse()?, refused.parse()?)));
    }
    // Anything else would be a fault of the library's.
    assert!(said.contains("memory allocation of"), "{case}: {said}");
    Ok(None)
}

/// What came of allocations that failed.
#[derive(Default)]
struct Outcomes {
    tried: usize,
    refused: usize,
    /// The process.
    ended: usize,
}

/// Of the allocations of at least `least` bytes, at most `most` are tried.
fn count(case: (usize, &Path, &Path), least: usize, most: usize) -> Result<Outcomes> {
    let (all, _) = run(case, least, 0, false)?.ok_or("it ends without a fault")?;
    let mut outcomes = Outcomes::default();
    for failing in (1..=all).step_by(all / most + 1) {
        for for_good in [false, true] {
            outcomes.tried += 1;
            match run(case, least, failing, for_good)? {
                Some((_, refused)) => outcomes.refused += usize::from(refused),
                None => outcomes.ended += 1,
            }
        }
    }
    Ok(outcomes)
}

pub(super) fn files_are_refused_without_memory() -> Result<()> {
    let folder = tempfile::tempdir()?;
    for (number, case) in CASES.iter().enumerate() {
        let input = input(case, folder.path())?;
        let expected = tempfile::tempdir_in(folder.path())?.keep().join("made.gguf");
        (case.run)(&input, &expected)?;
        let large = count((number, &input, &expected), LARGE, usize::MAX - 1)?;
        let all = count((number, &input, &expected), 0, TRIED)?;
        println!(
            "{}: {} of {} large allocations end the process, {} of {} of all",
            case.name, large.ended, large.tried, all.ended, all.tried
        );
        for (outcomes, most) in [&large, &all].into_iter().zip(case.most_ended) {
            assert!(100 * outcomes.ended <= most * outcomes.tried, "{}", case.name);
        }
        assert!(large.refused > 4 && all.tried > TRIED && all.refused > 20, "{}: too few", case.name);
    }
    Ok(())
}
