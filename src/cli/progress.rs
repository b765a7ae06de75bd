//! Progress of a training: a bar on a terminal, a line every few seconds elsewhere, or JSON for every epoch. Progress
//! through rows: a bar on a terminal once they take long, nothing elsewhere. Work that has no rows: the time that it has
//! taken so far.

use std::io::IsTerminal;
use std::ops::ControlFlow;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};
use moonflow::Result;
use moonflow::train::{Checkpoint, Epoch, Event, Observer};
use serde_json::json;

use super::output::{grouped, note, say_json};

/// Time between two plain lines.
const QUIET: Duration = Duration::from_secs(2);

/// `--log-format`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum LogFormat {
    /// For a person.
    Text,
    /// A line of JSON on standard output for each epoch.
    Json,
}

/// What keeps a checkpoint.
type Keep<'a> = Box<dyn FnMut(&Checkpoint) -> Result<()> + 'a>;

/// Watches a training for a person or a program, and ends it when `stop` is set.
pub struct EpochProgress<'a> {
    /// What to print.
    pub format: LogFormat,
    /// Where checkpoints go.
    pub keep: Option<Keep<'a>>,
    /// The checkpoint of the end, which is kept behind the model.
    pub last: Option<Checkpoint>,
    /// Epochs and parameters that were asked for on the way.
    pub snapshots: Vec<(u32, Vec<f32>)>,
    /// Which fit of how many this is, where there are several; the first is 1.
    fit: Option<[usize; 2]>,
    /// Whether the last checkpoint could not be kept.
    failing: bool,
    stop: Arc<AtomicBool>,
    epochs: u32,
    rows: usize,
    floor: Option<f64>,
    bar: Option<ProgressBar>,
    last_line: Option<Instant>,
}

impl EpochProgress<'_> {
    /// Watches `epochs` epochs of `rows` training rows. `floor` is the entropy of the true density in nats.
    pub fn new(epochs: u32, rows: usize, floor: Option<f64>, stop: Arc<AtomicBool>) -> Self {
        let bar = std::io::stderr().is_terminal().then(|| {
            let style = ProgressStyle::with_template("{pos}/{len} {wide_bar} {msg}")
                .expect("invariant: the template is valid")
                .progress_chars("━╸─");
            let bar = ProgressBar::new(u64::from(epochs)).with_style(style).with_message("preparing");
            // Many rows are standardised before the first epoch.
            bar.tick();
            bar
        });
        Self {
            format: LogFormat::Text,
            fit: None,
            keep: None,
            last: None,
            failing: false,
            snapshots: Vec::new(),
            stop,
            epochs,
            rows,
            floor,
            bar,
            last_line: None,
        }
    }

    /// Says that this is fit `fit`, from 1, of `fits`, each of which gets a line of its own in the end.
    pub fn of_fit(&mut self, fit: usize, fits: usize) {
        self.fit = Some([fit, fits]);
        self.last_line = Some(Instant::now());
    }

    /// Ends the display.
    pub fn finish(&self) {
        if let Some(bar) = &self.bar {
            // Not `finish`, which fills the bar even when training ended early.
            bar.abandon();
            // The bar fills its line without ending it.
            note("");
        }
    }

    /// Prints a line above the bar.
    fn note(&self, text: &str) {
        match &self.bar {
            Some(bar) => bar.suspend(|| note(text)),
            None => note(text),
        }
    }

    /// Which fit of how many, before what is said of it.
    fn number_of_fit(&self) -> String {
        self.fit.map(|[fit, fits]| format!("fit {fit}/{fits}  ")).unwrap_or_default()
    }

    /// For a line of its own.
    fn line(&self, epoch: &Epoch) -> String {
        let fit = self.number_of_fit();
        let mut text = format!("{fit}epoch {}/{}  train {:.4}", epoch.epoch, self.epochs, epoch.train_nll);
        if let Some(nll) = epoch.validation_nll {
            text += &format!("  validation {nll:.4} nats");
        }
        if let Some(floor) = self.floor {
            text += &format!(", {:.4} above the floor", epoch.nll() - floor);
        }
        text + &self.pace(epoch)
    }

    /// For the space beside a bar, in 80 columns.
    fn message(&self, epoch: &Epoch) -> String {
        let fit = self.number_of_fit();
        let mut text = format!("{fit}train {:.3}", epoch.train_nll);
        if let Some(nll) = epoch.validation_nll {
            text += &format!("  val {nll:.3}");
        }
        if let Some(floor) = self.floor {
            text += &format!("  floor {:+.3}", epoch.nll() - floor);
        }
        text + &self.pace(epoch)
    }

    fn pace(&self, epoch: &Epoch) -> String {
        if epoch.seconds <= 0.0 {
            return String::new();
        }
        let done = f64::from(epoch.epoch);
        let rows_per_second = self.rows as f64 * done / epoch.seconds;
        let left = epoch.seconds / done * f64::from(self.epochs - epoch.epoch);
        format!("  {} rows/s  {} left", grouped(rows_per_second as u64), duration(left))
    }
}

impl Observer for EpochProgress<'_> {
    fn epoch(&mut self, epoch: &Epoch) -> ControlFlow<()> {
        if self.format == LogFormat::Json {
            say_json(&json!({
                "event": "epoch", "fit": self.fit.map(|[fit, _]| fit), "epoch": epoch.epoch, "epochs": self.epochs, "train_nll": epoch.train_nll,
                "validation_nll": epoch.validation_nll, "learning_rate": epoch.learning_rate,
                "grad_norm": epoch.grad_norm, "seconds": epoch.seconds, "improved": epoch.improved,
                "skipped": epoch.skipped, "above_floor": self.floor.map(|floor| epoch.nll() - floor),
            }));
        } else if let Some(bar) = &self.bar {
            bar.set_message(self.message(epoch));
            bar.set_position(u64::from(epoch.epoch));
        } else if (epoch.epoch == self.epochs && self.fit.is_none())
            || self.last_line.is_none_or(|last| last.elapsed() >= QUIET)
        {
            self.last_line = Some(Instant::now());
            note(self.line(epoch));
        }
        if self.stop.load(Ordering::Relaxed) { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    }

    fn event(&mut self, event: Event) {
        self.note(&event.to_string());
    }

    // A checkpoint that cannot be kept, on a full disk for instance, is no reason to lose the training.
    fn checkpoint(&mut self, checkpoint: &Checkpoint) -> Result<()> {
        let result = self.keep.as_mut().map_or(Ok(()), |keep| keep(checkpoint));
        let failed_before = std::mem::replace(&mut self.failing, result.is_err());
        let epoch = checkpoint.trainer.history.epochs.len();
        match result {
            Err(error) if !failed_before => self.note(&format!(
                "warning: the checkpoint after epoch {epoch} was not written: {error}; training goes on, and so do attempts"
            )),
            Ok(()) if failed_before => self.note(&format!("note: checkpoints are written again, from epoch {epoch}")),
            _ => {}
        }
        Ok(())
    }

    fn last_checkpoint(&mut self, checkpoint: Checkpoint) -> Result<()> {
        self.last = Some(checkpoint);
        Ok(())
    }

    fn snapshot(&mut self, epoch: u32, parameters: &[f32]) {
        self.snapshots.push((epoch, parameters.to_vec()));
    }
}

/// Shows how many rows have been read, scored or sampled, on a terminal and once it takes long enough to wonder.
pub struct RowProgress {
    label: &'static str,
    unit: &'static str,
    start: Instant,
    terminal: bool,
    bar: Option<ProgressBar>,
}

impl RowProgress {
    /// Steps of the bar.
    const STEPS: u64 = 1000;

    /// Begins to watch; `label` says what is done to the rows.
    pub fn new(label: &'static str) -> Self {
        Self::of(label, "rows")
    }

    /// The same of things called `unit`.
    pub fn of(label: &'static str, unit: &'static str) -> Self {
        Self { label, unit, start: Instant::now(), terminal: std::io::stderr().is_terminal(), bar: None }
    }

    /// `rows` are done, which is `fraction` of all, where that is known.
    pub fn update(&mut self, rows: u64, fraction: Option<f64>) {
        /// Time without a bar.
        const PATIENCE: Duration = Duration::from_millis(500);

        let elapsed = self.start.elapsed();
        if !self.terminal || elapsed < PATIENCE {
            return;
        }
        let bar = self.bar.get_or_insert_with(|| {
            let template = if fraction.is_some() { "{prefix} {wide_bar} {msg}" } else { "{prefix} {msg}" };
            let style = ProgressStyle::with_template(template)
                .expect("invariant: the template is valid")
                .progress_chars("━╸─");
            ProgressBar::new(Self::STEPS).with_style(style).with_prefix(self.label)
        });
        // Before the position, which draws the bar.
        bar.set_message(Self::message(self.unit, rows, fraction, elapsed.as_secs_f64()));
        bar.set_position((fraction.unwrap_or(0.0) * Self::STEPS as f64) as u64);
    }

    /// Takes the bar away.
    pub fn finish(&mut self) {
        if let Some(bar) = self.bar.take() {
            bar.finish_and_clear();
        }
    }

    fn message(unit: &str, rows: u64, fraction: Option<f64>, seconds: f64) -> String {
        let pace = grouped((rows as f64 / seconds) as u64);
        let mut text = format!("{} {unit}  {pace} {unit}/s", grouped(rows));
        if let Some(fraction) = fraction.filter(|&fraction| fraction > 0.0) {
            text += &format!("  {} left", duration(seconds / fraction - seconds));
        }
        text
    }
}

impl Drop for RowProgress {
    fn drop(&mut self) {
        self.finish();
    }
}

/// Says on a terminal what is under way and for how long, until it is dropped: for work that has no rows to count.
pub struct Busy {
    bar: ProgressBar,
}

impl Busy {
    /// Begins to show `label`.
    pub fn new(label: &'static str) -> Self {
        /// Time between two pictures of the display.
        const TICK: Duration = Duration::from_millis(100);

        let style = ProgressStyle::with_template("{prefix} {spinner} {elapsed}")
            .expect("invariant: the template is valid");
        // Hidden where standard error is no terminal.
        let bar = ProgressBar::new_spinner().with_style(style).with_prefix(label);
        bar.enable_steady_tick(TICK);
        Self { bar }
    }
}

impl Drop for Busy {
    fn drop(&mut self) {
        self.bar.finish_and_clear();
    }
}

/// Seconds for a person: 0.4 s, 12 s, 3 min 20 s, 2 h 5 min.
pub fn duration(seconds: f64) -> String {
    let whole = seconds.round() as u64;
    match whole {
        0..10 => format!("{seconds:.1} s"),
        10..60 => format!("{whole} s"),
        60..3600 => format!("{} min {} s", whole / 60, whole % 60),
        _ => format!("{} h {} min", whole / 3600, whole / 60 % 60),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn progress_through_rows_says_the_pace_and_what_is_left() {
        assert_eq!(
            RowProgress::message("rows", 3000, Some(0.25), 2.0),
            "3,000 rows  1,500 rows/s  6.0 s left"
        );
        assert_eq!(RowProgress::message("stills", 3000, None, 2.0), "3,000 stills  1,500 stills/s");
    }

    #[test]
    fn durations_read_well() {
        for (seconds, text) in
            [(0.44, "0.4 s"), (9.4, "9.4 s"), (12.3, "12 s"), (200.0, "3 min 20 s"), (7500.0, "2 h 5 min")]
        {
            assert_eq!(duration(seconds), text);
        }
    }
}
