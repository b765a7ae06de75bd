//! The line protocol of `benches/peers`: one JSON job a line on standard input, one JSON answer a line.
//! The Burn worker includes this file too; `protocol.py` is its Python twin.

use std::collections::HashMap;
use std::io::{BufRead, Write};
use std::time::Instant;

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

pub type Result<T> = std::result::Result<T, Box<dyn std::error::Error>>;

/// What is run before anything is timed.
const WARM_UP_RUNS: u32 = 3;

/// A line of the driver. What a job does not need is left out of it.
#[derive(Default, Deserialize)]
#[serde(default)]
pub struct Job {
    pub job: String,
    pub features: usize,
    pub layers: usize,
    pub hidden: usize,
    pub batch: usize,
    /// Steps in an epoch, of a training.
    pub steps: usize,
    /// Rows at a time, of scoring and sampling.
    pub rows: usize,
    /// `affine`, `joint`, `spline` or `residual-spline`; see `Flows` in the README.
    pub flow: String,
    pub bins: usize,
    pub tail_bound: f32,
    /// Greatest value in the rows of a check.
    pub spread: f64,
    /// `separate` or `stacked` networks, where a worker has both.
    pub nets: String,
    pub seconds: f64,
}

/// A job that is ready: does so many runs, ends when they are done, and tells how many steps or rows they were.
pub type Work = Box<dyn FnMut(u32) -> Result<usize>>;

/// What a check gives.
#[derive(Serialize)]
pub struct Checked {
    pub nll: f64,
    pub grad_norm: f64,
    pub parameters: usize,
    /// For each network, where a worker serves more than one flow: `kept`, the features that it reads, and `widths`, how
    /// many values enter it and leave each linear layer, without those that the mask removes.
    pub couplings: Vec<Value>,
}

/// Answers jobs until standard input ends. `prepare` makes a job ready, once for each different job.
pub fn serve(
    hello: Value,
    mut prepare: impl FnMut(&Job) -> Result<Work>,
    mut check: impl FnMut(&Job) -> Result<Checked>,
) -> Result<()> {
    let mut stdout = std::io::stdout();
    writeln!(stdout, "{hello}")?;
    let mut prepared = HashMap::new();
    for line in std::io::stdin().lock().lines() {
        let mut value: Value = serde_json::from_str(&line?)?;
        let job: Job = serde_json::from_value(value.clone())?;
        let answer = match job.job.as_str() {
            "quit" => break,
            "check" => check(&job).map(|checked| json!(checked)),
            _ => {
                value.as_object_mut().and_then(|fields| fields.remove("seconds"));
                measure(&job, value.to_string(), &mut prepared, &mut prepare)
            }
        };
        let answer = answer.unwrap_or_else(|error| json!({ "error": error.to_string() }));
        writeln!(stdout, "{answer}")?;
        stdout.flush()?;
    }
    Ok(())
}

/// Runs a job for about `seconds`, a fifth of that at a time.
fn measure(
    job: &Job,
    key: String,
    prepared: &mut HashMap<String, Work>,
    prepare: &mut impl FnMut(&Job) -> Result<Work>,
) -> Result<Value> {
    let setup = Instant::now();
    if !prepared.contains_key(&key) {
        let mut work = prepare(job)?;
        for _ in 0..WARM_UP_RUNS {
            work(1)?;
        }
        prepared.insert(key.clone(), work);
    }
    let work = prepared.get_mut(&key).ok_or("invariant: prepared above")?;

    let start = Instant::now();
    let (mut runs, mut amount, mut times) = (0, 0, 1);
    loop {
        amount += work(times)?;
        runs += times;
        let elapsed = start.elapsed().as_secs_f64();
        if elapsed >= job.seconds {
            return Ok(json!({
                "rate": amount as f64 / elapsed,
                "runs": runs,
                "elapsed": elapsed,
                "setup": (start - setup).as_secs_f64(),
            }));
        }
        let rate = f64::from(runs) / elapsed;
        times = (rate * f64::min(job.seconds / 5.0, job.seconds - elapsed)).ceil() as u32;
    }
}

/// Value `index` of the sequence that parameters and a check's rows are taken from: the same in every worker.
pub fn chirp(index: usize) -> f64 {
    let counter = (index + 1) as f64;
    (0.7 * counter * counter).sin()
}

/// The rows [B, D] of a check.
pub fn check_rows(job: &Job) -> Vec<f32> {
    (0..job.batch * job.features).map(|index| (job.spread * chirp(index)) as f32).collect()
}
