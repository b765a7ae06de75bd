//! The colours of a report: one ink, cool blues for the data, warm hues for whatever the model made.
//! Blue against vermilion stays apart in every common form of colour blindness, and each pair also differs in
//! lightness, so that a grey print keeps it.

use std::sync::LazyLock;

/// Titles and contour lines.
pub(super) const INK: &str = "#17202a";
/// Axis labels and tick labels.
pub(super) const TEXT: &str = "#3a4653";
/// Remarks beside a title, reference lines.
pub(super) const MUTED: &str = "#6d7987";
/// Frames of panels.
pub(super) const FRAME: &str = "#b4bdc7";
/// Grid lines.
pub(super) const GRID: &str = "#e7ebef";
/// Points and histograms of the data; the validation curve, which is data as well.
pub(super) const DATA: &str = "#1b5e9e";
/// The training curve, drawn under the validation curve.
pub(super) const DATA_LIGHT: &str = "#86b7e2";
/// Points and histograms of the model's samples.
pub(super) const MODEL: &str = "#cf4f16";

/// Control points of the density ramp in OKLCh: lightness, chroma, hue in degrees. Lightness falls by the same
/// amount from each point to the next, which makes equal steps of log-density equal steps to the eye. It begins with
/// the white of the paper: where there is no density there is no ink.
const RAMP: [[f64; 3]; 6] = [
    [1.000, 0.000, 95.0],
    [0.850, 0.110, 75.0],
    [0.700, 0.165, 45.0],
    [0.550, 0.180, 15.0],
    [0.400, 0.150, 340.0],
    [0.250, 0.090, 310.0],
];

/// The density ramp at `t` in [0, 1] (clamped): sRGB bytes, from white over orange and magenta to near-black violet.
///
/// In so many steps that no byte of a colour changes by more than 1 from one to the next: a heat map asks for one a cell.
pub(super) fn ramp(t: f64) -> [u8; 3] {
    const STEPS: usize = 1024;
    static COLOURS: LazyLock<Vec<[u8; 3]>> =
        LazyLock::new(|| (0..=STEPS).map(|step| on_ramp(step as f64 / STEPS as f64)).collect());
    COLOURS[(t.clamp(0.0, 1.0) * STEPS as f64).round() as usize]
}

fn on_ramp(t: f64) -> [u8; 3] {
    let place = t * (RAMP.len() - 1) as f64;
    let index = (place as usize).min(RAMP.len() - 2);
    let part = place - index as f64;
    let [from, to] = [oklab(RAMP[index]), oklab(RAMP[index + 1])];
    srgb(std::array::from_fn(|channel| from[channel] + part * (to[channel] - from[channel])))
}

/// `#rrggbb` of sRGB bytes.
pub(super) fn hex([red, green, blue]: [u8; 3]) -> String {
    format!("#{red:02x}{green:02x}{blue:02x}")
}

fn oklab([lightness, chroma, hue]: [f64; 3]) -> [f64; 3] {
    let (sin, cos) = hue.to_radians().sin_cos();
    [lightness, chroma * cos, chroma * sin]
}

/// OKLab to sRGB bytes, by the matrices of Björn Ottosson, "A perceptual color space for image processing", 2020.
fn srgb([lightness, a, b]: [f64; 3]) -> [u8; 3] {
    let l = (lightness + 0.396_337_777_4 * a + 0.215_803_757_3 * b).powi(3);
    let m = (lightness - 0.105_561_345_8 * a - 0.063_854_172_8 * b).powi(3);
    let s = (lightness - 0.089_484_177_5 * a - 1.291_485_548_0 * b).powi(3);
    [
        4.076_741_662_1 * l - 3.307_711_591_3 * m + 0.230_969_929_2 * s,
        -1.268_438_004_6 * l + 2.609_757_401_1 * m - 0.341_319_396_5 * s,
        -0.004_196_086_3 * l - 0.703_418_614_7 * m + 1.707_614_701_0 * s,
    ]
    .map(|linear| {
        let linear = linear.clamp(0.0, 1.0);
        let encoded =
            if linear <= 0.003_130_8 { 12.92 * linear } else { 1.055 * linear.powf(1.0 / 2.4) - 0.055 };
        (255.0 * encoded).round() as u8
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Relative luminance of sRGB bytes (IEC 61966-2-1).
    fn luminance(colour: [u8; 3]) -> f64 {
        let linear = colour.map(|byte| {
            let value = f64::from(byte) / 255.0;
            if value <= 0.040_45 { value / 12.92 } else { ((value + 0.055) / 1.055).powf(2.4) }
        });
        0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]
    }

    #[test]
    fn ramp_grows_darker_all_the_way_so_that_a_grey_print_keeps_its_order() {
        let luminances: Vec<f64> = (0..=100).map(|i| luminance(ramp(1.0 - f64::from(i) / 100.0))).collect();
        assert!(luminances.is_sorted(), "{luminances:?}");
        assert!(luminances[0] < 0.03 && luminances[100] > 0.99, "{} {}", luminances[0], luminances[100]);
    }

    #[test]
    fn steps_of_the_ramp_are_finer_than_a_byte() {
        let colours: Vec<[u8; 3]> = (0..=1024).map(|i| ramp(f64::from(i) / 1024.0)).collect();
        for (pair, step) in colours.windows(2).zip(0..) {
            let change = pair[0].iter().zip(&pair[1]).map(|(a, b)| a.abs_diff(*b)).max();
            assert!(change <= Some(1), "{step}: {pair:?}");
        }
        assert_eq!(ramp(-1.0), on_ramp(0.0));
        assert_eq!(ramp(7.0), on_ramp(1.0));
    }

    #[test]
    fn white_and_black_survive_the_way_through_oklab() {
        assert_eq!(srgb([1.0, 0.0, 0.0]), [255; 3]);
        assert_eq!(srgb([0.0, 0.0, 0.0]), [0; 3]);
    }
}
