//! The operators against double precision, and their promise that nothing but the inputs decides
//! a bit: not the instruction set, not the threads, not the neighbours in a batch.

#![allow(clippy::unwrap_used)]

use baton_kernels::{Attention, Cpu, DType, Isa, KvLayout, Matrix, Projection, Rope, Segment};

/// A small generator of floats in (-1, 1).
struct Rng(u64);

impl Rng {
    fn next(&mut self) -> f32 {
        self.0 =
            self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        ((self.0 >> 40) as f32 / (1u64 << 23) as f32) - 1.0
    }

    fn vec(&mut self, len: usize) -> Vec<f32> {
        (0..len).map(|_| self.next()).collect()
    }
}

fn encode(values: &[f32], dtype: DType) -> Vec<u8> {
    match dtype {
        DType::F32 => values.iter().flat_map(|v| v.to_le_bytes()).collect(),
        DType::F16 => values.iter().flat_map(|&v| half::f16::from_f32(v).to_le_bytes()).collect(),
        DType::Bf16 => values.iter().flat_map(|&v| half::bf16::from_f32(v).to_le_bytes()).collect(),
    }
}

fn linear(cpu: &Cpu, x: &[f32], rows: usize, weight: Matrix<'_>, bias: Option<&[f32]>) -> Vec<f32> {
    let mut out = vec![f32::NAN; rows * weight.rows()];
    let projection = Projection { weight, bias, out: &mut out, accumulate: false };
    cpu.linear(x, rows, &mut [projection]);
    out
}

/// Every instruction set of this CPU, with one and with three threads.
fn backends() -> Vec<Cpu> {
    Isa::available()
        .into_iter()
        .flat_map(|isa| [1, 3].map(|threads| Cpu::with_isa(isa, threads).unwrap()))
        .collect()
}

fn bits(x: &[f32]) -> Vec<u32> {
    x.iter().map(|x| x.to_bits()).collect()
}

#[test]
fn linear_is_right_and_the_same_everywhere() {
    let mut rng = Rng(1);
    let cpus = backends();
    for (rows, k, n) in
        [(1, 64, 7), (3, 128, 50), (5, 31, 97), (9, 100, 13), (23, 16, 49), (2, 5, 1)]
    {
        for dtype in [DType::Bf16, DType::F16, DType::F32] {
            let x = rng.vec(rows * k);
            let bias = rng.vec(n);
            // One byte in front: weights in a file are not aligned.
            let mut bytes = vec![0];
            bytes.extend(encode(&rng.vec(n * k), dtype));
            let weight = Matrix::new(&bytes[1..], dtype, n, k).unwrap();
            let wide = weight.to_f32();
            let first = linear(&cpus[0], &x, rows, weight, Some(&bias));
            for m in 0..rows {
                for j in 0..n {
                    let exact: f64 = (0..k)
                        .map(|i| f64::from(x[m * k + i]) * f64::from(wide[j * k + i]))
                        .sum::<f64>()
                        + f64::from(bias[j]);
                    let got = f64::from(first[m * n + j]);
                    assert!((got - exact).abs() < 1e-5, "{rows}x{k}x{n} {dtype}: {got} {exact}");
                }
            }
            for cpu in &cpus {
                let all = linear(cpu, &x, rows, weight, Some(&bias));
                assert_eq!(bits(&all), bits(&first), "{:?} {rows}x{k}x{n} {dtype}", cpu.isa());
                for m in 0..rows {
                    let one = linear(cpu, &x[m * k..(m + 1) * k], 1, weight, Some(&bias));
                    assert_eq!(bits(&one), bits(&first[m * n..(m + 1) * n]), "row {m} alone");
                }
            }
        }
    }
}

#[test]
fn projections_share_an_input_and_add_to_a_residual() {
    let mut rng = Rng(2);
    let cpu = Cpu::new(2).unwrap();
    let (rows, k) = (11, 96);
    let x = rng.vec(rows * k);
    let (a, b) = (encode(&rng.vec(70 * k), DType::Bf16), encode(&rng.vec(20 * k), DType::Bf16));
    let a = Matrix::new(&a, DType::Bf16, 70, k).unwrap();
    let b = Matrix::new(&b, DType::Bf16, 20, k).unwrap();
    let residual = rng.vec(rows * 20);
    let (mut out_a, mut out_b) = (vec![0.0; rows * 70], residual.clone());
    cpu.linear(
        &x,
        rows,
        &mut [
            Projection { weight: a, bias: None, out: &mut out_a, accumulate: false },
            Projection { weight: b, bias: None, out: &mut out_b, accumulate: true },
        ],
    );
    assert_eq!(bits(&out_a), bits(&linear(&cpu, &x, rows, a, None)));
    let sum: Vec<f32> =
        linear(&cpu, &x, rows, b, None).iter().zip(&residual).map(|(y, r)| r + y).collect();
    assert_eq!(bits(&out_b), bits(&sum));
}

#[test]
fn row_operators_are_right_and_the_same_everywhere() {
    let mut rng = Rng(3);
    let (rows, cols, dim) = (37, 72, 12);
    let (x, up, weight) = (rng.vec(rows * cols), rng.vec(rows * cols), rng.vec(cols));
    let (cos, sin) = (rng.vec(rows * dim / 2), rng.vec(rows * dim / 2));
    let norm = rng.vec(dim);
    let run = |cpu: &Cpu| {
        let mut normed = vec![0.0; x.len()];
        cpu.rms_norm(&x, &weight, 1e-5, &mut normed);
        let mut gate = x.iter().map(|x| x * 30.0).collect::<Vec<_>>();
        cpu.silu_mul(&mut gate, &up);
        let mut rotated = x.clone();
        let rope = Rope { cos: &cos, sin: &sin, head_dim: dim, norm: Some((&norm, 1e-6)) };
        cpu.rope(&mut rotated, rows, &rope);
        (normed, gate, rotated)
    };
    let cpus = backends();
    let (normed, gate, rotated) = run(&cpus[0]);
    let rms = |x: &[f32], eps: f64| {
        (x.iter().map(|x| f64::from(*x).powi(2)).sum::<f64>() / x.len() as f64 + eps).sqrt()
    };
    for r in 0..rows {
        let row = &x[r * cols..(r + 1) * cols];
        for c in 0..cols {
            let i = r * cols + c;
            let want = f64::from(row[c]) / rms(row, 1e-5) * f64::from(weight[c]);
            assert!((f64::from(normed[i]) - want).abs() < 1e-5);
            let g = f64::from(x[i] * 30.0);
            let want = g / (1.0 + (-g).exp()) * f64::from(up[i]);
            assert!((f64::from(gate[i]) - want).abs() < 1e-5);
            let (head, d) = (&row[c / dim * dim..(c / dim + 1) * dim], c % dim);
            let unit = |d: usize| f64::from(head[d]) / rms(head, 1e-6) * f64::from(norm[d]);
            let half = dim / 2;
            let (co, si) = (cos[r * half + d % half], sin[r * half + d % half]);
            let pair = if d < half { -unit(d + half) } else { unit(d - half) };
            let want = unit(d) * f64::from(co) + pair * f64::from(si);
            assert!((f64::from(rotated[i]) - want).abs() < 1e-5);
        }
    }
    for cpu in &cpus[1..] {
        let (n, g, r) = run(cpu);
        assert_eq!(bits(&n), bits(&normed), "{:?} norm", cpu.isa());
        assert_eq!(bits(&g), bits(&gate), "{:?} silu", cpu.isa());
        assert_eq!(bits(&r), bits(&rotated), "{:?} rope", cpu.isa());
    }
}

/// Keys and values of one sequence, and how they are paged.
struct Cache {
    layout: KvLayout,
    /// `[token][kv_head][layer][k|v][head_dim]`
    flat: Vec<f32>,
    tokens: usize,
}

impl Cache {
    fn blocks(&self) -> Vec<Vec<f32>> {
        let l = self.layout;
        // What no token has written is poison.
        let mut blocks =
            vec![vec![f32::NAN; l.block_floats()]; self.tokens.div_ceil(l.block_tokens)];
        for t in 0..self.tokens {
            for head in 0..l.kv_heads {
                for layer in 0..l.layers {
                    for value in [false, true] {
                        let at = l.tile(head, layer, value) + t % l.block_tokens * l.head_dim;
                        blocks[t / l.block_tokens][at..at + l.head_dim]
                            .copy_from_slice(self.at(t, head, layer, value));
                    }
                }
            }
        }
        blocks
    }

    fn at(&self, t: usize, head: usize, layer: usize, value: bool) -> &[f32] {
        let l = self.layout;
        let i = ((t * l.kv_heads + head) * l.layers + layer) * 2 + usize::from(value);
        &self.flat[i * l.head_dim..(i + 1) * l.head_dim]
    }

    /// The exact attention of one query head at `position`.
    fn exact(&self, q: &[f32], position: usize, head: usize, layer: usize, scale: f64) -> Vec<f64> {
        let score = |t| {
            let key = self.at(t, head, layer, false);
            q.iter().zip(key).map(|(a, b)| f64::from(*a) * f64::from(*b)).sum::<f64>() * scale
        };
        let scores: Vec<f64> = (0..=position).map(score).collect();
        let max = scores.iter().copied().fold(f64::MIN, f64::max);
        let sum: f64 = scores.iter().map(|s| (s - max).exp()).sum();
        (0..q.len())
            .map(|d| {
                let mixed = |(t, s): (usize, &f64)| {
                    (s - max).exp() * f64::from(self.at(t, head, layer, true)[d])
                };
                scores.iter().enumerate().map(mixed).sum::<f64>() / sum
            })
            .collect()
    }
}

const HEADS: usize = 6;
const LAYER: usize = 1;
const SCALE: f32 = 1.7;

fn attend(cpu: &Cpu, layout: KvLayout, q: &[f32], segments: &[Segment<'_>]) -> Vec<f32> {
    let mut out = vec![f32::NAN; q.len()];
    let out_ref = &mut out;
    cpu.attention(Attention {
        layout,
        layer: LAYER,
        heads: HEADS,
        scale: SCALE,
        q,
        segments,
        out: out_ref,
    });
    out
}

#[test]
fn attention_is_right_and_the_same_for_every_cut() {
    let mut rng = Rng(4);
    let cpus = backends();
    for (head_dim, tokens) in [(16, 5), (20, 530), (64, 257)] {
        let layout = |block_tokens| KvLayout { kv_heads: 2, layers: 3, block_tokens, head_dim };
        let flat = rng.vec(tokens * 2 * 3 * 2 * head_dim);
        let q = rng.vec(tokens * HEADS * head_dim);
        let width = HEADS * head_dim;
        let mut first: Option<Vec<f32>> = None;
        for block_tokens in [16, 64, 256] {
            let cache = Cache { layout: layout(block_tokens), flat: flat.clone(), tokens };
            let blocks = cache.blocks();
            let blocks: Vec<&[f32]> = blocks.iter().map(Vec::as_slice).collect();
            for cpu in &cpus {
                // Without vector instructions a fused multiply-add is slow: short ones will do.
                if cpu.isa().name() == "portable" && tokens > 300 {
                    continue;
                }
                let whole = Segment { blocks: &blocks, start: 0, count: tokens, row: 0 };
                let out = attend(cpu, cache.layout, &q, &[whole]);
                let first = first.get_or_insert_with(|| out.clone());
                assert_eq!(bits(&out), bits(first), "{:?}, blocks of {block_tokens}", cpu.isa());
                // The second half alone, as two segments, then single positions.
                let cut = tokens / 2;
                let row = |from: usize, to: usize| &q[from * width..to * width];
                let parts = [
                    Segment { blocks: &blocks, start: cut, count: 1, row: 0 },
                    Segment { blocks: &blocks, start: cut + 1, count: tokens - cut - 1, row: 1 },
                ];
                let out = attend(cpu, cache.layout, row(cut, tokens), &parts);
                assert_eq!(bits(&out), bits(&first[cut * width..]));
                for t in [0, tokens / 3, tokens - 1] {
                    let one = [Segment { blocks: &blocks, start: t, count: 1, row: 0 }];
                    let out = attend(cpu, cache.layout, row(t, t + 1), &one);
                    assert_eq!(bits(&out), bits(&first[t * width..(t + 1) * width]));
                }
            }
            let first = first.as_ref().unwrap();
            for t in [0, 1, 4, tokens / 2, tokens - 1] {
                for head in 0..HEADS {
                    let at = t * width + head * head_dim;
                    let exact =
                        cache.exact(&q[at..at + head_dim], t, head / 3, LAYER, f64::from(SCALE));
                    for d in 0..head_dim {
                        assert!((f64::from(first[at + d]) - exact[d]).abs() < 2e-5);
                    }
                }
            }
        }
    }
}

#[test]
#[should_panic(expected = "blocks are missing")]
fn attention_refuses_a_table_that_is_too_short() {
    let layout = KvLayout { kv_heads: 2, layers: 3, block_tokens: 16, head_dim: 16 };
    let block = vec![0.0; layout.block_floats()];
    let segment = Segment { blocks: &[&block], start: 16, count: 1, row: 0 };
    attend(&Cpu::new(1).unwrap(), layout, &[0.0; HEADS * 16], &[segment]);
}
