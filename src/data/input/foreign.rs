//! Files that are no table, or one in a format that is not read: told by their first bytes, with what to do instead.

/// First bytes, what a file is that begins with them, and what makes a table of it.
const FOREIGN: [(&[u8], &str, &str); 26] = [
    (b"PAR1\x15", "a Parquet file", "its format is parquet"),
    (b"\x93NUMPY", "a NumPy array", "its format is npy"),
    (b"PK\x03\x04", "a ZIP archive, as Excel's workbooks and NumPy's .npz are", "read it from a file"),
    (b"\x89HDF\r\n\x1a\n", "an HDF5 file", "write its table as Parquet or its array as NPY"),
    (b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1", "an Excel workbook", "save its sheet as CSV"),
    (b"\x80\x02", PICKLE.0, PICKLE.1),
    (b"\x80\x03", PICKLE.0, PICKLE.1),
    (b"\x80\x04", PICKLE.0, PICKLE.1),
    (b"\x80\x05", PICKLE.0, PICKLE.1),
    (b"ARROW1\0", "a Feather file", "write it as Parquet"),
    (b"Obj\x01", "an Avro file", "write it as Parquet"),
    (b"SQLite format 3\0", "an SQLite database", "export its table as CSV"),
    (b"MATLAB 5.0 MAT-file", "a MATLAB file", "write its matrix as CSV"),
    (b"RDX3\n", "an R workspace", "write its table as CSV"),
    (b"X\n\0\0\0", "a saved object of R", "write its table as CSV"),
    (b"<stata_dta>", "a Stata file", "export it as CSV"),
    (b"$FL2", "an SPSS file", "export it as CSV"),
    (b"SIMPLE  =", "a FITS file", "write its table as CSV or Parquet"),
    (b"BZh9", "compressed by bzip2", "decompress it, or compress it by gzip or zstd"),
    (b"\xfd7zXZ\0", "compressed by xz", "decompress it, or compress it by gzip or zstd"),
    (b"7z\xbc\xaf\x27\x1c", "a 7z archive", "unpack it"),
    (b"%PDF-", "a PDF file", "extract its table as CSV"),
    (b"\xff\xfe", "text in UTF-16", "save it as UTF-8"),
    (b"\xfe\xff", "text in UTF-16", "save it as UTF-8"),
    (b"version https://git-lfs", "a pointer of Git LFS", "fetch the file that it stands for: git lfs pull"),
    (b"@relation", "an ARFF file", "write its rows, below @data, as CSV"),
];

const PICKLE: (&str, &str) = (
    "a pickle, which may run any program when it is opened",
    "write its table as Parquet or its array as NPY",
);

/// What text is that begins like this, in any case and behind white space.
const MARKUP: [(&[u8], &str, &str); 6] = [
    (b"<!doctype html", "a web page", "download the file itself"),
    (b"<html", "a web page", "download the file itself"),
    (b"<?xml", "an XML file", "write its rows as CSV"),
    (b"{\"", "JSON", "write its rows as CSV"),
    (b"[{", "JSON", "write its rows as CSV"),
    (b"[[", "JSON", "write its rows as CSV"),
];

/// Why a text that begins with `head` is none, and what to do.
pub(super) fn refusal(head: &[u8]) -> Option<String> {
    let begins =
        |head: &[u8], mark: &[u8]| head.get(..mark.len()).is_some_and(|head| head.eq_ignore_ascii_case(mark));
    let text = head.trim_ascii_start();
    let exact = FOREIGN
        .iter()
        .find(|(mark, ..)| head.starts_with(mark) || mark.starts_with(b"@") && begins(head, mark));
    let (_, what, remedy) = exact.or_else(|| MARKUP.iter().find(|(mark, ..)| begins(text, mark)))?;
    Some(format!("is {what}; {remedy}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn formats_are_named_and_tables_are_none_of_them() {
        for (head, want) in [
            (&b"\x89HDF\r\n\x1a\n\0"[..], "is an HDF5 file; write"),
            (b"\x80\x04\x95", "is a pickle, which may run any program"),
            (b"@RELATION iris", "is an ARFF file"),
            (b" \n<!DOCTYPE html>", "is a web page; download"),
            (b"[{\"a\": 1}]", "is JSON"),
            (b"\xff\xfea\0", "is text in UTF-16; save it as UTF-8"),
        ] {
            let got = refusal(head).expect(want);
            assert!(got.starts_with(want), "{got}");
        }
        for head in [
            &b"a,b\n1,2\n"[..],
            b"orc,b\n",
            b"",
            b"[m],[s]\n",
            b"\x80",
            b"pk,b\n",
            b"BZh\n",
            b"PAR1,PAR2\n",
            b"ORC,b\n",
        ] {
            assert_eq!(refusal(head), None, "{head:?}");
        }
    }
}
