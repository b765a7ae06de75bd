//! The one font of every report, embedded in the program: Ubuntu Light, measured for layout and drawn as outlines, so
//! that a picture is the same on a machine without a single font installed.

use std::fmt::Write;
use std::sync::LazyLock;

use ttf_parser::{Face, GlyphId, OutlineBuilder};

static FONT: LazyLock<Face> = LazyLock::new(|| {
    Face::parse(epaint_default_fonts::UBUNTU_LIGHT, 0)
        .expect("invariant: the embedded bytes are a TrueType font")
});

/// The glyph of a character: a blank one where the font lacks it.
fn glyph(character: char) -> GlyphId {
    FONT.glyph_index(character).unwrap_or_default()
}

/// Pixels of a font unit at font size `size`: outlines are not hinted, so everything scales linearly.
fn scale(size: f64) -> f64 {
    size / f64::from(FONT.units_per_em())
}

/// The pen's way over a glyph, in font units.
fn advance(glyph: GlyphId) -> f64 {
    f64::from(FONT.glyph_hor_advance(glyph).unwrap_or_default())
}

/// Width of `text` in pixels at font size `size`, without kerning.
pub(super) fn width(text: &str, size: f64) -> f64 {
    text.chars().map(|character| advance(glyph(character))).sum::<f64>() * scale(size)
}

/// The outlines of `text` at font size `size` as SVG path data, the pen starting at the origin: as wide as [`width`].
pub(super) fn outlines(text: &str, size: f64) -> String {
    let mut path = Path { data: String::new(), scale: scale(size), pen: 0.0 };
    for glyph in text.chars().map(glyph) {
        // A blank has none.
        let _ = FONT.outline_glyph(glyph, &mut path);
        path.pen += advance(glyph);
    }
    path.data
}

/// Path data under construction. In a font y goes up, in a drawing down.
struct Path {
    data: String,
    scale: f64,
    pen: f64,
}

impl Path {
    fn put<const N: usize>(&mut self, command: char, points: [(f32, f32); N]) {
        self.data.push(command);
        for (x, y) in points {
            let (x, y) = (self.scale * (self.pen + f64::from(x)), -self.scale * f64::from(y));
            write!(self.data, "{x:.3} {y:.3} ").expect("invariant: a string accepts every write");
        }
    }
}

impl OutlineBuilder for Path {
    fn move_to(&mut self, x: f32, y: f32) {
        self.put('M', [(x, y)]);
    }

    fn line_to(&mut self, x: f32, y: f32) {
        self.put('L', [(x, y)]);
    }

    fn quad_to(&mut self, x1: f32, y1: f32, x: f32, y: f32) {
        self.put('Q', [(x1, y1), (x, y)]);
    }

    fn curve_to(&mut self, x1: f32, y1: f32, x2: f32, y2: f32, x: f32, y: f32) {
        self.put('C', [(x1, y1), (x2, y2), (x, y)]);
    }

    fn close(&mut self) {
        self.data.push('Z');
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_special_character_of_the_labels_is_in_the_font() {
        for character in "−σ±×·…–≤χ₁₂∫".chars() {
            assert!(FONT.glyph_index(character).is_some(), "{character} is missing");
        }
    }

    #[test]
    fn width_grows_with_the_text_and_the_size() {
        assert!(width("moons", 20.0) > width("moon", 20.0));
        assert!((width("moons", 40.0) - 2.0 * width("moons", 20.0)).abs() < 1e-9);
        // An em dash is one em wide in most faces; a light sans serif averages about half an em a letter.
        let average = width("negative log-likelihood", 1.0) / 23.0;
        assert!((0.35..0.65).contains(&average), "{average}");
    }

    #[test]
    fn outlines_stand_on_the_line_one_after_the_other() {
        let data = outlines("Ll", 100.0);
        let numbers: Vec<f64> = data
            .split(|letter: char| letter.is_alphabetic() || letter == ' ')
            .filter_map(|number| number.parse().ok())
            .collect();
        let (x, y): (Vec<f64>, Vec<f64>) = numbers.chunks_exact(2).map(|point| (point[0], point[1])).unzip();
        let least = |values: &[f64]| values.iter().copied().fold(f64::INFINITY, f64::min);
        let most = |values: &[f64]| values.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        assert!((0.0..20.0).contains(&least(&x)) && most(&x) < width("Ll", 100.0), "{data}");
        assert!(most(&x) > width("L", 100.0), "the second letter follows the first: {data}");
        assert!(most(&y).abs() < 2.0 && (-90.0..-50.0).contains(&least(&y)), "{data}");
        assert_eq!(outlines(" ", 100.0), "");
    }
}
