//! The one font of every report, embedded in the program: Ubuntu Light, measured for layout and drawn by the
//! rasteriser, so that a picture is the same on a machine without a single font installed.

use std::sync::{Arc, LazyLock};

use resvg::usvg::fontdb;
use skrifa::MetadataProvider;
use skrifa::instance::{LocationRef, Size};

const BYTES: &[u8] = epaint_default_fonts::UBUNTU_LIGHT;

/// The database that the rasteriser asks: the embedded font and nothing of the system's, under every generic name.
pub(super) fn database() -> Arc<fontdb::Database> {
    static DATABASE: LazyLock<Arc<fontdb::Database>> = LazyLock::new(|| {
        let mut database = fontdb::Database::new();
        database.load_font_data(BYTES.to_vec());
        let family = database.faces().next().map(|face| face.families[0].0.clone());
        if let Some(family) = family {
            database.set_sans_serif_family(family);
        }
        Arc::new(database)
    });
    DATABASE.clone()
}

/// Width of `text` in pixels at font size `size`, without kerning. Characters the font lacks count as its blank
/// glyph, as the rasteriser draws them.
pub(super) fn width(text: &str, size: f64) -> f64 {
    static FONT: LazyLock<skrifa::FontRef> = LazyLock::new(|| {
        skrifa::FontRef::new(BYTES).expect("invariant: the embedded bytes are a TrueType font")
    });
    let characters = FONT.charmap();
    // Measured in font units of 1/1000 em: advances scale linearly, as the rasteriser does not hint.
    let glyphs = FONT.glyph_metrics(Size::new(1000.0), LocationRef::default());
    let advance = |character| {
        let glyph = characters.map(character).unwrap_or_default();
        f64::from(glyphs.advance_width(glyph).unwrap_or_default())
    };
    text.chars().map(advance).sum::<f64>() * size / 1000.0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_special_character_of_the_labels_is_in_the_font() {
        let font = skrifa::FontRef::new(BYTES).expect("invariant: the embedded bytes are a TrueType font");
        for character in "−σ±×·…–≤χ₁₂∫".chars() {
            assert!(font.charmap().map(character).is_some(), "{character} is missing");
        }
    }

    #[test]
    fn the_database_holds_one_face_under_the_name_that_drawings_ask_for() {
        let database = database();
        let names: Vec<_> =
            database.faces().flat_map(|face| face.families.iter().map(|f| f.0.clone())).collect();
        assert!(names.iter().any(|name| name == "Ubuntu"), "{names:?}");
    }

    #[test]
    fn width_grows_with_the_text_and_the_size() {
        assert!(width("moons", 20.0) > width("moon", 20.0));
        assert!((width("moons", 40.0) - 2.0 * width("moons", 20.0)).abs() < 1e-9);
        // An em dash is one em wide in most faces; a light sans serif averages about half an em a letter.
        let average = width("negative log-likelihood", 1.0) / 23.0;
        assert!((0.35..0.65).contains(&average), "{average}");
    }
}
