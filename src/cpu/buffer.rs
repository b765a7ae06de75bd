//! Memory that begins where a cache line does, so that no register is loaded across two lines.

use std::ops::{Deref, DerefMut};

use super::Real;
use super::product::panel;

/// Values of which the first stands at the beginning of a cache line.
#[derive(Debug, Default)]
pub(super) struct Buffer<R> {
    values: Vec<R>,
    start: usize,
    len: usize,
}

impl<R: Real> Buffer<R> {
    /// `len` zeros.
    pub fn zeros(len: usize) -> Self {
        let mut buffer = Self::default();
        buffer.resize(len);
        buffer
    }

    /// Gives the buffer exactly `len` values, whatever they are; allocates only where it never had so many.
    pub fn resize(&mut self, len: usize) {
        if self.start + len > self.values.len() {
            // All zeros, so that what lies between rows and beyond them is at least a number.
            self.values = vec![R::zero(); len + panel::<R>()];
            self.start = self.values.as_ptr().align_offset(64).min(panel::<R>());
        }
        self.len = len;
    }
}

impl<R> Deref for Buffer<R> {
    type Target = [R];

    #[inline(always)]
    fn deref(&self) -> &[R] {
        &self.values[self.start..self.start + self.len]
    }
}

impl<R> DerefMut for Buffer<R> {
    #[inline(always)]
    fn deref_mut(&mut self) -> &mut [R] {
        &mut self.values[self.start..self.start + self.len]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buffers_begin_at_a_cache_line_and_keep_their_memory() {
        for len in [1, 15, 16, 1000] {
            let mut buffer = Buffer::<f32>::zeros(len);
            assert_eq!(buffer.len(), len);
            assert_eq!(buffer.as_ptr().align_offset(64), 0);
            let before = buffer.as_ptr();
            buffer.resize(len / 2);
            buffer.resize(len);
            assert_eq!(buffer.as_ptr(), before);
        }
    }
}
