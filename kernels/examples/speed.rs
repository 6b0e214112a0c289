//! How fast projections and attention are here: GFLOP/s with many rows, GB/s of weights with one.
//!
//! `cargo run --release -p baton-kernels --example speed [threads]`

use baton_kernels::{Attention, Cpu, DType, KvLayout, Matrix, Projection, Segment};
use std::time::Instant;

fn main() {
    let threads = std::env::args().nth(1).and_then(|a| a.parse().ok()).unwrap_or(2);
    let cpu = Cpu::new(threads).expect("threads start");
    println!("{:?}, {threads} threads", cpu.isa());
    for (rows, k, n) in
        [(1, 2048, 2048), (1, 2048, 65_536), (4, 2048, 8192), (64, 2048, 2048), (512, 2048, 2048)]
    {
        let (x, w) = (vec![0.5f32; rows * k], vec![0x3f_u8; n * k * 2]);
        let mut out = vec![0.0; rows * n];
        let weight = Matrix::new(&w, DType::Bf16, n, k).expect("the size fits");
        let seconds = best(|| {
            cpu.linear(
                &x,
                rows,
                &mut [Projection { weight, bias: None, out: &mut out, accumulate: false }],
            );
        });
        let gflops = 2.0 * (rows * k * n) as f64 / seconds / 1e9;
        let gb = (n * k * 2) as f64 / seconds / 1e9;
        println!("linear {rows:4} x {k} x {n:6}: {gflops:7.1} GFLOP/s, {gb:6.1} GB/s of weights");
    }
    for (start, count) in [(0, 512), (1536, 512), (2047, 1)] {
        let layout = KvLayout { kv_heads: 8, layers: 1, block_tokens: 64, head_dim: 128 };
        let (heads, blocks) = (32, vec![vec![0.1f32; layout.block_floats()]; 2048 / 64]);
        let blocks: Vec<&[f32]> = blocks.iter().map(Vec::as_slice).collect();
        let q = vec![0.1f32; count * heads * 128];
        let mut out = vec![0.0; q.len()];
        let seconds = best(|| {
            let segments = [Segment { blocks: &blocks, start, count, row: 0 }];
            cpu.attention(Attention {
                layout,
                layer: 0,
                heads,
                scale: 0.1,
                q: &q,
                segments: &segments,
                out: &mut out,
            });
        });
        let pairs: usize = (start..start + count).map(|p| p + 1).sum();
        let gflops = 4.0 * (pairs * heads * 128) as f64 / seconds / 1e9;
        println!("attention {start} + {count}: {gflops:.1} GFLOP/s, {:.3} ms", seconds * 1e3);
    }
}

/// The best of several runs, seconds.
fn best(mut run: impl FnMut()) -> f64 {
    let time = |run: &mut dyn FnMut()| {
        #[expect(clippy::disallowed_methods, reason = "this program measures time")]
        let start = Instant::now();
        run();
        start.elapsed().as_secs_f64()
    };
    (0..12).map(|_| time(&mut run)).fold(f64::MAX, f64::min)
}
