//! gzip as the program of that name reads it: members one after the other, and zeros behind them.

use std::io::{self, BufRead, Read};

use flate2::bufread::GzDecoder;

/// The bytes of all members. Zeros behind one are passed over: tapes and some writers fill their last block with them.
pub(super) struct GzipReader<R: BufRead> {
    member: Option<GzDecoder<R>>,
}

impl<R: BufRead> GzipReader<R> {
    pub(super) fn new(inner: R) -> Self {
        Self { member: Some(GzDecoder::new(inner)) }
    }
}

impl<R: BufRead> Read for GzipReader<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while let Some(member) = &mut self.member {
            let count = member.read(buffer)?;
            if count > 0 || buffer.is_empty() {
                return Ok(count);
            }
            self.member =
                self.member.take().map(GzDecoder::into_inner).map(next_member).transpose()?.flatten();
        }
        Ok(0)
    }
}

/// The member that follows zeros, if there are any bytes but these.
fn next_member<R: BufRead>(mut inner: R) -> io::Result<Option<GzDecoder<R>>> {
    loop {
        let bytes = inner.fill_buf()?;
        let (zeros, length) = (bytes.iter().take_while(|&&byte| byte == 0).count(), bytes.len());
        inner.consume(zeros);
        if length == 0 {
            return Ok(None);
        }
        if zeros < length {
            return Ok(Some(GzDecoder::new(inner)));
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    fn member(text: &str) -> Vec<u8> {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        encoder.write_all(text.as_bytes()).and_then(|()| encoder.finish()).expect("memory")
    }

    #[test]
    fn members_follow_each_other_and_zeros_are_no_member() {
        let read = |bytes: &[u8]| {
            let mut text = String::new();
            // Buffers that end in the middle of the zeros.
            GzipReader::new(io::BufReader::with_capacity(7, bytes)).read_to_string(&mut text).map(|_| text)
        };
        let [a, b] = ["a,b\n", "1,2\n"].map(member);
        for bytes in [[&a[..], &b].concat(), [&a[..], &[0; 100], &b, &[0; 512]].concat()] {
            assert_eq!(read(&bytes).expect("gzip"), "a,b\n1,2\n");
        }
        assert!(read(&[&a[..], &[0; 9], b"x"].concat()).is_err(), "what is no member is no zero either");
        assert!(read(&a[..a.len() - 3]).is_err(), "cut short");
    }
}
