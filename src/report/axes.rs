//! Axes of a panel: from values to pixels, ticks at round numbers, grid, frame and labels.

use super::colour::{FRAME, GRID, INK, MUTED, TEXT};
use super::svg::{Anchor, Area, Stroke, Svg, Text};
use super::{font, limits};

/// Font sizes in pixels of a drawing 1600 wide.
pub(super) const TICK_SIZE: f64 = 18.0;
pub(super) const LABEL_SIZE: f64 = 20.0;
/// Of what stands beside a title: counts, the key to colours and lines.
pub(super) const REMARK_SIZE: f64 = 17.0;
const TITLE_SIZE: f64 = 22.0;

/// How many times its own length beyond either end a scale places a value at most. The direction of a line to that place
/// is that to any place further out.
const FAR: f64 = 1e5;

/// Values from `low` to `high`, laid from pixel `start` to pixel `end`.
#[derive(Clone, Copy, Debug)]
pub(super) struct Scale {
    pub low: f64,
    pub high: f64,
    start: f64,
    end: f64,
}

impl Scale {
    /// `range` from pixel `start` to pixel `end`; a range that can be no axis gives way to one that can.
    fn new(range: (f64, f64), start: f64, end: f64) -> Self {
        let (low, high) = limits::axis(range);
        Self { low, high, start, end }
    }

    /// The pixel of `value`: finite for every number, and NaN for NaN.
    pub fn at(&self, value: f64) -> f64 {
        let share = (value - self.low) / (self.high - self.low);
        self.start + share.clamp(-FAR, 1.0 + FAR) * (self.end - self.start)
    }

    pub fn contains(&self, value: f64) -> bool {
        (self.low..=self.high).contains(&value)
    }
}

/// A panel's area with its two scales; y grows upwards.
#[derive(Clone, Copy, Debug)]
pub(super) struct Frame {
    pub area: Area,
    pub x: Scale,
    pub y: Scale,
}

impl Frame {
    /// `x` over the width of `area`, `y` over its height.
    pub fn new(area: Area, x: (f64, f64), y: (f64, f64)) -> Self {
        Self { area, x: Scale::new(x, area.left, area.right()), y: Scale::new(y, area.bottom(), area.top) }
    }

    pub fn at(&self, (x, y): (f64, f64)) -> (f64, f64) {
        (self.x.at(x), self.y.at(y))
    }

    pub fn contains(&self, (x, y): (f64, f64)) -> bool {
        self.x.contains(x) && self.y.contains(y)
    }

    /// Grid lines at `ticks`, to be drawn before the contents.
    pub fn grid(&self, svg: &mut Svg, x_ticks: &Ticks, y_ticks: &Ticks) {
        let Area { left, top, .. } = self.area;
        let (right, bottom) = (self.area.right(), self.area.bottom());
        for &value in &x_ticks.values {
            let x = self.x.at(value);
            svg.line((x, top), (x, bottom), Stroke::solid(GRID, 1.0));
        }
        for &value in &y_ticks.values {
            let y = self.y.at(value);
            svg.line((left, y), (right, y), Stroke::solid(GRID, 1.0));
        }
    }

    /// The frame's border, to be drawn after the contents.
    pub fn border(&self, svg: &mut Svg) {
        svg.rectangle(self.area, "none", Some(Stroke::solid(FRAME, 1.2)));
    }

    /// Numbers at the ticks of x, and what x is.
    pub fn label_x(&self, svg: &mut Svg, ticks: &Ticks, label: &str) {
        let bottom = self.area.bottom();
        for &value in &ticks.values {
            let x = self.x.at(value);
            svg.line((x, bottom), (x, bottom + 5.0), Stroke::solid(FRAME, 1.2));
            let text = ticks.label(value);
            svg.text(x, bottom + 23.0, &Text::new(&text, TICK_SIZE, TEXT).anchor(Anchor::Middle));
        }
        let middle = self.area.left + 0.5 * self.area.width;
        svg.text(middle, bottom + 50.0, &Text::new(label, LABEL_SIZE, TEXT).anchor(Anchor::Middle));
    }

    /// Numbers at the ticks of y, and what y is, unless `label` is empty.
    pub fn label_y(&self, svg: &mut Svg, ticks: &Ticks, label: &str) {
        let left = self.area.left;
        for &value in &ticks.values {
            let y = self.y.at(value);
            svg.line((left - 5.0, y), (left, y), Stroke::solid(FRAME, 1.2));
            let text = ticks.label(value);
            svg.text(left - 10.0, y + 6.0, &Text::new(&text, TICK_SIZE, TEXT).anchor(Anchor::End));
        }
        if !label.is_empty() {
            let x = left - 24.0 - ticks.width();
            let y = self.area.top + 0.5 * self.area.height;
            svg.text(x, y, &Text::new(label, LABEL_SIZE, TEXT).anchor(Anchor::Middle).upright());
        }
    }
}

/// A panel's letter and title above `area`, with a remark at the right end of the same line.
pub(super) fn title(svg: &mut Svg, area: Area, letter: char, title: &str, remark: &str) {
    let y = area.top - 14.0;
    let letter = letter.to_string();
    svg.text(area.left, y, &Text::new(&letter, TITLE_SIZE, MUTED).strong());
    svg.text(area.left + 24.0, y, &Text::new(title, TITLE_SIZE, INK).strong());
    svg.text(area.right(), y, &Text::new(remark, REMARK_SIZE, MUTED).anchor(Anchor::End));
}

/// Where the title that [`title`] writes ends.
pub(super) fn title_end(area: Area, title: &str) -> f64 {
    area.left + 24.0 + font::width(title, TITLE_SIZE)
}

/// Round numbers along an axis.
#[derive(Clone, Debug)]
pub(super) struct Ticks {
    pub values: Vec<f64>,
    step: f64,
}

impl Ticks {
    /// Multiples of 1, 2 or 5 times a power of ten within `range`, at most `most` intervals; none in a range without a
    /// finite span.
    pub fn new(range: (f64, f64), most: usize) -> Self {
        Self::with_step(range, round_step((range.1 - range.0) / most as f64))
    }

    /// [`Ticks::new`] for a quantity that is counted: never finer than 1.
    pub fn whole(range: (f64, f64), most: usize) -> Self {
        Self::with_step(range, round_step((range.1 - range.0) / most as f64).max(1.0))
    }

    /// The same steps as these, over another range of the same quantity.
    pub fn over(&self, range: (f64, f64)) -> Self {
        Self::with_step(range, self.step)
    }

    fn with_step((low, high): (f64, f64), step: f64) -> Self {
        if !(step > 0.0 && [step, low, high].iter().all(|value| value.is_finite())) {
            return Self { values: Vec::new(), step: 1.0 };
        }
        // The slack keeps a tick that rounding put a hair outside.
        let first = (low / step - 1e-9).ceil();
        let count = ((high / step + 1e-9).floor() - first).clamp(-1.0, 100.0) as i64 + 1;
        Self { values: (0..count).map(|index| (first + index as f64) * step).collect(), step }
    }

    /// The tick's number, with as many decimals as the step needs and a true minus sign.
    pub fn label(&self, value: f64) -> String {
        let digits = self.step.log10().floor();
        if !(-5.0..6.0).contains(&digits) {
            return format!("{value:.1e}").replace('-', "−");
        }
        signed(value, (-digits).max(0.0) as usize)
    }

    /// Width of the widest label in pixels.
    pub fn width(&self) -> f64 {
        self.values.iter().map(|&value| font::width(&self.label(value), TICK_SIZE)).fold(0.0, f64::max)
    }
}

/// The smallest of 1, 2, 5 times a power of ten that is at least `rough`.
fn round_step(rough: f64) -> f64 {
    let power = 10f64.powf(rough.log10().floor());
    let factor = [1.0, 2.0, 5.0].into_iter().find(|factor| factor * power >= rough * (1.0 - 1e-9));
    factor.unwrap_or(10.0) * power
}

/// A number with `decimals` decimals and a true minus sign, which zero has not; in powers of ten when it is huge.
pub(super) fn signed(value: f64, decimals: usize) -> String {
    if value.abs() >= 1e9 {
        return format!("{value:.2e}").replace('-', "−");
    }
    let text = format!("{:.decimals$}", value.abs());
    let zero = text.chars().all(|character| matches!(character, '0' | '.'));
    if value < 0.0 && !zero { format!("−{text}") } else { text }
}

/// A count with commas between its thousands.
pub(super) fn count(n: usize) -> String {
    let digits = n.to_string();
    let mut out = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn labels(range: (f64, f64), most: usize) -> Vec<String> {
        let ticks = Ticks::new(range, most);
        ticks.values.iter().map(|&value| ticks.label(value)).collect()
    }

    #[test]
    fn ticks_are_round_numbers_within_the_range() {
        assert_eq!(labels((-1.3, 2.2), 5), ["−1", "0", "1", "2"]);
        assert_eq!(labels((-0.6, 0.6), 6), ["−0.6", "−0.4", "−0.2", "0.0", "0.2", "0.4", "0.6"]);
        assert_eq!(labels((0.0, 300.0), 6), ["0", "50", "100", "150", "200", "250", "300"]);
        assert_eq!(labels((0.2961, 0.3018), 3), ["0.298", "0.300"]);
        assert_eq!(labels((0.0, 3e7), 3), ["0.0e0", "1.0e7", "2.0e7", "3.0e7"]);
    }

    #[test]
    fn ticks_of_a_tiny_step_at_a_great_offset_stay_few() {
        assert!(Ticks::new((1e15, 1e15 + 1.0), 5).values.len() <= 7);
        assert!(Ticks::whole((1.0, 1.5), 5).values.len() == 1);
    }

    #[test]
    fn every_range_has_finitely_many_finite_ticks_and_every_number_a_finite_pixel() {
        let area = Area { left: 10.0, top: 20.0, width: 1460.0, height: 50.0 };
        let ends =
            [0.0, 1.0, -1.0, 5e-324, 1e-310, 1e-200, 1e15, 1e150, 1e300, f64::MAX, f64::NAN, f64::INFINITY];
        for (low, high) in ends.iter().flat_map(|&low| ends.map(|high| (low, high))) {
            for ticks in [Ticks::new((low, high), 5), Ticks::whole((low, high), 8)] {
                assert!(ticks.values.len() <= 101, "{low} to {high}");
                assert!(ticks.values.iter().all(|value| value.is_finite()), "{low} to {high}: {ticks:?}");
                assert!(ticks.width().is_finite());
            }
            let frame = Frame::new(area, (low, high), (high, low));
            for value in ends.into_iter().chain(ends.map(|end| -end)) {
                let (x, y) = frame.at((value, value));
                assert!(value.is_nan() || x.abs() < 1e10 && y.abs() < 1e10, "{value}: {x} {y}");
                assert_eq!(x.is_nan(), value.is_nan());
            }
        }
    }

    #[test]
    fn counts_have_commas() {
        assert_eq!([0, 999, 1000, 12_345_678].map(count), ["0", "999", "1,000", "12,345,678"]);
    }

    #[test]
    fn scales_send_their_ends_to_the_ends_of_the_area_and_y_grows_upwards() {
        let area = Area { left: 10.0, top: 20.0, width: 100.0, height: 50.0 };
        let frame = Frame::new(area, (-1.0, 1.0), (0.0, 5.0));
        assert_eq!(frame.at((-1.0, 0.0)), (10.0, 70.0));
        assert_eq!(frame.at((1.0, 5.0)), (110.0, 20.0));
    }
}
