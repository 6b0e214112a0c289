//! A checkpoint's tensors, ready for the operators: matrices stay in the mapped file, vectors are
//! widened.

use crate::checkpoint::{Checkpoint, Tensor, Tensors};
use crate::models::{Linear, Model};
use baton_kernels::{Matrix, Projection};
use std::convert::Infallible;

/// A weight.
pub(super) enum Weight {
    /// A matrix in the file.
    Matrix(Tensor),
    /// A norm or a bias, widened.
    Vector(Vec<f32>),
}

/// All weights of a model.
pub(super) struct Weights {
    tensors: Tensors,
    pub(super) model: Model<Weight>,
}

impl Weights {
    pub(super) fn new(checkpoint: &Checkpoint) -> Self {
        let (tensors, model) = checkpoint.weights();
        let ready = |tensor: Tensor| {
            Ok::<_, Infallible>(if tensor.vector {
                Weight::Vector(tensors.matrix(&tensor).to_f32())
            } else {
                Weight::Matrix(tensor)
            })
        };
        let Ok(model) = model.try_map(&mut { ready });
        Self { tensors, model }
    }

    /// A matrix.
    pub(super) fn matrix<'a>(&'a self, weight: &'a Weight) -> Matrix<'a> {
        match weight {
            Weight::Matrix(tensor) => self.tensors.matrix(tensor),
            Weight::Vector(_) => unreachable!("a vector in the place of a matrix"),
        }
    }

    /// A projection into `out`.
    pub(super) fn project<'a>(
        &'a self,
        linear: &'a Linear<Weight>,
        out: &'a mut [f32],
        accumulate: bool,
    ) -> Projection<'a> {
        Projection {
            weight: self.matrix(&linear.weight),
            bias: linear.bias.as_ref().map(Weight::vector),
            out,
            accumulate,
        }
    }
}

impl Weight {
    /// A norm or a bias.
    pub(super) fn vector(&self) -> &[f32] {
        match self {
            Weight::Vector(vector) => vector,
            Weight::Matrix(_) => unreachable!("a matrix in the place of a vector"),
        }
    }
}
