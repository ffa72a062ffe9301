//! The families of files, the processes that they run in, and their limits.

use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};
use std::time::{Duration, Instant};

use super::{chat_templates, checkpoints, counting, gguf, llama, others, panels, qwen, shards, tokenizers};

/// Address space of a family's process, in KiB.
const ADDRESS_SPACE: u64 = 3 << 20;
/// Time after which a family is ended. It takes seconds, but other programs may keep the machine busy.
const TIME: Duration = Duration::from_secs(300);

/// What a family does, given a folder to write to.
type Family = fn(&Path) -> Tally;

const FAMILIES: [(&str, Family); 14] = [
    ("gguf_with_any_field_changed_keeps_the_limits", gguf::fields),
    ("gguf_cut_off_anywhere_is_an_error", gguf::truncations),
    ("gguf_of_every_known_attack_is_refused", gguf::attacks),
    ("gguf_metadata_takes_memory_in_proportion", gguf::large_metadata),
    ("gguf_in_panels_is_as_in_rows_or_is_an_error", panels::all),
    ("llama_file_with_any_field_changed_keeps_the_limits", llama::fields),
    ("llama_file_cut_off_anywhere_is_an_error", llama::truncations),
    ("llama_vocabulary_takes_memory_in_proportion", llama::attacks),
    ("tokenizer_takes_time_and_memory_in_proportion", tokenizers::all),
    ("chat_template_takes_time_and_memory_in_proportion", chat_templates::all),
    ("checkpoint_takes_time_and_memory_in_proportion", checkpoints::all),
    ("qwen_folder_with_any_value_changed_keeps_the_limits", qwen::all),
    ("model_in_shards_with_any_fault_is_an_error", shards::all),
    ("what_is_no_file_or_has_no_end_is_refused", others::all),
];

/// What became of a family's files.
#[derive(Default)]
pub struct Tally {
    cases: usize,
    pub refused: usize,
    /// Most memory in proportion to what is allowed, and the longest time.
    memory: f64,
    time: Duration,
    /// What the last refusal said.
    pub said: String,
}

/// The limits of one file: memory of four times the file and 64 MiB, and processor time in proportion, with room for a slow machine.
struct Limits {
    bytes: u64,
    /// Memory besides.
    extra: u64,
}

impl Limits {
    fn of(path: &Path, extra: u64) -> Self {
        Self { bytes: std::fs::metadata(path).map_or(0, |found| found.len()), extra }
    }

    fn memory(&self) -> u64 {
        4 * self.bytes + (64 << 20) + self.extra
    }

    /// A virtual machine may get its memory as it is touched: two seconds for a GiB.
    fn time(&self) -> Duration {
        Duration::from_secs(4) + Duration::from_millis((self.bytes >> 14) + (self.extra >> 19))
    }
}

impl Tally {
    /// Runs `work` on the file at `path` and holds it to the limits and, if it fails, to a message that names the file and
    /// says more. `extra` is memory that is allowed besides: the arena and the text.
    pub fn case<T>(
        &mut self,
        name: &str,
        path: &Path,
        extra: u64,
        work: impl FnOnce(&Path) -> esolm::Result<T>,
    ) -> Option<T> {
        let limits = Limits::of(path, extra);
        let before = counting::start();
        let start = used_time();
        let result = work(path);
        let (time, peak) = (used_time().saturating_sub(start), counting::peak().saturating_sub(before));
        let allowed = limits.memory();
        assert!(
            peak <= allowed,
            "{name}: {peak} bytes of memory, {allowed} are allowed for {} bytes",
            limits.bytes
        );
        assert!(time <= limits.time(), "{name}: {time:?}, {:?} are allowed", limits.time());
        self.cases += 1;
        self.memory = self.memory.max(peak as f64 / allowed as f64);
        self.time = self.time.max(time);
        match result {
            Ok(value) => Some(value),
            Err(error) => {
                let said = error.to_string();
                let file = path.file_name().and_then(|name| name.to_str()).expect("a name");
                // A context has no file: it names the block whose numbers are too large.
                let of_context = matches!(error, esolm::Error::OutOfMemory(_) | esolm::Error::NotFinite(_));
                let tells = of_context || said.contains(file);
                assert!(tells && said.len() > file.len() + 8, "{name}: {said}");
                assert!(said.len() < 1500, "{name}: a message of {} bytes", said.len());
                assert!(!matches!(error, esolm::Error::Internal(_)), "{name}: {said}");
                self.refused += 1;
                self.said = said;
                None
            }
        }
    }
}

/// Runs all families, or those that the arguments name.
pub fn run() -> ExitCode {
    let args: Vec<String> = std::env::args().collect();
    if let [_, child, family, folder] = args.as_slice()
        && child == "child"
    {
        let (_, run) = FAMILIES.iter().find(|(name, _)| name == family).expect("a family");
        let Tally { cases, refused, memory, time, said: _ } = run(Path::new(folder));
        println!(
            "{cases} files, {refused} refused; most memory {:.0} % of the limit, longest {time:?}",
            100.0 * memory
        );
        return ExitCode::SUCCESS;
    }
    let wanted: Vec<&String> = args.iter().skip(1).filter(|arg| !arg.starts_with('-')).collect();
    let mut failed = 0;
    for (name, _) in FAMILIES {
        if !wanted.is_empty() && !wanted.iter().any(|word| name.contains(word.as_str())) {
            continue;
        }
        match in_a_process(name) {
            Ok(said) => println!("test {name} ... ok ({})", said.trim()),
            Err(what) => {
                failed += 1;
                println!("test {name} ... FAILED\n{what}");
            }
        }
    }
    if failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// The time that this process has computed; where the system does not tell, the time of day.
fn used_time() -> Duration {
    let ticks = || {
        let stat = std::fs::read_to_string("/proc/self/stat").ok()?;
        // Behind the name, which may have spaces: in user mode and in the kernel, in hundredths of a second.
        let mut fields = stat.rsplit_once(')')?.1.split_whitespace().skip(11);
        Some(fields.next()?.parse::<u64>().ok()? + fields.next()?.parse::<u64>().ok()?)
    };
    let since_1970 = || std::time::SystemTime::UNIX_EPOCH.elapsed().unwrap_or_default();
    ticks().map_or_else(since_1970, |ticks| Duration::from_millis(10 * ticks))
}

/// Runs a family in a process with limits. Returns what it printed.
fn in_a_process(family: &str) -> Result<String, String> {
    let folder = tempfile::tempdir().expect("a folder");
    let mut command = Command::new("sh");
    command.args(["-c", "ulimit -v $0 && exec \"$@\"", &ADDRESS_SPACE.to_string()]);
    command.arg(std::env::current_exe().expect("this program")).args(["child", family]).arg(folder.path());
    let output = |name: &str| std::fs::File::create(folder.path().join(name)).expect("a file");
    command.stdin(Stdio::null()).stdout(output("stdout")).stderr(output("stderr"));
    let mut child = command.spawn().expect("a shell");
    let start = Instant::now();
    let status = loop {
        match child.try_wait().expect("a child") {
            Some(status) => break Some(status),
            None if start.elapsed() > TIME => {
                let _ = child.kill().and_then(|()| child.wait());
                break None;
            }
            None => std::thread::sleep(Duration::from_millis(20)),
        }
    };
    let said = |name: &str| {
        String::from_utf8_lossy(&std::fs::read(folder.path().join(name)).unwrap_or_default()).into_owned()
    };
    match status {
        Some(status) if status.success() => match said("stderr") {
            // The library prints nothing, also where the tokenizer library would panic.
            printed if printed.is_empty() => Ok(said("stdout")),
            printed => Err(format!("it printed: {printed}")),
        },
        Some(status) => Err(format!("{status}\n{}", said("stderr"))),
        None => Err(format!("not done after {TIME:?}")),
    }
}

/// A file of `files/`.
pub fn given(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/hostile/files").join(name)
}
