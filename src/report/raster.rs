//! From a drawing to pixels and from pixels to PNG: the last step of a report, and the first of its heat map.

use std::io::Cursor;

use base64::Engine;
use image::codecs::png::{CompressionType, FilterType, PngEncoder};
use image::{ExtendedColorType, ImageEncoder};
use resvg::{tiny_skia, usvg};

use super::font;
use crate::error::{Error, Result};

/// Widths that a picture may have, in pixels.
const WIDTHS: std::ops::RangeInclusive<u32> = 16..=16_384;

/// The drawing `svg` as an RGB PNG `width` pixels wide, in its own proportions.
///
/// # Errors
/// [`Error::Argument`] when `width` is outside of [`WIDTHS`] or the drawing is not valid.
pub(super) fn png(svg: &str, width: u32) -> Result<Vec<u8>> {
    if !WIDTHS.contains(&width) {
        return Err(Error::Argument(format!(
            "picture: got a width of {width} pixels, expected {} to {}",
            WIDTHS.start(),
            WIDTHS.end()
        )));
    }
    let failed =
        |reason: String| Error::Argument(format!("picture: the drawing could not be rendered: {reason}"));
    let options = usvg::Options { fontdb: font::database(), ..usvg::Options::default() };
    let tree = usvg::Tree::from_str(svg, &options).map_err(|error| failed(error.to_string()))?;
    let scale = width as f32 / tree.size().width();
    let height = (tree.size().height() * scale).round() as u32;
    let mut pixels = tiny_skia::Pixmap::new(width, height)
        .ok_or_else(|| failed(format!("{width} × {height} pixels do not fit into memory")))?;
    // The last row and column may be covered in part only, where the proportions give no whole height.
    pixels.fill(tiny_skia::Color::WHITE);
    resvg::render(&tree, tiny_skia::Transform::from_scale(scale, scale), &mut pixels.as_mut());
    // The paper is opaque, so that premultiplied colour is plain colour and alpha can go.
    let rgb: Vec<u8> =
        pixels.data().chunks_exact(4).flat_map(|pixel| [pixel[0], pixel[1], pixel[2]]).collect();
    encode(&rgb, width, height, ExtendedColorType::Rgb8).map_err(failed)
}

/// RGBA pixels, row 0 at the top, as a `data:` URI that a drawing can hold.
///
/// # Errors
/// [`Error::Argument`] when the image cannot be encoded: a side of length 0.
pub(super) fn data_uri(rgba: &[u8], width: u32, height: u32) -> Result<String> {
    let png = encode(rgba, width, height, ExtendedColorType::Rgba8)
        .map_err(|reason| Error::Argument(format!("heat map: could not be encoded: {reason}")))?;
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
