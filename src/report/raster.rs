//! From a drawing to pixels and from pixels to PNG or GIF: the last step of a report, and the first of its heat map.

use std::fmt::Display;
use std::iter;

use base64::Engine;
use gif::{DisposalMethod, Encoder, Frame, Repeat};
use png::{BitDepth, ColorType, Compression, EncodingError, Filter};
use resvg::{tiny_skia, usvg};

use super::svg::outlined;
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
    let mut rgb = Vec::with_capacity(pixels.data().len() / 4 * 3);
    pixels.data().chunks_exact(4).for_each(|pixel| rgb.extend_from_slice(&pixel[..3]));
    encode(&rgb, pixels.width(), pixels.height(), ColorType::Rgb).map_err(failed)
}

/// The drawings `svgs` as an animated GIF `width` pixels wide, `seconds` each and the last one five times as long,
/// over and over.
///
/// # Errors
/// Those of [`pixels`]; [`Error::Picture`] without drawings.
pub(super) fn gif(svgs: impl ExactSizeIterator<Item = String>, width: u32, seconds: f64) -> Result<Vec<u8>> {
    /// Frames that the last picture stands still for.
    const REST: f64 = 5.0;

    let last = svgs.len().saturating_sub(1);
    let mut frames = svgs.enumerate().map(|(index, svg)| {
        let seconds = if index == last { REST * seconds } else { seconds };
        frame(pixels(&svg, width)?, seconds)
    });
    let first = frames.next().ok_or_else(|| failed("there is none"))??;
    let mut encoder = Encoder::new(Vec::new(), first.width, first.height, &[]).map_err(failed)?;
    encoder.set_repeat(Repeat::Infinite).map_err(failed)?;
    for frame in iter::once(Ok(first)).chain(frames) {
        encoder.write_frame(&frame?).map_err(failed)?;
    }
    encoder.into_inner().map_err(failed)
}

/// Opaque `pixels` as a frame that is shown for `seconds`, with a palette of its own.
///
/// # Errors
/// [`Error::Picture`] when a side is longer than a GIF can have.
fn frame(pixels: tiny_skia::Pixmap, seconds: f64) -> Result<Frame<'static>> {
    /// 1 is the best palette, 30 the fastest; at 10 a heat map shows no bands.
    const SPEED: i32 = 10;

    let side = |side: u32| u16::try_from(side).map_err(failed);
    let (width, height) = (side(pixels.width())?, side(pixels.height())?);
    let mut frame = Frame::from_rgba_speed(width, height, &mut pixels.take(), SPEED);
    frame.delay = (100.0 * seconds).round() as u16;
    frame.dispose = DisposalMethod::Background;
    Ok(frame)
}

fn failed(reason: impl Display) -> Error {
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
    let tree = usvg::Tree::from_str(&outlined(svg), &usvg::Options::default()).map_err(failed)?;
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
    let png = encode(rgba, width, height, ColorType::Rgba)
        .map_err(|reason| Error::Picture(format!("the heat map could not be encoded: {reason}")))?;
    Ok(format!("data:image/png;base64,{}", base64::prelude::BASE64_STANDARD.encode(png)))
}

/// `bytes` of pixels as a PNG, a byte for each number of a colour.
fn encode(
    bytes: &[u8],
    width: u32,
    height: u32,
    colour: ColorType,
) -> std::result::Result<Vec<u8>, EncodingError> {
    let mut png = Vec::new();
    let mut encoder = png::Encoder::new(&mut png, width, height);
    encoder.set_color(colour);
    encoder.set_depth(BitDepth::Eight);
    encoder.set_compression(Compression::Balanced);
    encoder.set_filter(Filter::Adaptive);
    let mut writer = encoder.write_header()?;
    writer.write_image_data(bytes)?;
    writer.finish()?;
    Ok(png)
}
