//! The identity of a model's weights.
//!
//! BLAKE3 of: `"baton weights v1\n"`, the configuration's canonical text, and for each tensor in
//! the order of names one line `name dtype rows cols digest`, where digest is BLAKE3 of its bytes
//! in hexadecimal.

use super::{ModelConfig, Tensor, Tensors};
use crate::models::Model;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};

/// Bytes between two reports of progress.
const STRIDE: usize = 4 << 20;

/// How far loading is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Progress {
    /// Bytes of weights read.
    pub done: u64,
    /// Bytes of weights in all.
    pub total: u64,
}

pub(super) fn digest(
    config: &ModelConfig,
    tensors: &Tensors,
    model: &Model<Tensor>,
    threads: usize,
    progress: &(dyn Fn(Progress) + Sync),
) -> [u8; 32] {
    let mut list: Vec<&Tensor> = Vec::new();
    model.for_each(&mut |tensor| list.push(tensor));
    list.sort_unstable_by(|a, b| a.name.cmp(&b.name));
    let total = list.iter().map(|t| tensors.bytes(t).len() as u64).sum();
    let (next, done) = (AtomicUsize::new(0), AtomicU64::new(0));
    let digests = Mutex::new(vec![blake3::Hash::from_bytes([0; 32]); list.len()]);
    let work = || {
        while let Some((i, tensor)) =
            Some(next.fetch_add(1, Ordering::Relaxed)).and_then(|i| Some((i, list.get(i)?)))
        {
            let mut hasher = blake3::Hasher::new();
            for bytes in tensors.bytes(tensor).chunks(STRIDE) {
                hasher.update(bytes);
                let read = bytes.len() as u64;
                progress(Progress { done: done.fetch_add(read, Ordering::Relaxed) + read, total });
            }
            digests.lock().unwrap_or_else(PoisonError::into_inner)[i] = hasher.finalize();
        }
    };
    std::thread::scope(|scope| {
        for _ in 1..threads {
            scope.spawn(work);
        }
        work();
    });
    let mut hasher = blake3::Hasher::new();
    hasher.update(b"baton weights v1\n");
    hasher.update(config.canonical().as_bytes());
    let digests = digests.into_inner().unwrap_or_else(PoisonError::into_inner);
    for (tensor, digest) in list.iter().zip(digests) {
        let Tensor { name, dtype, rows, cols, .. } = tensor;
        hasher.update(format!("{name} {dtype} {rows} {cols} {}\n", digest.to_hex()).as_bytes());
    }
    *hasher.finalize().as_bytes()
}
