//! What the benches share: shapes, data, the device, and a table of everything measured, printed at the end.

use std::fmt;
use std::hint::black_box;
use std::time::{Duration, Instant};

use criterion::{BenchmarkId, Criterion, SamplingMode, Throughput};
use moonflow::flow::Flow;
use moonflow::gpu::cost::si;
use moonflow::gpu::{Context, adapters};
use moonflow::layout::Layout;
use moonflow::random::{self, Stream};

/// A flow and a number of rows.
#[derive(Clone, Copy)]
pub struct Shape {
    pub features: usize,
    pub layers: usize,
    pub hidden: [usize; 2],
    pub batch: usize,
}

/// From a toy density to a table of thirty columns.
const MEASURED: [Shape; 3] = [
    Shape { features: 2, layers: 4, hidden: [64, 64], batch: 256 },
    Shape { features: 8, layers: 8, hidden: [128, 128], batch: 512 },
    Shape { features: 32, layers: 8, hidden: [256, 256], batch: 1024 },
];

/// One that fits the fused plan and one that is too wide for it, small enough for a software adapter and for code that is
/// hardly optimised.
const TESTED: [Shape; 2] = [
    Shape { features: 3, layers: 2, hidden: [8, 5], batch: 20 },
    Shape { features: 5, layers: 1, hidden: [129, 6], batch: 9 },
];

/// Whether every bench only has to run once, as criterion decides it: by `cargo test --benches`, which leaves out the
/// flag that `cargo bench` gives, or by `cargo bench -- --test`.
pub fn testing() -> bool {
    let given = |flag| std::env::args().any(|argument| argument == flag);
    given("--test") || !given("--bench")
}

/// The shapes of this run.
pub fn shapes() -> &'static [Shape] {
    if testing() { &TESTED } else { &MEASURED }
}

impl Shape {
    pub fn flow(&self) -> Flow {
        Flow::new(self.features, self.layers, &self.hidden).expect("a valid shape")
    }
}

impl fmt::Display for Shape {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { features, layers, hidden: [first, second], batch } = self;
        write!(f, "D{features}-L{layers}-H{first}x{second}-B{batch}")
    }
}

/// Standard normal rows [count, features].
pub fn normal_rows(count: usize, features: usize) -> Vec<f32> {
    let mut rows = vec![0.0; count * features];
    for (row, values) in rows.chunks_exact_mut(features).enumerate() {
        random::normals(row as u32, 1, values);
    }
    rows
}

/// Parameters [P] uniform in ±1/√inputs, last layers too: an untrained flow would be the identity.
pub fn random_parameters(flow: &Flow) -> Vec<f32> {
    let layout = Layout::new(flow);
    let mut parameters = vec![0.0; layout.total];
    for tensor in &layout.tensors {
        let inputs = tensor.shape.get(1).copied().unwrap_or(flow.features);
        let limit = 1.0 / (inputs as f32).sqrt();
        for index in tensor.range() {
            let counter = [index as u32, 0, 0, Stream::Parameters as u32];
            parameters[index] = limit * (2.0 * random::uniform(random::philox(counter, [1, 0])[0]) - 1.0);
        }
    }
    parameters
}

/// The first adapter, opened; says so where there is none, or where tests are to do without.
pub fn context() -> Option<Context> {
    if testing() && std::env::var_os("MOONFLOW_SKIP_GPU_TESTS").is_some() {
        println!("MOONFLOW_SKIP_GPU_TESTS is set: only the CPU's benches run");
        return None;
    }
    let Some(adapter) = pollster::block_on(adapters()).into_iter().next() else {
        println!("no GPU adapter was found: only the CPU is measured");
        return None;
    };
    println!("GPU: {}", adapter.info());
    Some(pollster::block_on(adapter.open()).expect("the adapter opens"))
}

/// What one run of a bench does.
#[derive(Clone, Copy)]
pub struct Cost {
    pub rows: usize,
    pub flops: u64,
    pub bytes: u64,
}

/// Time after which a bench takes no more samples.
const BUDGET: Duration = Duration::from_secs(6);

/// Measures benches by criterion and keeps their times for the table.
pub struct Bench {
    criterion: Criterion,
    title: &'static str,
    /// What the table calls runs per second.
    rate: &'static str,
    lines: Vec<[String; COLUMNS]>,
    /// Devices, and what is left out.
    notes: Vec<String>,
}

const COLUMNS: usize = 9;
const NAME: usize = 0;
const SHAPE: usize = 2;
/// Columns of words; numbers follow.
const WORDS: usize = 3;

impl Bench {
    /// Short by default, since a software adapter takes long for the largest shape; criterion's flags lengthen it.
    pub fn new(title: &'static str, rate: &'static str) -> Self {
        let criterion = Criterion::default()
            .sample_size(10)
            .warm_up_time(Duration::from_millis(100))
            .measurement_time(Duration::from_millis(500))
            .nresamples(5000)
            .without_plots()
            .configure_from_args();
        Self { criterion, title, rate, lines: Vec::new(), notes: Vec::new() }
    }

    /// Names a device above the table.
    pub fn device(&mut self, engine: &str, device: impl fmt::Display) {
        self.note(format!("{engine}: {device}"));
    }

    /// Has the table say something that its lines do not.
    pub fn note(&mut self, note: String) {
        self.notes.push(note);
    }

    /// Measures what `prepare` returns: a function that does its work a number of times and tells how long that
    /// took. `prepare` itself is not measured, nor called where a filter leaves the bench out.
    ///
    /// Criterion insists on ten samples. Where a run takes seconds, as on a software adapter, samples beyond
    /// [`BUDGET`] are not taken: criterion is told the times that there are once more, in turn. The table counts the
    /// runs that were made.
    pub fn measure<R: FnMut(u64) -> Duration>(
        &mut self,
        name: &str,
        engine: &str,
        shape: &Shape,
        cost: Cost,
        prepare: impl FnOnce() -> R,
    ) {
        let mut prepare = Some(prepare);
        let mut run = None;
        // Time of one run, and the number of runs of which it is the mean.
        let mut times: Vec<(Duration, u64)> = Vec::new();
        let (mut spent, mut repeated) = (Duration::ZERO, 0);
        let mut group = self.criterion.benchmark_group(name);
        group.sampling_mode(SamplingMode::Flat);
        group.throughput(Throughput::ElementsAndBytes { elements: cost.rows as u64, bytes: cost.bytes });
        group.bench_function(BenchmarkId::new(engine, shape), |bencher| {
            if let Some(prepare) = prepare.take() {
                run = Some(prepare());
            }
            let run = run.as_mut().expect("invariant: prepared on the first call");
            bencher.iter_custom(|iterations| {
                if times.len() >= 2 && spent >= BUDGET {
                    repeated += 1;
                    return times[repeated % times.len()].0.mul_f64(iterations as f64);
                }
                let start = Instant::now();
                let time = run(iterations);
                spent += start.elapsed();
                times.push((time.div_f64(iterations as f64), iterations));
                time
            });
        });
        group.finish();
        if let Some(seconds) = median(&mut times) {
            let giga =
                |amount: u64| if amount == 0 { "–".into() } else { rate(amount as f64 / 1e9 / seconds) };
            self.lines.push([
                name.to_owned(),
                engine.to_owned(),
                shape.to_string(),
                si(seconds, "s"),
                rate(1.0 / seconds),
                rate(cost.rows as f64 / seconds),
                giga(cost.flops),
                giga(cost.bytes),
                times.iter().map(|(_, runs)| runs).sum::<u64>().to_string(),
            ]);
        }
    }

    /// Prints the table, unless nothing was measured: of benches that ran once, only their number and the notes.
    pub fn finish(mut self) {
        self.side_by_side();
        let table = self.to_string();
        if testing() {
            println!("{}\n{} benches ran once", self.notes.join("\n"), self.lines.len());
        } else if !self.lines.is_empty() {
            println!("{table}");
        }
        self.criterion.final_summary();
    }

    /// Puts the lines of a shape and a bench, which differ in the engine, one under the other; shapes and benches stay in
    /// the order of their first lines.
    fn side_by_side(&mut self) {
        let before = self.lines.clone();
        let first = |column: usize, line: &[String; COLUMNS]| {
            before.iter().position(|other| other[column] == line[column])
        };
        self.lines.sort_by_key(|line| (first(SHAPE, line), first(NAME, line)));
    }
}

/// Time of `times` runs of `work`.
pub fn timed<T>(times: u64, mut work: impl FnMut() -> T) -> Duration {
    let start = Instant::now();
    for _ in 0..times {
        black_box(work());
    }
    start.elapsed()
}

/// Three digits, with k, M or G where they help.
fn rate(value: f64) -> String {
    match value {
        1.0.. => si(value, "").trim_end().to_owned(),
        0.001.. => format!("{value:.3}"),
        _ => format!("{value:.1e}"),
    }
}

/// Median over iterations, which gives warm-up's short calls little weight.
fn median(times: &mut [(Duration, u64)]) -> Option<f64> {
    times.sort_unstable();
    let half = times.iter().map(|(_, iterations)| iterations).sum::<u64>().div_ceil(2);
    let mut passed = 0;
    times
        .iter()
        .find(|(_, iterations)| {
            passed += iterations;
            passed >= half
        })
        .map(|(time, _)| time.as_secs_f64())
}

impl fmt::Display for Bench {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}", self.title)?;
        for note in &self.notes {
            writeln!(f, "{note}")?;
        }
        let header = ["bench", "engine", "shape", "time", self.rate, "rows/s", "GFLOP/s", "GB/s", "runs"];
        let table: Vec<[String; COLUMNS]> =
            std::iter::once(header.map(str::to_owned)).chain(self.lines.iter().cloned()).collect();
        let widths: [usize; COLUMNS] = std::array::from_fn(|column| {
            table.iter().map(|line| line[column].chars().count()).max().unwrap_or_default()
        });
        for line in &table {
            for (column, (cell, width)) in line.iter().zip(widths).enumerate() {
                let gap = if column == 0 { "" } else { "  " };
                if column < WORDS {
                    write!(f, "{gap}{cell:<width$}")?;
                } else {
                    write!(f, "{gap}{cell:>width$}")?;
                }
            }
            writeln!(f)?;
        }
        Ok(())
    }
}
