//! How much memory this process may still take, as far as Linux says so: what the machine has, and what each of the control
//! groups leaves that it is in.

use std::fs;
use std::path::{Component, Path};

/// Bytes that are free for this process; `None` where the operating system does not say.
pub fn available() -> Option<f64> {
    available_under(Path::new("/"))
}

/// The same by the files under `root`, in place of `/`.
///
/// The least counts of `MemAvailable` and of what the memory controller leaves in each group from the process's own up to
/// the root: in version 2 by `memory.max`, in version 1 by `memory.limit_in_bytes`. A container may see itself at the root
/// of a hierarchy that `/proc/self/cgroup` names in full, so folders that are not there are passed over.
fn available_under(root: &Path) -> Option<f64> {
    let mut least = read(root, "proc/meminfo").as_deref().and_then(meminfo);
    let groups = read(root, "proc/self/cgroup").unwrap_or_else(|| "0::/\n1:memory:/".into());
    for line in groups.lines() {
        let mut fields = line.splitn(3, ':').skip(1);
        let (Some(controllers), Some(path)) = (fields.next(), fields.next()) else { continue };
        let hierarchies: &[(&str, &GroupFiles)] = match controllers {
            "" => &[("sys/fs/cgroup", &VERSION_2), ("sys/fs/cgroup/unified", &VERSION_2)],
            list if list.split(',').any(|name| name == "memory") => &[("sys/fs/cgroup/memory", &VERSION_1)],
            _ => continue,
        };
        for (hierarchy, files) in hierarchies {
            for group in upwards(path) {
                let left = files.left(&root.join(hierarchy).join(group));
                least = [least, left].into_iter().flatten().reduce(f64::min);
            }
        }
    }
    least
}

/// What the files of a group are called.
struct GroupFiles {
    limit: &'static str,
    usage: &'static str,
    /// The line of `memory.stat` with file pages that are dropped before anything else is.
    inactive: &'static str,
}

const VERSION_2: GroupFiles =
    GroupFiles { limit: "memory.max", usage: "memory.current", inactive: "inactive_file" };
const VERSION_1: GroupFiles = GroupFiles {
    limit: "memory.limit_in_bytes",
    usage: "memory.usage_in_bytes",
    inactive: "total_inactive_file",
};

impl GroupFiles {
    /// Bytes that the group in `folder` may still take; `None` where it has no limit.
    fn left(&self, folder: &Path) -> Option<f64> {
        let number = |file: &str| read(folder, file)?.trim().parse::<f64>().ok();
        let (limit, usage) = (number(self.limit)?, number(self.usage)?);
        let cache = read(folder, "memory.stat").and_then(|stat| {
            stat.lines().find_map(|line| line.strip_prefix(self.inactive)?.trim().parse::<f64>().ok())
        });
        Some((limit - usage + cache.unwrap_or(0.0)).max(0.0))
    }
}

/// `a/b/c`, `a/b`, `a` and the empty path, of `/a/b/c`; what leads out of the hierarchy is left out.
fn upwards(path: &str) -> impl Iterator<Item = &Path> {
    let path = Path::new(path.trim_start_matches('/'));
    let inside = path.components().all(|component| matches!(component, Component::Normal(_)));
    if inside { path } else { Path::new("") }.ancestors()
}

/// Bytes that `/proc/meminfo` calls available.
fn meminfo(text: &str) -> Option<f64> {
    let line = text.lines().find_map(|line| line.strip_prefix("MemAvailable:"))?;
    line.trim().strip_suffix("kB")?.trim().parse::<f64>().ok().map(|kilobytes| kilobytes * 1024.0)
}

fn read(folder: &Path, file: &str) -> Option<String> {
    fs::read_to_string(folder.join(file)).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What is available where there are these files.
    fn found(files: &[(&str, &str)]) -> Option<f64> {
        let root = tempfile::tempdir().expect("temporary folder");
        for (file, text) in files {
            let path = root.path().join(file);
            fs::create_dir_all(path.parent().expect("a folder")).expect("made");
            fs::write(path, text).expect("written");
        }
        available_under(root.path())
    }

    const MACHINE: (&str, &str) = ("proc/meminfo", "MemTotal: 9000 kB\nMemAvailable:   4000 kB\n");

    #[test]
    fn without_groups_it_is_what_the_machine_has() {
        assert_eq!(found(&[]), None);
        assert_eq!(found(&[MACHINE]), Some(4_096_000.0));
        assert_eq!(found(&[("proc/meminfo", "MemTotal: 9 kB\n")]), None);
        assert!(available().is_none_or(|bytes| bytes >= 0.0));
    }

    #[test]
    fn the_tightest_of_nested_groups_counts_in_version_2() {
        let groups = [
            MACHINE,
            ("proc/self/cgroup", "0::/a.slice/b.scope\n"),
            ("sys/fs/cgroup/a.slice/b.scope/memory.max", "max\n"),
            ("sys/fs/cgroup/a.slice/b.scope/memory.current", "1000\n"),
            ("sys/fs/cgroup/a.slice/memory.max", "50000\n"),
            ("sys/fs/cgroup/a.slice/memory.current", "20000\n"),
            ("sys/fs/cgroup/a.slice/memory.stat", "anon 1\nfile 9000\ninactive_file 7000\nactive_file 1\n"),
        ];
        assert_eq!(found(&groups), Some(37_000.0), "the page cache can be dropped");
        let own =
            [&groups[..2], &[("sys/fs/cgroup/a.slice/b.scope/memory.max", "1500")], &groups[3..]].concat();
        assert_eq!(found(&own), Some(500.0));
        let full = [&groups[..5], &[("sys/fs/cgroup/a.slice/memory.current", "60000")]].concat();
        assert_eq!(found(&full), Some(0.0));
    }

    #[test]
    fn a_group_named_in_full_is_looked_for_at_the_root_too() {
        for group in ["0::/", "0::/docker/0123", "0::/../../elsewhere"] {
            let groups = [
                MACHINE,
                ("proc/self/cgroup", group),
                ("sys/fs/cgroup/memory.max", "3000"),
                ("sys/fs/cgroup/memory.current", "1000"),
            ];
            assert_eq!(found(&groups), Some(2000.0), "{group}");
        }
    }

    #[test]
    fn version_1_and_mixed_hierarchies_are_read() {
        let first = [
            MACHINE,
            ("proc/self/cgroup", "12:cpu,cpuacct:/x\n5:memory:/docker/ab\n1:name=systemd:/y\n0::/z\n"),
            ("sys/fs/cgroup/memory/docker/ab/memory.limit_in_bytes", "9223372036854771712\n"),
            ("sys/fs/cgroup/memory/docker/ab/memory.usage_in_bytes", "1000\n"),
            ("sys/fs/cgroup/memory/docker/memory.limit_in_bytes", "9000"),
            ("sys/fs/cgroup/memory/docker/memory.usage_in_bytes", "4000"),
            ("sys/fs/cgroup/memory/docker/memory.stat", "inactive_file 5\ntotal_inactive_file 1000\n"),
        ];
        assert_eq!(found(&first), Some(6000.0));
        let mixed = [
            &first[..],
            &[
                ("sys/fs/cgroup/unified/z/memory.max", "800"),
                ("sys/fs/cgroup/unified/z/memory.current", "100"),
            ],
        ];
        assert_eq!(found(&mixed.concat()), Some(700.0));
    }
}
