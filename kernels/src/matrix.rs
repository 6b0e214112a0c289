//! Weights as they lie in a checkpoint file: row-major, unaligned, in the file's own number type.

use crate::simd::{Bf16, Element, F16};
use std::fmt;

// Checkpoints are little-endian and are read in place.
#[cfg(target_endian = "big")]
compile_error!("baton-kernels reads little-endian weights in place");

/// The number types that kernels read.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum DType {
    /// bfloat16.
    Bf16,
    /// IEEE half.
    F16,
    /// IEEE single.
    F32,
}

impl DType {
    /// Bytes of one number.
    pub fn bytes(self) -> usize {
        match self {
            DType::Bf16 | DType::F16 => 2,
            DType::F32 => 4,
        }
    }
}

impl fmt::Display for DType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            DType::Bf16 => "BF16",
            DType::F16 => "F16",
            DType::F32 => "F32",
        })
    }
}

/// A matrix of `rows` x `cols` numbers in borrowed bytes; no alignment is asked for.
#[derive(Clone, Copy)]
pub struct Matrix<'a> {
    bytes: &'a [u8],
    dtype: DType,
    rows: usize,
    cols: usize,
}

/// The bytes given do not hold the matrix promised.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct SizeMismatch {
    /// Bytes that the shape needs (saturated).
    pub expected: usize,
    /// Bytes given.
    pub found: usize,
}

impl<'a> Matrix<'a> {
    /// A view on bytes of exactly the right length.
    pub fn new(
        bytes: &'a [u8],
        dtype: DType,
        rows: usize,
        cols: usize,
    ) -> Result<Self, SizeMismatch> {
        let expected = rows.saturating_mul(cols).saturating_mul(dtype.bytes());
        if bytes.len() != expected {
            return Err(SizeMismatch { expected, found: bytes.len() });
        }
        Ok(Self { bytes, dtype, rows, cols })
    }

    /// Rows: outputs of a projection, tokens of an embedding.
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// Columns: inputs.
    pub fn cols(&self) -> usize {
        self.cols
    }

    /// The number type.
    pub fn dtype(&self) -> DType {
        self.dtype
    }

    /// Widens row `row` into `out` (`cols` floats).
    pub fn widen_row(&self, row: usize, out: &mut [f32]) {
        assert!(row < self.rows, "row {row} of {}", self.rows);
        assert_eq!(out.len(), self.cols);
        let size = self.dtype.bytes();
        let bytes = &self.bytes[row * self.cols * size..(row + 1) * self.cols * size];
        match self.dtype {
            DType::Bf16 => {
                let (pairs, _) = bytes.as_chunks();
                for (out, &b) in out.iter_mut().zip(pairs) {
                    *out = Bf16(u16::from_le_bytes(b)).widen();
                }
            }
            DType::F16 => {
                let (pairs, _) = bytes.as_chunks();
                for (out, &b) in out.iter_mut().zip(pairs) {
                    *out = F16(u16::from_le_bytes(b)).widen();
                }
            }
            DType::F32 => {
                let (quads, _) = bytes.as_chunks();
                for (out, &b) in out.iter_mut().zip(quads) {
                    *out = f32::from_le_bytes(b);
                }
            }
        }
    }

    /// All numbers, widened, in row order. For small tensors: norms, biases.
    pub fn to_f32(&self) -> Vec<f32> {
        let mut out = vec![0.0; self.rows * self.cols];
        if self.cols > 0 {
            for (row, out) in out.chunks_exact_mut(self.cols).enumerate() {
                self.widen_row(row, out);
            }
        }
        out
    }

    pub(crate) fn bytes(&self) -> &'a [u8] {
        self.bytes
    }
}

impl fmt::Debug for Matrix<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Matrix({} {}x{})", self.dtype, self.rows, self.cols)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn numbers_widen_without_loss() {
        let values = [0.0, -0.0, 1.0, -2.5, 65504.0, 6.103_515_6e-5, 5.960_464_5e-8, f32::INFINITY];
        let bytes: Vec<u8> =
            values.iter().flat_map(|&v| half::f16::from_f32(v).to_le_bytes()).collect();
        let wide = Matrix::new(&bytes, DType::F16, 2, 4).unwrap().to_f32();
        assert_eq!(wide, values);
        let bytes: Vec<u8> =
            values.iter().flat_map(|&v| half::bf16::from_f32(v).to_le_bytes()).collect();
        let wide = Matrix::new(&bytes, DType::Bf16, 1, 8).unwrap().to_f32();
        for (wide, value) in wide.iter().zip(values) {
            assert_eq!(*wide, half::bf16::from_f32(value).to_f32());
        }
    }

    #[test]
    fn a_wrong_length_is_refused() {
        let error = Matrix::new(&[0; 7], DType::Bf16, 2, 2).unwrap_err();
        assert_eq!(error, SizeMismatch { expected: 8, found: 7 });
        assert!(Matrix::new(&[], DType::F32, usize::MAX, 2).is_err());
    }
}
