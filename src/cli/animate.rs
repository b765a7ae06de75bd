//! `moonflow train --animate`: the training as a moving picture.

use std::io;
use std::path::{Path, PathBuf};

use moonflow::engine::{Engine, Sampling};
use moonflow::files::write_atomically;
use moonflow::flow::Flow;
use moonflow::model::Model;
use moonflow::report::{Animation, DensityGrid, Still, limits};
use moonflow::shown::shown_path;
use moonflow::train::History;
use moonflow::{Error, Result};

use super::plot::title;
use super::progress::{Busy, RowProgress};

/// Stills of a long training.
const STILLS: u32 = 60;
/// Samples in each.
const ROWS: usize = 3000;
/// Cells of the density grid along a side.
const CELLS: usize = 160;
/// Width in pixels.
const WIDTH: u32 = 800;

/// A moving picture to be made of a training.
pub struct Animated {
    /// Where to.
    pub path: PathBuf,
    /// The epochs after which a still is taken.
    pub epochs: Vec<u32>,
}

impl Animated {
    /// Of `flow`'s training over `epochs` epochs, into `path`.
    ///
    /// # Errors
    /// [`Error::Argument`] when `path` does not end in .gif or the flow has no plane to be shown in, [`Error::Io`] when
    /// nothing can be written there: better now than after the training.
    pub fn new(path: &Path, flow: &Flow, epochs: u32) -> Result<Self> {
        if !path.extension().is_some_and(|extension| extension.eq_ignore_ascii_case("gif")) {
            return Err(Error::Argument(format!(
                "--animate {}: the name must end in .gif",
                shown_path(path)
            )));
        }
        if flow.features != 2 || flow.context > 0 {
            return Err(Error::Argument(format!(
                "--animate shows two features, none of them given; the flow has {}{}",
                flow.modelled(),
                if flow.context > 0 { format!(" given {}", flow.context) } else { String::new() }
            )));
        }
        if path.is_dir() {
            return Err(Error::io(path, io::ErrorKind::IsADirectory.into()));
        }
        let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
        tempfile::tempfile_in(folder).map_err(|source| Error::io(folder, source))?;
        Ok(Self { path: path.to_owned(), epochs: still_epochs(epochs) })
    }

    /// Draws the parameters after each epoch in `snapshots` as `model` has them in the end, which its last still is, and
    /// writes the picture. `data`: row-major [N, 2], in the user's units.
    ///
    /// # Errors
    /// Those of the engine, the drawing and the file.
    pub async fn write<E: Engine>(
        &self,
        model: &Model,
        engine: &mut E,
        data: &[f64],
        history: &History,
        snapshots: Vec<(u32, Vec<f32>)>,
    ) -> Result<()> {
        let sampling = Sampling { rows: ROWS, first: 0, seed: model.record.recipe.seed, temperature: 1.0 };
        let [x, y] = limits(data, &model.sample(engine, sampling).await?);
        let centres = DensityGrid::centres(x, y, CELLS, CELLS);
        let count = snapshots.len();
        let mut progress = RowProgress::of("drawing", "stills");
        let mut stills = Vec::with_capacity(count + 1);
        let mut shown = model.clone();
        let kept = model.record.best_epoch.map(|epoch| format!("epoch {epoch}, which is kept"));
        let ends = snapshots
            .into_iter()
            .map(|(epoch, parameters)| (caption(epoch, history), parameters))
            .chain([(kept.unwrap_or_else(|| "the end".into()), model.parameters.clone())]);
        for (caption, parameters) in ends {
            shown.parameters = parameters;
            let samples = shown.sample(engine, sampling).await?;
            let log_density = shown.log_density(engine, &centres).await?;
            let density = DensityGrid { x, y, columns: CELLS, rows: CELLS, log_density };
            stills.push(Still { caption, samples, density });
            progress.update(stills.len() as u64, Some(stills.len() as f64 / (count + 1) as f64));
        }
        progress.finish();
        let _busy = Busy::new("writing the moving picture");
        let animation = Animation { title: title(model, 1), columns: &model.columns, stills: &stills };
        let gif = animation.gif(WIDTH)?;
        write_atomically(&self.path, |writer| writer.write_all(&gif))
    }
}

/// Epochs from 0 to `epochs`, close together at first, where most happens.
fn still_epochs(epochs: u32) -> Vec<u32> {
    let count = STILLS.min(epochs);
    let place = |index: u32| {
        let share = f64::from(index) / f64::from(count.max(1));
        (f64::from(epochs) * share * share).round() as u32
    };
    let mut all: Vec<u32> = (0..=count).map(place).collect();
    all.dedup();
    all
}

fn caption(epoch: u32, history: &History) -> String {
    let losses = epoch.checked_sub(1).and_then(|index| history.epochs.get(index as usize));
    match losses {
        None => format!("epoch {epoch}"),
        Some(losses) => {
            let validation =
                losses.validation_nll.map(|nll| format!(", validation NLL {nll:.4}")).unwrap_or_default();
            format!("epoch {epoch}: training NLL {:.4}{validation} nats", losses.train_nll)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stills_begin_before_training_end_with_it_and_ascend() {
        for epochs in [1, 2, 7, 60, 61, 300, 100_000] {
            let stills = still_epochs(epochs);
            assert_eq!((stills[0], stills[stills.len() - 1]), (0, epochs));
            assert!(stills.windows(2).all(|pair| pair[0] < pair[1]) && stills.len() <= 61, "{stills:?}");
        }
    }
}
