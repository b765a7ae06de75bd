//! From a drawing to pixels and from pixels to PNG or GIF: the last step of a report, and the first of its heat map.

use std::io::Cursor;
use std::time::Duration;

use base64::Engine;
use image::codecs::gif::{GifEncoder, Repeat};
use image::codecs::png::{CompressionType, FilterType, PngEncoder};
use image::{Delay, ExtendedColorType, ImageEncoder, RgbaImage};
use resvg::{tiny_skia, usvg};

use super::font;
use crate::error::{Error, Result};

/// Widths that a picture may have, in pixels.
const WIDTHS: std::ops::RangeInclusive<u32> = 16..=16_384;

/// The drawing `svg` as an RGB PNG `width` pixels wide, in its own proportions.
///
/// # Errors
/// Those of [`pixels`].
pub(super) fn png(svg: &str, width: u32) -> Result<Vec<u8>> {
    let pixels = pixels(svg, width)?;
    // The paper is opaque, so that premultiplied colour is plain colour and alpha can go.
    let rgb: Vec<u8> =
        pixels.data().chunks_exact(4).flat_map(|pixel| [pixel[0], pixel[1], pixel[2]]).collect();
    encode(&rgb, pixels.width(), pixels.height(), ExtendedColorType::Rgb8).map_err(failed)
}

/// The drawings `svgs` as an animated GIF `width` pixels wide, `seconds` each and the last one five times as long,
/// over and over.
///
/// # Errors
/// Those of [`pixels`].
pub(super) fn gif(svgs: impl ExactSizeIterator<Item = String>, width: u32, seconds: f64) -> Result<Vec<u8>> {
    /// 1 is the best palette, 30 the fastest; at 10 a heat map shows no bands.
    const SPEED: i32 = 10;
    /// Frames that the last picture stands still for.
    const REST: f64 = 5.0;

    let last = svgs.len().saturating_sub(1);
    let mut bytes = Vec::new();
    let mut encoder = GifEncoder::new_with_speed(&mut bytes, SPEED);
    encoder.set_repeat(Repeat::Infinite).map_err(|error| failed(error.to_string()))?;
    for (index, svg) in svgs.enumerate() {
        let pixels = pixels(&svg, width)?;
        let (width, height) = (pixels.width(), pixels.height());
        let image = RgbaImage::from_raw(width, height, pixels.take())
            .ok_or_else(|| failed("its pixels do not fill it".into()))?;
        let seconds = if index == last { REST * seconds } else { seconds };
        let delay = Delay::from_saturating_duration(Duration::from_secs_f64(seconds));
        encoder
            .encode_frame(image::Frame::from_parts(image, 0, 0, delay))
            .map_err(|error| failed(error.to_string()))?;
    }
    drop(encoder);
    Ok(bytes)
}

fn failed(reason: String) -> Error {
    Error::Picture(format!("the drawing could not be rendered: {reason}"))
}

/// The drawing `svg` in opaque pixels, `width` of them side by side.
///
/// # Errors
/// [`Error::Argument`] when the width is outside of [`WIDTHS`], [`Error::Picture`] when the drawing is not valid.
fn pixels(svg: &str, width: u32) -> Result<tiny_skia::Pixmap> {
    if !WIDTHS.contains(&width) {
        return Err(Error::Argument(format!(
            "picture: got a width of {width} pixels, expected {} to {}",
            WIDTHS.start(),
            WIDTHS.end()
        )));
    }
    let options = usvg::Options { fontdb: font::database(), ..usvg::Options::default() };
    let tree = usvg::Tree::from_str(svg, &options).map_err(|error| failed(error.to_string()))?;
    let scale = width as f32 / tree.size().width();
    let height = (tree.size().height() * scale).round() as u32;
    let mut pixels = tiny_skia::Pixmap::new(width, height)
        .ok_or_else(|| failed(format!("{width} × {height} pixels do not fit into memory")))?;
    // The last row and column may be covered in part only, where the proportions give no whole height.
    pixels.fill(tiny_skia::Color::WHITE);
    resvg::render(&tree, tiny_skia::Transform::from_scale(scale, scale), &mut pixels.as_mut());
    Ok(pixels)
}

/// RGBA pixels, row 0 at the top, as a `data:` URI that a drawing can hold.
///
/// # Errors
/// [`Error::Picture`] when the image cannot be encoded: a side of length 0.
pub(super) fn data_uri(rgba: &[u8], width: u32, height: u32) -> Result<String> {
    let png = encode(rgba, width, height, ExtendedColorType::Rgba8)
        .map_err(|reason| Error::Picture(format!("the heat map could not be encoded: {reason}")))?;
    Ok(format!("data:image/png;base64,{}", base64::prelude::BASE64_STANDARD.encode(png)))
}

fn encode(
    bytes: &[u8],
    width: u32,
    height: u32,
    colour: ExtendedColorType,
) -> std::result::Result<Vec<u8>, String> {
    let mut png = Cursor::new(Vec::new());
    PngEncoder::new_with_quality(&mut png, CompressionType::Default, FilterType::Adaptive)
        .write_image(bytes, width, height, colour)
        .map_err(|error| error.to_string())?;
    Ok(png.into_inner())
}
