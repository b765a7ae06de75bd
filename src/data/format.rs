//! Which format a table has in a file: told by its name, or by the user, who is asked first.
//! Readers and writers both begin here.

use std::fmt;
use std::path::Path;

use crate::error::{Error, Result};
use crate::shown::shown;

/// How rows are laid out in a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Format {
    /// Fields with commas between them, as in RFC 4180.
    Csv,
    /// Fields with tabs between them, quoted as in CSV.
    Tsv,
    /// One NumPy array of one or two dimensions; it is read from NPZ too.
    Npy,
    /// Apache Parquet.
    Parquet,
}

/// How the bytes of a CSV or TSV file are compressed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Compression {
    /// They are not.
    None,
    /// gzip (RFC 1952).
    Gzip,
    /// Zstandard (RFC 8878).
    Zstd,
}

/// A format and, for CSV and TSV, its compression.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Encoding {
    /// The layout of rows.
    pub format: Format,
    /// The compression around it. Readers tell it by the first bytes and need not be told.
    pub compression: Compression,
}

impl Format {
    /// Every format and its name, which is its file extension too.
    pub const ALL: [(&'static str, Self); 4] =
        [("csv", Self::Csv), ("tsv", Self::Tsv), ("npy", Self::Npy), ("parquet", Self::Parquet)];

    /// The name, as in [`Format::ALL`].
    pub fn name(self) -> &'static str {
        Self::ALL.iter().find(|(_, format)| *format == self).map_or("csv", |(name, _)| name)
    }

    /// How a ZIP archive begins, and NumPy's .npz with it.
    pub(super) const ZIP: &[u8] = b"PK\x03\x04";

    /// The format that is no text of a file that begins with `bytes`. NPZ is a kind of NPY.
    pub(super) fn of_bytes(bytes: &[u8]) -> Option<Self> {
        if bytes.starts_with(b"\x93NUMPY") || bytes.starts_with(Self::ZIP) {
            Some(Self::Npy)
        } else {
            bytes.starts_with(b"PAR1\x15").then_some(Self::Parquet)
        }
    }

    /// Whether rows are lines of text.
    pub fn is_text(self) -> bool {
        matches!(self, Self::Csv | Self::Tsv)
    }
}

impl fmt::Display for Encoding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let compression = match self.compression {
            Compression::None => "",
            Compression::Gzip => ".gz",
            Compression::Zstd => ".zst",
        };
        write!(f, "{}{compression}", self.format.name())
    }
}

impl Encoding {
    /// Plain CSV: that of standard input and output, and of names that say nothing.
    pub const CSV: Self = Self { format: Format::Csv, compression: Compression::None };

    /// The encoding called `text`: a name of [`Format::ALL`], followed by `.gz` or `.zst` for compressed CSV or TSV.
    ///
    /// # Errors
    /// [`Error::Argument`] that lists the formats.
    ///
    /// # Examples
    /// ```
    /// use moonflow::data::{Compression, Encoding, Format};
    ///
    /// # fn main() -> moonflow::Result<()> {
    /// let encoding = Encoding::parse("tsv.gz")?;
    /// assert_eq!((encoding.format, encoding.compression), (Format::Tsv, Compression::Gzip));
    /// assert!(Encoding::parse("xlsx").is_err());
    /// # Ok(())
    /// # }
    /// ```
    pub fn parse(text: &str) -> Result<Self> {
        let lower = text.to_ascii_lowercase();
        Self::of_name(&lower).ok_or_else(|| {
            Error::Argument(format!(
                "there is no table format `{}`; the formats are csv, tsv, npy and parquet, and csv.gz, csv.zst, tsv.gz and \
                 tsv.zst",
                shown(text)
            ))
        })
    }

    /// The encoding that the name of `path` ends in, `wanted` before it: a format that was asked for takes the name's
    /// compression where it has none of its own.
    pub fn of_path(path: Option<&Path>, wanted: Option<Self>) -> Self {
        let name = path.and_then(Path::file_name).unwrap_or_default().to_string_lossy().to_ascii_lowercase();
        let (stem, compression) = split_compression(&name);
        let found = Path::new(stem)
            .extension()
            .and_then(|extension| Self::of_name(&extension.to_string_lossy()))
            .map_or(Format::Csv, |encoding| encoding.format);
        match wanted {
            Some(wanted) if wanted.compression == Compression::None && wanted.format.is_text() => {
                Self { format: wanted.format, compression }
            }
            Some(wanted) => wanted,
            None => Self {
                format: found,
                compression: if found.is_text() { compression } else { Compression::None },
            },
        }
    }

    /// The encoding called `name`, such as `tsv.gz`.
    fn of_name(name: &str) -> Option<Self> {
        let (stem, compression) = split_compression(name);
        let format = Format::ALL.iter().find(|(name, _)| *name == stem).map(|(_, format)| *format)?;
        (format.is_text() || compression == Compression::None).then_some(Self { format, compression })
    }
}

impl Compression {
    /// What a file that begins with `bytes` is compressed by. No CSV begins like that.
    pub fn of_bytes(bytes: &[u8]) -> Self {
        match bytes {
            [0x1f, 0x8b, ..] => Self::Gzip,
            [0x28, 0xb5, 0x2f, 0xfd, ..] => Self::Zstd,
            _ => Self::None,
        }
    }
}

/// `name` without its compression's ending.
fn split_compression(name: &str) -> (&str, Compression) {
    for (ending, compression) in [(".gz", Compression::Gzip), (".zst", Compression::Zstd)] {
        if let Some(stem) = name.strip_suffix(ending) {
            return (stem, compression);
        }
    }
    (name, Compression::None)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn encoding(format: Format, compression: Compression) -> Encoding {
        Encoding { format, compression }
    }

    #[test]
    fn names_and_the_user_decide_the_user_first() {
        use Compression::{Gzip, None as Plain, Zstd};
        let tsv = Some(encoding(Format::Tsv, Plain));
        let csv_zst = Some(encoding(Format::Csv, Zstd));
        let npy = Some(encoding(Format::Npy, Plain));
        for (path, wanted, want) in [
            ("a.csv", None, encoding(Format::Csv, Plain)),
            ("a/b.TSV.GZ", None, encoding(Format::Tsv, Gzip)),
            ("a.csv.zst", None, encoding(Format::Csv, Zstd)),
            ("a.b.npy", None, encoding(Format::Npy, Plain)),
            ("a.parquet", None, encoding(Format::Parquet, Plain)),
            ("a.txt", None, Encoding::CSV),
            ("a.txt.gz", None, encoding(Format::Csv, Gzip)),
            ("-", None, Encoding::CSV),
            ("csv", None, Encoding::CSV),
            ("a.csv", tsv, encoding(Format::Tsv, Plain)),
            ("a.gz", tsv, encoding(Format::Tsv, Gzip)),
            ("a.gz", csv_zst, encoding(Format::Csv, Zstd)),
            ("a.csv.gz", npy, encoding(Format::Npy, Plain)),
        ] {
            assert_eq!(Encoding::of_path(Some(Path::new(path)), wanted), want, "{path} {wanted:?}");
        }
        assert_eq!(Encoding::of_path(None, None), Encoding::CSV);
    }

    #[test]
    fn format_names_are_known_with_compression_and_others_list_them() {
        for (name, format) in Format::ALL {
            assert_eq!(Encoding::parse(name).expect("known"), encoding(format, Compression::None));
            assert_eq!(format.name(), name);
        }
        assert_eq!(Encoding::parse("TSV.gz").expect("known"), encoding(Format::Tsv, Compression::Gzip));
        for name in ["", "xls", "npy.gz", "parquet.zst", "gz", "csv.bz2"] {
            let message = Encoding::parse(name).expect_err(name).to_string();
            assert!(message.contains(&format!("`{name}`")) && message.contains("parquet"), "{message}");
        }
    }

    #[test]
    fn compression_is_told_by_the_first_bytes() {
        assert_eq!(Compression::of_bytes(b"\x1f\x8b\x08"), Compression::Gzip);
        assert_eq!(Compression::of_bytes(b"\x28\xb5\x2f\xfd"), Compression::Zstd);
        assert_eq!(Compression::of_bytes(b"1,2\n"), Compression::None);
        assert_eq!(Compression::of_bytes(b""), Compression::None);
    }
}
