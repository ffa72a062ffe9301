//! How much of the machine's memory this process may still take. Linux and Android.

use std::fs;
use std::path::{Path, PathBuf};

/// Free memory and all memory in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct HostMemory {
    /// What can be had without swapping, files that are only cached included, as far as the process's control groups let it.
    pub free: u64,
    /// The machine's, or less if a control group allows less.
    pub total: u64,
}

impl HostMemory {
    /// What the system says; `None` if it does not.
    pub(crate) fn now() -> Option<Self> {
        Self::read(Path::new("/"))
    }

    /// As [`HostMemory::now`], of the files below `root`.
    fn read(root: &Path) -> Option<Self> {
        let info = fs::read_to_string(root.join("proc/meminfo")).ok()?;
        let kib = |name: &str| field(&info, name)?.strip_suffix("kB")?.trim().parse::<u64>().ok();
        let machine = Self { free: kib("MemAvailable:")? * 1024, total: kib("MemTotal:")? * 1024 };
        let groups = fs::read_to_string(root.join("proc/self/cgroup")).unwrap_or_default();
        let limits = groups.lines().filter_map(|line| memory_group(root, line)).flat_map(limits);
        Some(limits.fold(machine, |least, limit| Self {
            free: least.free.min(limit.free),
            total: least.total.min(limit.total),
        }))
    }
}

/// The value of a line of a file of the system.
fn field<'a>(text: &'a str, name: &str) -> Option<&'a str> {
    text.lines().find_map(|line| line.strip_prefix(name)).map(str::trim)
}

/// What a version of control groups calls its files, and where a group is.
struct Group {
    top: PathBuf,
    path: PathBuf,
    limit: &'static str,
    used: &'static str,
    cached: &'static str,
}

/// The group of a line of `/proc/self/cgroup`, if it limits memory: `0::PATH` of version 2, `NUMBER:memory:PATH` of 1.
fn memory_group(root: &Path, line: &str) -> Option<Group> {
    let mut parts = line.splitn(3, ':').skip(1);
    let (controllers, path) = (parts.next()?, parts.next()?.trim_start_matches('/'));
    let mounts = root.join("sys/fs/cgroup");
    let group = |top: PathBuf, [limit, used, cached]: [&'static str; 3]| Group {
        path: top.join(path),
        top,
        limit,
        used,
        cached,
    };
    if controllers.is_empty() {
        let unified = mounts.join("unified");
        let top = if unified.is_dir() { unified } else { mounts };
        return Some(group(top, ["memory.max", "memory.current", "inactive_file "]));
    }
    let names = ["memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file "];
    controllers.split(',').any(|name| name == "memory").then(|| group(mounts.join("memory"), names))
}

/// The limits of a group and of those that it is in. (In a container the path may be one that is not mounted there, with the
/// container's own group at the top.)
fn limits(group: Group) -> impl Iterator<Item = HostMemory> {
    let Group { top, path, limit, used, cached } = group;
    let folders: Vec<PathBuf> =
        path.ancestors().take_while(|p| p.starts_with(&top)).map(PathBuf::from).collect();
    folders.into_iter().filter_map(move |folder| {
        let number = |name: &str| fs::read_to_string(folder.join(name)).ok()?.trim().parse::<u64>().ok();
        let (total, used) = (number(limit)?, number(used)?);
        // Files that are only cached give way.
        let stat = fs::read_to_string(folder.join("memory.stat")).unwrap_or_default();
        let cached = field(&stat, cached).and_then(|bytes| bytes.parse().ok()).unwrap_or(0);
        Some(HostMemory { free: total.saturating_sub(used.saturating_sub(cached)), total })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = 1 << 20;

    fn machine(groups: &str, files: &[(&str, u64)]) -> (tempfile::TempDir, Option<HostMemory>) {
        let root = tempfile::tempdir().unwrap();
        let write = |file: &str, text: &str| {
            let file = root.path().join(file);
            fs::create_dir_all(file.parent().unwrap()).unwrap();
            fs::write(file, text).unwrap();
        };
        write("proc/meminfo", "MemTotal:       65536 kB\nMemFree:   1024 kB\nMemAvailable:   32768 kB\n");
        write("proc/self/cgroup", groups);
        for (file, bytes) in files {
            match file.split_once(' ') {
                Some((file, name)) => write(file, &format!("anon 1\n{name} {bytes}\nother 2\n")),
                None => write(file, &format!("{bytes}\n")),
            }
        }
        let memory = HostMemory::read(root.path());
        (root, memory)
    }

    #[test]
    fn free_memory_is_what_is_available_within_all_limits() {
        let of = |groups: &str, files: &[(&str, u64)]| machine(groups, files).1.unwrap();
        let all = HostMemory { free: 32 * MIB, total: 64 * MIB };
        assert_eq!(of("", &[]), all);
        assert_eq!(of("0::/\n", &[]), all);
        // Version 2: the group, and the one that it is in.
        let group = [
            ("sys/fs/cgroup/a/memory.max", 16 * MIB),
            ("sys/fs/cgroup/a/memory.current", 10 * MIB),
            ("sys/fs/cgroup/a/memory.stat inactive_file", 4 * MIB),
            ("sys/fs/cgroup/a/b/memory.max", 12 * MIB),
            ("sys/fs/cgroup/a/b/memory.current", MIB),
        ];
        assert_eq!(of("0::/a/b\n", &group), HostMemory { free: 10 * MIB, total: 12 * MIB });
        assert_eq!(of("0::/a\n", &group), HostMemory { free: 10 * MIB, total: 16 * MIB });
        // A limit below what is used, and one above what the machine has.
        let [max, used] = ["sys/fs/cgroup/memory.max", "sys/fs/cgroup/memory.current"];
        assert_eq!(of("0::/x/y\n", &[(max, MIB), (used, 2 * MIB)]), HostMemory { free: 0, total: MIB });
        assert_eq!(of("0::/\n", &[(max, u64::MAX), (used, MIB)]), all);
        // Version 1.
        let group = [
            ("sys/fs/cgroup/memory/a/memory.limit_in_bytes", 8 * MIB),
            ("sys/fs/cgroup/memory/a/memory.usage_in_bytes", 6 * MIB),
            ("sys/fs/cgroup/memory/a/memory.stat total_inactive_file", MIB),
        ];
        assert_eq!(of("5:cpu:/a\n4:memory:/a\n0::/\n", &group), HostMemory { free: 3 * MIB, total: 8 * MIB });
        assert_eq!(of("5:cpu:/a\n", &group), all);
    }

    #[test]
    fn nothing_is_known_where_the_system_does_not_say() {
        let empty = tempfile::tempdir().unwrap();
        assert_eq!(HostMemory::read(empty.path()), None);
    }
}
