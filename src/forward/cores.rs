//! How many threads to start.

use crate::error::{Error, Result};
use crate::ggml::MAX_THREADS;

/// The number of threads to start for a caller's `threads`. 0: one for each processor that the process may use (its
/// affinity mask and the quota of its control group), or if some of these are faster than others, for each of the faster
/// ones.
///
/// # Errors
/// [`Error::InvalidArgument`] for more than [`MAX_THREADS`].
pub(crate) fn count_threads(threads: usize) -> Result<usize> {
    match threads {
        0 => {
            let all = std::thread::available_parallelism().map_or(1, usize::from);
            Ok(fast_processors().map_or(all, |fast| fast.min(all)).clamp(1, MAX_THREADS))
        }
        1..=MAX_THREADS => Ok(threads),
        _ => Err(Error::invalid(format!("{threads} threads; at most {MAX_THREADS}"))),
    }
}

/// How many of the processors that this thread may run on are of the fast kind; nothing if there is one kind, or the system
/// does not say.
#[cfg(any(target_os = "linux", target_os = "android"))]
fn fast_processors() -> Option<usize> {
    let allowed = rustix::thread::sched_getaffinity(None).ok()?;
    let is_allowed = |cpu: usize| cpu < rustix::thread::CpuSet::MAX_CPU && allowed.is_set(cpu);
    let folder = std::path::Path::new("/sys/devices");
    // Intel's processors with cores of two kinds list the fast ones.
    if let Ok(list) = std::fs::read_to_string(folder.join("cpu_core/cpus")) {
        let fast = parse_list(&list).ok()?.into_iter().filter(|&cpu| is_allowed(cpu)).count();
        return Some(fast).filter(|&fast| fast > 0);
    }
    // Arm's have a capacity each, in relation to the fastest.
    let capacity = |cpu: usize| {
        let path = folder.join(format!("system/cpu/cpu{cpu}/cpu_capacity"));
        std::fs::read_to_string(path).ok()?.trim().parse().ok()
    };
    let allowed = (0..rustix::thread::CpuSet::MAX_CPU).filter(|&cpu| is_allowed(cpu));
    count_fast(&allowed.map_while(capacity).collect::<Vec<u32>>())
}

#[cfg(not(any(target_os = "linux", target_os = "android")))]
fn fast_processors() -> Option<usize> {
    None
}

/// How many processors of these capacities are fast: those with at least half of the largest capacity. (Phones have one or
/// two largest cores, some large ones, and small ones with a third of the capacity or less.)
#[cfg_attr(not(any(target_os = "linux", target_os = "android")), allow(dead_code))]
fn count_fast(capacities: &[u32]) -> Option<usize> {
    let largest = *capacities.iter().max()?;
    Some(capacities.iter().filter(|&&capacity| capacity >= largest.div_ceil(2)).count())
}

/// The numbers of a list of processors such as `0-3,8`, as the system writes them and people do.
///
/// # Errors
/// [`Error::InvalidArgument`] for what is no such list.
pub(super) fn parse_list(list: &str) -> Result<Vec<usize>> {
    let number = |text: &str| {
        let number = text.trim().parse::<u16>().map(usize::from);
        number.map_err(|_| Error::invalid(format!("'{}' is no number of a processor", text.trim())))
    };
    let mut numbers = Vec::new();
    for part in list.split(',') {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        let (first, last) = (number(first)?, number(last)?);
        if first > last {
            return Err(Error::invalid(format!(
                "processors {first} to {last}: the first comes after the last"
            )));
        }
        numbers.extend(first..=last);
    }
    Ok(numbers)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_of_processors_are_read() {
        assert_eq!(parse_list("0-3,8\n").unwrap(), [0, 1, 2, 3, 8]);
        assert_eq!(parse_list(" 2 , 4 - 5").unwrap(), [2, 4, 5]);
        for (list, says) in [
            ("", "'' is no number"),
            ("0-x", "'x' is no number"),
            ("1,", "'' is no number"),
            ("0-99999999", "'99999999' is no number"),
            ("3-1", "processors 3 to 1"),
        ] {
            let error = parse_list(list).unwrap_err().to_string();
            assert!(error.contains(says), "{error}");
        }
    }

    #[test]
    fn small_cores_are_not_counted() {
        // Snapdragon 8 Gen 2: 1 + 4 + 3; Raspberry Pi 5: four alike.
        assert_eq!(count_fast(&[325, 325, 325, 828, 828, 828, 828, 1024]), Some(5));
        assert_eq!(count_fast(&[1024; 4]), Some(4));
        assert_eq!(count_fast(&[]), None);
    }

    #[test]
    fn default_is_at_most_what_the_process_may_use() {
        let all = std::thread::available_parallelism().map_or(1, usize::from);
        assert!((1..=all).contains(&count_threads(0).unwrap()));
        assert_eq!(count_threads(3).unwrap(), 3);
        assert!(count_threads(MAX_THREADS + 1).is_err());
    }
}
