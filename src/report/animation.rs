//! A training as a moving picture: samples and density of a flow with two features, epoch after epoch.
//! It is the picture of [`super::Figure`] without what does not move.

use super::axes::Frame;
use super::colour::{INK, MODEL, MUTED};
use super::svg::{self, Area, Svg, Text};
use super::{DensityGrid, GAP, LEFT, RIGHT, drawn, limits, panels, raster};
use crate::error::{Error, Result, expect_length};

/// Width of each of the two panels.
const SIDE: f64 = 0.5 * (RIGHT - LEFT - GAP - 90.0);
/// Below the caption.
const TOP: f64 = 140.0;
const FOOT: f64 = 76.0;
/// How long each still is shown.
const SECONDS: f64 = 0.12;

/// The flow after one epoch.
#[derive(Clone, Debug, PartialEq)]
pub struct Still {
    /// Epoch, loss: what the second line says.
    pub caption: String,
    /// Rows drawn from the model: row-major [M, 2], user's units. Of the same noise in every still, they flow.
    pub samples: Vec<f64>,
    /// The model's density; the same extent in every still.
    pub density: DensityGrid,
}

/// What moves, and what it is called.
#[derive(Clone, Debug)]
pub struct Animation<'a> {
    /// Headline.
    pub title: String,
    /// Names of the two features.
    pub columns: &'a [String],
    /// One still after the other.
    pub stills: &'a [Still],
}

impl Animation<'_> {
    /// The stills as a GIF `width` pixels wide that begins again at its end.
    ///
    /// # Errors
    /// [`Error::Argument`] without stills, with other than two columns, or when `width` is not between 16 and 16,384;
    /// [`Error::Length`] when samples are not whole rows or a grid has not its cells; [`Error::Picture`] when drawing fails.
    pub fn gif(&self, width: u32) -> Result<Vec<u8>> {
        if self.columns.len() != 2 || self.stills.is_empty() {
            return Err(Error::Argument(format!(
                "animation: got {} columns and {} stills, expected 2 columns and at least 1 still",
                self.columns.len(),
                self.stills.len()
            )));
        }
        for still in self.stills {
            let grid = &still.density;
            expect_length("samples", still.samples.len(), still.samples.len().next_multiple_of(2))?;
            expect_length("density grid", grid.log_density.len(), grid.columns.saturating_mul(grid.rows))?;
        }
        drawn(|| {
            let drawings: Vec<_> = self.stills.iter().map(|still| self.svg(still)).collect::<Result<_>>()?;
            raster::gif(drawings.into_iter(), width, SECONDS)
        })
    }

    fn svg(&self, still: &Still) -> Result<String> {
        let mut svg = Svg::default();
        let title = svg::fit(&self.title, 34.0, RIGHT - LEFT);
        svg.text(LEFT, 54.0, &Text::new(&title, 34.0, INK).strong());
        svg.text(LEFT, 90.0, &Text::new(&still.caption, 20.0, MUTED));
        let grid = &still.density;
        let [x, y] = limits::comparable([grid.x, grid.y]);
        let area = |index: usize| Area {
            left: LEFT + index as f64 * (SIDE + GAP),
            top: TOP,
            width: SIDE,
            height: SIDE * limits::aspect([x, y]),
        };
        let names = [self.columns[0].as_str(), self.columns[1].as_str()];
        let frame = |index| Frame::new(area(index), x, y);
        panels::rows(&mut svg, &frame(0), ('a', "Samples"), &still.samples, MODEL, names);
        panels::density(&mut svg, &frame(1), ('b', "Density"), Some(grid), names[0])?;
        Ok(svg.finish(super::WIDTH, (area(0).bottom() + FOOT).ceil(), &self.title))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn still(shift: f64) -> Still {
        let (columns, rows, x) = (40, 30, (-3.0, 3.0));
        let centres = DensityGrid::centres(x, x, columns, rows);
        let normal = |at: &[f64]| -0.5 * ((at[0] - shift).powi(2) + at[1] * at[1]) - 1.84;
        Still {
            caption: format!("epoch {shift}"),
            samples: (0..200).map(|i| shift + (f64::from(i) * 0.7).sin()).collect(),
            density: DensityGrid {
                x,
                y: x,
                columns,
                rows,
                log_density: centres.chunks(2).map(normal).collect(),
            },
        }
    }

    #[test]
    fn every_still_becomes_a_frame_of_its_own() {
        use image::AnimationDecoder;
        let columns = ["a".to_owned(), "b".to_owned()];
        let stills = [still(0.0), still(0.5), still(1.0)];
        let animation = Animation { title: "t".into(), columns: &columns, stills: &stills };
        let gif = animation.gif(320).expect("draws");
        let decoder = image::codecs::gif::GifDecoder::new(std::io::Cursor::new(&gif)).expect("a GIF");
        let frames = decoder.into_frames().collect_frames().expect("frames");
        assert_eq!(frames.len(), 3);
        assert!(frames.windows(2).all(|pair| pair[0].buffer() != pair[1].buffer()));
        assert!(frames.iter().all(|frame| frame.buffer().width() == 320));
        assert_eq!(gif, animation.gif(320).expect("draws"), "the same bytes again");
    }

    #[test]
    fn what_cannot_be_drawn_is_refused() {
        let columns = ["a".to_owned(), "b".to_owned()];
        let mut stills = [still(0.0)];
        let gif = |columns: &[String], stills: &[Still]| {
            Animation { title: "t".into(), columns, stills }.gif(100).expect_err("refused").to_string()
        };
        assert!(gif(&columns, &[]).contains("0 stills"));
        assert!(gif(&columns[..1], &stills).contains("1 columns"));
        stills[0].samples.push(0.0);
        assert!(gif(&columns, &stills).contains("samples: got 201 values"));
    }
}
