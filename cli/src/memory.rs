//! Memory of this process.

use crate::output::human_bytes;

/// Resident memory in bytes, or `None` on systems that do not tell it.
pub fn resident() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|l| l.strip_prefix("VmRSS:"))?;
    Some(line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()? * 1024)
}

/// Runs `work` and tells how much resident memory it added.
pub fn added_by<T>(work: impl FnOnce() -> T) -> (T, Option<u64>) {
    let before = resident();
    let result = work();
    (result, resident().zip(before).map(|(after, before)| after.saturating_sub(before)))
}

/// Resident memory as text.
pub fn describe(bytes: Option<u64>) -> String {
    bytes.map_or("unknown memory".into(), human_bytes)
}
