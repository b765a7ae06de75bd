//! The picture of a fitted flow: data, samples, density, latent and loss curves on one sheet, as SVG and as PNG.
//! It is the last thing made on the data's way, from numbers that the trainer and the model have already computed.
//!
//! With two features the sheet shows both planes, the data's and the latent's, and the density between them; with
//! another number, or with a context, it shows a corner plot of the first [`CORNER`] features, of a single one its
//! histograms. Either has the latent's quantiles
//! and the loss curves. The same input gives the same bytes on every machine: the font is embedded, and nothing is drawn
//! at random.

mod animation;
mod axes;
mod colour;
mod contour;
mod corner;
mod font;
mod limits;
mod loss;
mod panels;
mod quantiles;
mod raster;
mod svg;

pub use animation::{Animation, Still};
pub use limits::limits;

use crate::error::{Error, Result, expect_length};
use crate::guard;
use axes::Frame;
use svg::{Area, Svg, Text};

/// Features that the corner plot of a wider table shows.
pub const CORNER: usize = 5;

/// Width of every drawing in its own pixels.
const WIDTH: f64 = 1600.0;
/// Left edge of the panels, and of the title above them.
const LEFT: f64 = 100.0;
/// Right edge of the drawing's contents.
const RIGHT: f64 = 1560.0;
/// Top edge of the first row of panels.
const TOP: f64 = 172.0;
/// Width of the three upper panels, and of the latent's square.
const SIDE: f64 = 410.0;
/// Between two panels side by side.
const GAP: f64 = 60.0;
/// From the lower edge of a panel to the upper edge of the next: its labels, air, the next one's title.
const ROW_GAP: f64 = 126.0;
/// From the lower edge of the last panel to the end of the paper.
const FOOT: f64 = 76.0;

/// Loss curves: one entry an epoch.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct LossCurves {
    /// Epochs, counted from 1, ascending.
    pub epoch: Vec<u32>,
    /// Mean negative log-likelihood of the training rows, in nats and the user's units.
    pub train_nll: Vec<f64>,
    /// Mean negative log-likelihood of the validation rows, in nats and the user's units; NaN where none.
    pub validation_nll: Vec<f64>,
}

impl LossCurves {
    /// Epoch and value of the lowest validation loss, or of the lowest training loss where no validation loss is
    /// finite. `None` where no loss is finite.
    pub fn best(&self) -> Option<(u32, f64)> {
        let lowest = |losses: &[f64]| {
            let finite = self
                .epoch
                .iter()
                .copied()
                .zip(losses.iter().copied())
                .filter(|(_, nll)| limits::drawable(*nll));
            finite.min_by(|a, b| a.1.total_cmp(&b.1))
        };
        lowest(&self.validation_nll).or_else(|| lowest(&self.train_nll))
    }
}

/// A model's log-density at the cell centres of a regular grid.
#[derive(Clone, Debug, PartialEq)]
pub struct DensityGrid {
    /// Lower and upper edge of the grid along the first feature, in the user's units.
    pub x: (f64, f64),
    /// Lower and upper edge of the grid along the second feature, in the user's units.
    pub y: (f64, f64),
    /// Cells along x.
    pub columns: usize,
    /// Cells along y.
    pub rows: usize,
    /// log p in nats and the user's units at the cell centres: row-major [rows, columns], row 0 at the lowest y.
    pub log_density: Vec<f64>,
}

impl DensityGrid {
    /// The cell centres at which [`DensityGrid::log_density`] is wanted: row-major [rows · columns, 2], x running
    /// fastest, from the lower left.
    pub fn centres(x: (f64, f64), y: (f64, f64), columns: usize, rows: usize) -> Vec<f64> {
        let place = |(low, high): (f64, f64), index: usize, count: usize| {
            low + (high - low) * (index as f64 + 0.5) / count as f64
        };
        (0..rows)
            .flat_map(|row| {
                (0..columns).flat_map(move |column| [place(x, column, columns), place(y, row, rows)])
            })
            .collect()
    }

    /// Centre of cell `cell`, counted as in [`DensityGrid::log_density`].
    fn centre(&self, cell: usize) -> (f64, f64) {
        let (column, row) = ((cell % self.columns) as f64, (cell / self.columns) as f64);
        let (width, height) = (self.x.1 - self.x.0, self.y.1 - self.y.0);
        (
            self.x.0 + width * (column + 0.5) / self.columns as f64,
            self.y.0 + height * (row + 0.5) / self.rows as f64,
        )
    }

    /// Probability in the grid by the midpoint rule; cells that are not finite count nothing.
    fn mass(&self) -> f64 {
        let cell = (self.x.1 - self.x.0) * (self.y.1 - self.y.0) / (self.columns * self.rows) as f64;
        self.log_density.iter().filter(|value| value.is_finite()).map(|value| value.exp() * cell).sum()
    }
}

/// All that one picture shows.
#[derive(Clone, Debug)]
pub struct Figure<'a> {
    /// Headline: the data's name and the model's size.
    pub title: String,
    /// Second line: held-out loss, nats above the floor, device and time, as the caller words them.
    pub subtitle: String,
    /// Names of the D features.
    pub columns: &'a [String],
    /// How many of them, the last ones, are context: given, not modelled.
    pub context: usize,
    /// Rows of the table: row-major [N, D], user's units.
    pub data: &'a [f64],
    /// Rows drawn from the model: row-major [M, D], user's units.
    pub samples: &'a [f64],
    /// The data's latent: row-major [K, M] of the M modelled features, standard normal if the fit is perfect.
    pub latent: &'a [f64],
    /// The model's density, for D = 2; best over [`Figure::limits`], and 200 cells or more a side.
    pub density: Option<DensityGrid>,
    /// Loss curves.
    pub history: Option<&'a LossCurves>,
    /// Entropy of the true density in nats and the user's units: no model's mean loss is lower in the long run.
    pub floor: Option<f64>,
}

/// What `draw` gives. A panic in it, the renderer's for instance, is an error: no picture is worth more than what it
/// is of.
fn drawn<T>(draw: impl FnOnce() -> Result<T>) -> Result<T> {
    guard::guarded(draw).unwrap_or_else(|panic| Err(Error::Picture(format!("drawing failed: {panic}"))))
}

impl Figure<'_> {
    /// What the panels of data, samples and density show of each of the first two features, in the user's units:
    /// the extent of the density grid where there is one, else [`limits()`] of data and samples.
    pub fn limits(&self) -> [(f64, f64); 2] {
        match &self.density {
            Some(grid) if limits::usable(grid.x) && limits::usable(grid.y) => {
                limits::comparable([grid.x, grid.y])
            }
            _ => limits::of_features(self.data, self.samples, self.columns.len().max(1)),
        }
    }

    /// The picture as a self-contained SVG document, 1600 pixels wide.
    ///
    /// Values that are not finite are left out. Of long tables some thousand rows are drawn, evenly spread.
    ///
    /// # Errors
    /// [`Error::Argument`] without a column that is modelled; [`Error::Length`] when a slice does not hold whole rows, the
    /// grid not its cells, or the history not one value an epoch; [`Error::Picture`] when drawing fails.
    pub fn svg(&self) -> Result<String> {
        drawn(|| self.draw())
    }

    fn draw(&self) -> Result<String> {
        self.check()?;
        let mut svg = Svg::default();
        self.headline(&mut svg);
        let height = if self.columns.len() == 2 && self.context == 0 {
            self.planes(&mut svg)?
        } else {
            self.corner(&mut svg)
        };
        Ok(svg.finish(WIDTH, height, &self.title))
    }

    /// The picture as a PNG `width` pixels wide, of the proportions of [`Figure::svg`]; 1600 is the natural width.
    ///
    /// # Errors
    /// Those of [`Figure::svg`], and [`Error::Argument`] when `width` is not between 16 and 16,384.
    pub fn png(&self, width: u32) -> Result<Vec<u8>> {
        drawn(|| raster::png(&self.draw()?, width))
    }

    fn check(&self) -> Result<()> {
        let features = self.columns.len();
        if self.context >= features {
            return Err(Error::Argument(format!(
                "picture: got {features} columns, {} of them context; expected one that is modelled",
                self.context
            )));
        }
        let modelled = self.modelled().len();
        for (what, rows, width) in [
            ("data", self.data, features),
            ("samples", self.samples, features),
            ("latent", self.latent, modelled),
        ] {
            expect_length(what, rows.len(), rows.len().next_multiple_of(width))?;
        }
        if let Some(grid) = &self.density {
            expect_length("density grid", grid.log_density.len(), grid.columns.saturating_mul(grid.rows))?;
        }
        if let Some(history) = self.history {
            expect_length("training losses", history.train_nll.len(), history.epoch.len())?;
            expect_length("validation losses", history.validation_nll.len(), history.epoch.len())?;
        }
        Ok(())
    }

    /// Names of the modelled features.
    fn modelled(&self) -> &[String] {
        &self.columns[..self.columns.len() - self.context]
    }

    fn headline(&self, svg: &mut Svg) {
        let title = svg::fit(&self.title, 34.0, 0.97 * (RIGHT - LEFT));
        svg.text(LEFT, 66.0, &Text::new(&title, 34.0, colour::INK).strong());
        let subtitle = svg::fit(&self.subtitle, 20.0, RIGHT - LEFT);
        svg.text(LEFT, 101.0, &Text::new(&subtitle, 20.0, colour::MUTED));
    }

    /// The sheet of a flow with two features; returns its height.
    fn planes(&self, svg: &mut Svg) -> Result<f64> {
        let [x, y] = self.limits();
        let upper = |index: usize| Area {
            left: LEFT + index as f64 * (SIDE + GAP),
            top: TOP,
            width: SIDE,
            height: SIDE * limits::aspect([x, y]),
        };
        let frame = |index| Frame::new(upper(index), x, y);
        panels::rows(
            svg,
            &frame(0),
            ('a', "Data"),
            self.data,
            colour::DATA,
            [&self.columns[0], &self.columns[1]],
        );
        panels::rows(svg, &frame(1), ('b', "Samples"), self.samples, colour::MODEL, [&self.columns[0], ""]);
        let grid = self.density.as_ref().filter(|grid| limits::usable(grid.x) && limits::usable(grid.y));
        panels::density(svg, &frame(2), ('c', "Density"), grid, &self.columns[0])?;

        let top = upper(0).bottom() + ROW_GAP;
        let square = Area { left: LEFT, top, width: SIDE, height: SIDE };
        panels::latent(svg, square, ('d', "Latent"), self.latent);
        quantiles::panel(svg, Area { left: upper(1).left, ..square }, 'e', self.latent, self.columns);
        let left = upper(2).left;
        let right = Area { left, width: RIGHT - left, ..square };
        loss::panel(svg, right, 'f', self.history, self.floor);
        Ok((square.bottom() + FOOT).ceil())
    }

    /// The sheet of a flow with another number of features; returns its height.
    fn corner(&self, svg: &mut Svg) -> f64 {
        let square = Area { left: LEFT, top: TOP, width: 800.0, height: 800.0 };
        corner::panel(svg, square, 'a', self.columns, self.data, self.samples);
        let left = square.right() + 110.0;
        let half = Area { left, top: TOP, width: RIGHT - left, height: 0.5 * (square.height - ROW_GAP) };
        corner::radius(svg, half, 'b', self.latent, self.modelled().len());
        let lower = Area { top: half.bottom() + ROW_GAP, ..half };
        quantiles::panel(svg, lower, 'c', self.latent, self.modelled());
        let last =
            Area { left: LEFT, top: square.bottom() + ROW_GAP, width: RIGHT - LEFT, height: 0.75 * SIDE };
        loss::panel(svg, last, 'd', self.history, self.floor);
        (last.bottom() + FOOT).ceil()
    }
}
