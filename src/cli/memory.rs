//! Whether a training fits into memory, before it fails to.

/// Bytes that a training holds for each number of the table: the table and its two parts in double precision, and the
/// standardised rows in single precision here and in the engine.
const BYTES: f64 = 8.0 + 8.0 + 4.0 + 4.0;

/// Bytes of memory that are free for this process, where the operating system says so: the least of what the machine
/// has and what the process's group may still take.
pub fn available() -> Option<f64> {
    let read = |path: &str| std::fs::read_to_string(path).ok();
    let machine = read("/proc/meminfo").as_deref().and_then(meminfo);
    let number = |path: &str| read(path)?.trim().parse::<f64>().ok();
    let limit = number("/sys/fs/cgroup/memory.max");
    let group =
        limit.zip(number("/sys/fs/cgroup/memory.current")).map(|(limit, used)| (limit - used).max(0.0));
    match (machine, group) {
        (Some(machine), Some(group)) => Some(machine.min(group)),
        (machine, group) => machine.or(group),
    }
}

/// Bytes that `/proc/meminfo` calls available.
fn meminfo(text: &str) -> Option<f64> {
    let line = text.lines().find_map(|line| line.strip_prefix("MemAvailable:"))?;
    line.trim().strip_suffix("kB")?.trim().parse::<f64>().ok().map(|kilobytes| kilobytes * 1024.0)
}

/// That training on a table of `values` numbers fits into `available` bytes.
///
/// # Errors
/// What it needs, what there is, and what to do.
pub fn check(values: f64, available: Option<f64>) -> Result<(), String> {
    let needed = values * BYTES;
    match available {
        Some(available) if needed > available => Err(format!(
            "training on its {} numbers needs {} of memory, and {} are available; use fewer columns (--columns), or a \
             random part of the rows",
            approximately(values),
            bytes(needed),
            bytes(available)
        )),
        _ => Ok(()),
    }
}

fn approximately(number: f64) -> String {
    for (unit, name) in [(1e9, " billion"), (1e6, " million"), (1e3, " thousand")] {
        if number >= unit {
            return format!("about {:.1}{name}", number / unit);
        }
    }
    format!("{number:.0}")
}

fn bytes(number: f64) -> String {
    for (unit, name) in [(1e12, "TB"), (1e9, "GB"), (1e6, "MB")] {
        if number >= unit {
            return format!("{:.1} {name}", number / unit);
        }
    }
    format!("{number:.0} bytes")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_that_does_not_fit_says_what_it_needs_and_what_there_is() {
        assert_eq!(check(1e6, Some(24e6)), Ok(()));
        assert_eq!(check(1e30, None), Ok(()));
        let message = check(2e9, Some(8e9)).expect_err("too large");
        assert!(
            message.contains("about 2.0 billion numbers needs 48.0 GB") && message.contains("8.0 GB are"),
            "{message}"
        );
    }

    #[test]
    fn available_memory_is_read_from_the_line_that_says_so() {
        assert_eq!(meminfo("MemTotal: 9 kB\nMemAvailable:   16 kB\n"), Some(16384.0));
        assert_eq!(meminfo("MemTotal: 9 kB\n"), None);
        assert!(available().is_none_or(|bytes| bytes >= 0.0));
    }
}
