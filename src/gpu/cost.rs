//! What a plan costs: its dispatches as a table, and the time that a roofline gives them.
//! A plan is made before a device is opened, so both are known without one; the benches divide the same FLOPs and
//! bytes by measured times.

use std::fmt;

use super::plan::{Dispatch, Plan, Program};

/// A device in three numbers, none of which a dispatch can beat (Williams, Waterman and Patterson, "Roofline: an
/// insightful visual performance model for multicore architectures", 2009).
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Roofline {
    /// Floating-point operations a second.
    pub flops: f64,
    /// Bytes a second to and from memory.
    pub bandwidth: f64,
    /// Seconds that each dispatch costs whatever it does.
    pub dispatch_cost: f64,
}

impl Roofline {
    /// Seconds that `dispatch` takes at least: max(FLOPs / flops, bytes / bandwidth) + dispatch cost.
    pub fn dispatch(&self, dispatch: &Dispatch) -> f64 {
        let (flops, bytes) = (dispatch.flops as f64, dispatch.bytes as f64);
        (flops / self.flops).max(bytes / self.bandwidth) + self.dispatch_cost
    }

    /// Seconds that `program` takes at least; its dispatches wait for each other.
    pub fn program(&self, program: &Program) -> f64 {
        program.dispatches.iter().map(|dispatch| self.dispatch(dispatch)).sum()
    }
}

/// A program as an aligned table: a headline, one line for each dispatch, and the totals.
#[derive(Clone, Copy, Debug)]
pub struct Table<'a> {
    program: &'a Program,
    roofline: Option<Roofline>,
}

impl Program {
    /// The table of its dispatches, with a column of times where there is a `roofline`.
    pub fn table(&self, roofline: Option<Roofline>) -> Table<'_> {
        Table { program: self, roofline }
    }
}

impl fmt::Display for Program {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.table(None).fmt(f)
    }
}

/// Columns that hold words; numbers follow.
const WORDS: usize = 2;

impl fmt::Display for Table<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let program = self.program;
        let (flops, bytes, count) = (program.flops(), program.bytes(), program.dispatches.len());
        let plural = if count == 1 { "" } else { "es" };
        write!(f, "{}: {count} dispatch{plural}", program.name)?;
        write!(f, ", {}, {}", si(flops as f64, "FLOP"), si(bytes as f64, "B"))?;
        if let Some(roofline) = &self.roofline {
            write!(f, ", at least {}", si(roofline.program(program), "s"))?;
        }
        writeln!(f)?;

        let costs = |flops: u64, bytes: u64| {
            [si(flops as f64, "FLOP"), si(bytes as f64, "B"), format!("{:.2}", intensity(flops, bytes))]
        };
        let mut rows =
            vec![["kernel", "what for", "workgroups", "work", "memory", "FLOP/B"].map(str::to_owned)];
        let mut times = vec!["at least".to_owned()];
        for dispatch in &program.dispatches {
            let [x, y, z] = dispatch.workgroups;
            let [work, memory, intensity] = costs(dispatch.flops, dispatch.bytes);
            rows.push([
                dispatch.kernel.name.to_owned(),
                dispatch.label.clone(),
                format!("{x}×{y}×{z}"),
                work,
                memory,
                intensity,
            ]);
            times.extend(self.roofline.map(|roofline| si(roofline.dispatch(dispatch), "s")));
        }
        let [work, memory, intensity] = costs(flops, bytes);
        rows.push(["total".to_owned(), String::new(), String::new(), work, memory, intensity]);
        times.extend(self.roofline.map(|roofline| si(roofline.program(program), "s")));

        let mut table: Vec<Vec<String>> = rows.into_iter().map(Vec::from).collect();
        if self.roofline.is_some() {
            for (row, time) in table.iter_mut().zip(times) {
                row.push(time);
            }
        }
        let widths: Vec<usize> = (0..table[0].len())
            .map(|column| table.iter().map(|row| row[column].chars().count()).max().unwrap_or_default())
            .collect();
        for row in &table {
            for (column, (cell, width)) in row.iter().zip(&widths).enumerate() {
                if column < WORDS {
                    write!(f, "  {cell:<width$}")?;
                } else {
                    write!(f, "  {cell:>width$}")?;
                }
            }
            writeln!(f)?;
        }
        Ok(())
    }
}

impl fmt::Display for Plan {
    /// Its memory in one line, then the table of every program.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}", self.memory())?;
        for program in &self.programs {
            write!(f, "\n{program}")?;
        }
        Ok(())
    }
}

impl Plan {
    /// Number, bytes and largest of its buffers, in one line.
    pub fn memory(&self) -> String {
        let mut text = format!("{} buffers, {}", self.buffers.len(), si(self.bytes() as f64, "B"));
        if let Some(largest) = self.buffers.iter().max_by_key(|buffer| buffer.bytes) {
            text += &format!("; the largest is '{}' of {}", largest.label, si(largest.bytes as f64, "B"));
        }
        text
    }
}

/// Floating-point operations for each byte moved; 0 where nothing is.
fn intensity(flops: u64, bytes: u64) -> f64 {
    if bytes == 0 { 0.0 } else { flops as f64 / bytes as f64 }
}

/// A quantity to three digits with the SI prefix that suits it: `4.10 kB`, `134 MFLOP`, `2.50 µs`.
pub fn si(value: f64, unit: &str) -> String {
    /// Prefixes from 10⁻⁹ in steps of a thousand; the empty one stands for 1.
    const PREFIXES: [&str; 9] = ["n", "µ", "m", "", "k", "M", "G", "T", "P"];
    const ONE: usize = 3;

    if value == 0.0 || !value.is_finite() {
        return format!("{value} {unit}");
    }
    let mut place = 0;
    let mut scaled = value * 1e9;
    // 999.5 would be rounded to four digits.
    while scaled.abs() >= 999.5 && place + 1 < PREFIXES.len() {
        scaled /= 1000.0;
        place += 1;
    }
    let whole = place == ONE && value.fract() == 0.0;
    let decimals = match scaled.abs() {
        _ if whole => 0,
        size if size < 9.995 => 2,
        size if size < 99.95 => 1,
        _ => 0,
    };
    format!("{scaled:.decimals$} {}{unit}", PREFIXES[place])
}

#[cfg(test)]
mod tests {
    use super::super::kernel::{ADAM_UPDATE, GATHER};
    use super::*;

    fn dispatch(flops: u64, bytes: u64) -> Dispatch {
        Dispatch {
            kernel: &GATHER,
            constants: Vec::new(),
            label: "rows".into(),
            uniform: Vec::new(),
            buffers: Vec::new(),
            workgroups: [2, 1, 1],
            flops,
            bytes,
        }
    }

    fn program() -> Program {
        let mut program = Program::new("example");
        program.dispatches.push(dispatch(0, 4096));
        program.dispatches.push(Dispatch {
            kernel: &ADAM_UPDATE,
            label: "parameters".into(),
            ..dispatch(2_000_000, 1000)
        });
        program
    }

    #[test]
    fn quantities_have_three_digits_and_their_prefix() {
        for (value, text) in [
            (0.0, "0 B"),
            (7.0, "7 B"),
            (512.0, "512 B"),
            (999.0, "999 B"),
            (1000.0, "1.00 kB"),
            (4096.0, "4.10 kB"),
            (99_940.0, "99.9 kB"),
            (99_960.0, "100 kB"),
            (999_600.0, "1.00 MB"),
            (134_217_728.0, "134 MB"),
            (2.5e-6, "2.50 µB"),
            (0.25, "250 mB"),
            (1.5, "1.50 B"),
            (3e19, "30000 PB"),
        ] {
            assert_eq!(si(value, "B"), text);
        }
    }

    #[test]
    fn a_roofline_takes_the_slower_of_compute_and_memory_for_each_dispatch() {
        let roofline = Roofline { flops: 1e9, bandwidth: 1e6, dispatch_cost: 1e-3 };
        let program = program();
        let [gather, adam] = [0, 1].map(|index| roofline.dispatch(&program.dispatches[index]));
        assert!((gather - (4.096e-3 + 1e-3)).abs() < 1e-12, "bound by memory: {gather}");
        assert!((adam - (2e-3 + 1e-3)).abs() < 1e-12, "bound by compute: {adam}");
        assert!((roofline.program(&program) - gather - adam).abs() < 1e-12);
    }

    #[test]
    fn tables_are_aligned_and_end_in_totals() {
        let text = program().to_string();
        let want = "\
example: 2 dispatches, 2.00 MFLOP, 5.10 kB
  kernel  what for    workgroups       work   memory   FLOP/B
  gather  rows             2×1×1     0 FLOP  4.10 kB     0.00
  adam    parameters       2×1×1  2.00 MFLOP  1.00 kB  2000.00
  total                           2.00 MFLOP  5.10 kB   392.46
";
        // Alignment is checked by width, since the text above is easier to read than to count.
        assert_eq!(
            text.split_whitespace().collect::<Vec<_>>(),
            want.split_whitespace().collect::<Vec<_>>(),
            "{text}"
        );
        let widths: Vec<usize> = text.lines().skip(1).map(|line| line.chars().count()).collect();
        assert!(widths.iter().all(|&width| width == widths[0]), "{text}");

        let roofline = Roofline { flops: 1e9, bandwidth: 1e6, dispatch_cost: 1e-3 };
        let text = program().table(Some(roofline)).to_string();
        let last: Vec<&str> = text.lines().map(|line| line.rsplit("  ").next().unwrap_or_default()).collect();
        assert_eq!(last[1..], ["at least", "5.10 ms", "3.00 ms", "8.10 ms"], "{text}");
        assert!(text.starts_with("example: 2 dispatches, 2.00 MFLOP, 5.10 kB, at least 8.10 ms\n"), "{text}");
    }

    #[test]
    fn a_plan_tells_its_memory() {
        let mut plan = Plan::default();
        plan.buffer("small", 10);
        plan.buffer("large", 1000);
        plan.program(program());
        assert_eq!(plan.memory(), "2 buffers, 4.04 kB; the largest is 'large' of 4.00 kB");
        assert!(plan.to_string().contains("4.04 kB") && plan.to_string().contains("example: 2 dispatches"));
    }
}
