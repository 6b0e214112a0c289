//! The sampler against a naive one, its distribution, and its behaviour on bad input.
#![allow(clippy::unwrap_used)]

use super::{draw, math, philox};
use crate::api::Sample;
use baton_proto::ids::TokenId;
use baton_proto::ir::Sampling;
use proptest::prelude::*;
use std::borrow::Cow;
use std::collections::BTreeSet;

const PROMPT_LEN: u32 = 3;

fn sample(sampling: &Sampling) -> Sample<'_> {
    Sample {
        sampling,
        choice: 0,
        prompt_len: PROMPT_LEN,
        suppressed: Cow::Borrowed(&[]),
        forced: None,
        logprobs: None,
        raw_top: 0,
        last: false,
    }
}

fn token(logits: &[f32], history: &[TokenId], sample: &Sample<'_>) -> TokenId {
    draw(&mut logits.to_vec(), history, history.len() as u32, sample).token
}

fn warm(temperature: f32) -> Sampling {
    Sampling { temperature, ..Sampling::greedy() }
}

/// Sampling as the textbook says it: whole lists, full sorts, no thresholds.
mod naive {
    use super::{Sample, TokenId, math, philox};

    pub(super) fn token(logits: &[f32], history: &[TokenId], sample: &Sample<'_>) -> TokenId {
        let s = sample.sampling;
        let mut ranked: Vec<(f32, TokenId)> = logits
            .iter()
            .enumerate()
            .map(|(id, x)| (changed(*x, id, history, sample), id as u32))
            .collect();
        ranked.sort_by(|a, b| b.0.total_cmp(&a.0).then(a.1.cmp(&b.1)));
        if s.temperature == 0.0 {
            return ranked[0].1;
        }
        let max = ranked[0].0;
        if s.top_k > 0 {
            ranked.truncate(s.top_k as usize);
        }
        let weight = |x: f32| math::exp((x - max) / s.temperature);
        ranked.retain(|(x, _)| weight(*x) >= s.min_p);
        let total: f64 = ranked.iter().map(|(x, _)| f64::from(weight(*x))).sum();
        let mut kept = Vec::new();
        let mut before = 0.0;
        for (x, id) in ranked {
            if kept.is_empty() || s.top_p >= 1.0 || before < f64::from(s.top_p) * total {
                kept.push((id, f64::from(weight(x))));
            }
            before += f64::from(weight(x));
        }
        kept.sort_by_key(|(id, _)| *id);
        let total: f64 = kept.iter().map(|(_, w)| w).sum();
        let target = philox::uniform(s.seed, sample.choice, history.len() as u32) * total;
        let mut running = 0.0;
        for (id, w) in &kept {
            running += w;
            if running > target {
                return *id;
            }
        }
        kept.last().unwrap().0
    }

    fn changed(x: f32, id: usize, history: &[TokenId], sample: &Sample<'_>) -> f32 {
        let s = sample.sampling;
        let id = id as TokenId;
        let mut x = x;
        for (_, bias) in s.logit_bias.iter().filter(|(token, _)| *token == id) {
            x += bias;
        }
        if history.contains(&id) {
            x = if x > 0.0 { x / s.repetition_penalty } else { x * s.repetition_penalty };
        }
        let answer = &history[sample.prompt_len as usize..];
        let count = answer.iter().filter(|token| **token == id).count();
        if count > 0 {
            x -= s.frequency_penalty * count as f32 + s.presence_penalty;
        }
        if sample.suppressed.contains(&id) { f32::NEG_INFINITY } else { x }
    }
}

fn sampling() -> impl Strategy<Value = Sampling> {
    let temperature = prop_oneof![Just(0.0_f32), Just(1.0), 0.05_f32..4.0];
    let top_p = prop_oneof![Just(1.0_f32), Just(0.0), 0.01_f32..1.0];
    let min_p = prop_oneof![Just(0.0_f32), 0.0_f32..0.6];
    let top_k = prop_oneof![Just(0_u32), 1_u32..80];
    let penalties = (prop_oneof![Just(1.0_f32), 0.5_f32..2.0], -2.0_f32..2.0, -2.0_f32..2.0);
    let bias = prop::collection::vec((0_u32..70, -8.0_f32..8.0), 0..4);
    (temperature, top_k, top_p, min_p, penalties, bias, any::<u64>()).prop_map(
        |(temperature, top_k, top_p, min_p, penalties, logit_bias, seed)| Sampling {
            temperature,
            top_k,
            top_p,
            min_p,
            repetition_penalty: penalties.0,
            presence_penalty: penalties.1,
            frequency_penalty: penalties.2,
            logit_bias,
            seed,
        },
    )
}

/// Logits with many equal ones among them.
fn logits() -> impl Strategy<Value = Vec<f32>> {
    let logit = prop_oneof![-12.0_f32..12.0, (-3_i32..3).prop_map(|x| x as f32)];
    prop::collection::vec(logit, 1..70)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 4000, ..ProptestConfig::default() })]

    #[test]
    fn agrees_with_the_naive_sampler(
        logits in logits(),
        history in prop::collection::vec(0_u32..75, 3..40),
        sampling in sampling(),
        suppressed in prop::collection::vec(1_u32..70, 0..4),
        choice in 0_u16..4,
    ) {
        let sample = Sample { suppressed: Cow::Borrowed(&suppressed), choice, ..sample(&sampling) };
        prop_assert_eq!(
            token(&logits, &history, &sample),
            naive::token(&logits, &history, &sample)
        );
    }

    #[test]
    fn survives_anything(
        bits in prop::collection::vec(prop_oneof![
            any::<u32>(),
            Just(f32::NAN.to_bits()),
            Just(f32::INFINITY.to_bits()),
            Just(f32::NEG_INFINITY.to_bits()),
            Just(f32::MAX.to_bits()),
        ], 1..40),
        parameters in prop::collection::vec(any::<u32>().prop_map(f32::from_bits), 7),
        top_k in any::<u32>(),
    ) {
        let logits: Vec<f32> = bits.into_iter().map(f32::from_bits).collect();
        let sampling = Sampling {
            temperature: parameters[0],
            top_k,
            top_p: parameters[1],
            min_p: parameters[2],
            repetition_penalty: parameters[3],
            presence_penalty: parameters[4],
            frequency_penalty: parameters[5],
            logit_bias: vec![(0, parameters[6]), (u32::MAX, 1.0)],
            seed: 1,
        };
        let sample = Sample { suppressed: Cow::Borrowed(&[0]), logprobs: Some(3), raw_top: 9, ..sample(&sampling) };
        let drawn = draw(&mut logits.clone(), &[0, 1, 2, 3, u32::MAX], 5, &sample);
        prop_assert!((drawn.token as usize) < logits.len());
        prop_assert!(drawn.token != 0 || logits.len() == 1, "a suppressed token was drawn");
        prop_assert!(!drawn.logprob.is_nan());
        prop_assert!(drawn.top.iter().chain(&drawn.raw_top).all(|(_, x)| !x.is_nan()));
    }

    #[test]
    fn neutral_values_change_nothing(logits in logits(), seed in any::<u64>()) {
        let history = [0, 1, 2, 0, 1, 1];
        let plain = Sampling { seed, ..warm(0.8) };
        let drawn = |sampling: &Sampling| {
            let sample = Sample { logprobs: Some(4), raw_top: 4, ..sample(sampling) };
            draw(&mut logits.clone(), &history, 6, &sample)
        };
        let reference = drawn(&plain);
        for neutral in [
            Sampling { top_k: logits.len() as u32, ..plain.clone() },
            Sampling { top_k: u32::MAX, ..plain.clone() },
            Sampling { top_p: 1.5, ..plain.clone() },
            Sampling { min_p: f32::MIN_POSITIVE, ..plain.clone() },
            Sampling { logit_bias: vec![(0, 0.0), (1, -0.0)], ..plain.clone() },
        ] {
            prop_assert_eq!(&drawn(&neutral), &reference, "{:?}", neutral);
        }
    }
}

#[test]
fn greedy_takes_the_lowest_id_among_equals() {
    assert_eq!(token(&[1.0, 3.0, 3.0, 2.0], &[0; 3], &sample(&Sampling::greedy())), 1);
    assert_eq!(token(&[f32::NAN, -1.0, f32::NAN], &[0; 3], &sample(&Sampling::greedy())), 1);
    assert_eq!(token(&[f32::NAN; 3], &[0; 3], &sample(&Sampling::greedy())), 0);
}

#[test]
fn narrowest_settings_are_greedy() {
    let logits: Vec<f32> = (0..50).map(|i| ((i * 17) % 50) as f32 * 1e-7).collect();
    let best = token(&logits, &[0; 3], &sample(&Sampling::greedy()));
    for seed in 0..200 {
        for narrow in [
            Sampling { top_k: 1, ..warm(1.0) },
            Sampling { top_p: 0.0, ..warm(1.0) },
            Sampling { top_k: 1, top_p: 0.5, min_p: 0.1, ..warm(3.0) },
        ] {
            let sampling = Sampling { seed, ..narrow };
            assert_eq!(token(&logits, &[0; 3], &sample(&sampling)), best);
        }
    }
}

#[test]
fn min_tokens_suppresses_end_tokens_against_every_other_wish() {
    let logits = [0.0, 50.0, 1.0];
    for temperature in [0.0, 1.0] {
        let sampling = Sampling { logit_bias: vec![(1, 100.0)], ..warm(temperature) };
        let free = sample(&sampling);
        assert_eq!(token(&logits, &[0; 3], &free), 1);
        let held = Sample { suppressed: Cow::Borrowed(&[1]), ..sample(&sampling) };
        for position in 3..300 {
            let drawn = draw(&mut logits.to_vec(), &[0; 3], position, &held);
            assert_ne!(drawn.token, 1);
        }
    }
    // The report is the model's own, suppressed or not.
    let sampling = Sampling::greedy();
    let held = Sample { suppressed: Cow::Borrowed(&[1]), logprobs: Some(1), ..sample(&sampling) };
    let drawn = draw(&mut logits.to_vec(), &[0; 3], 3, &held);
    assert_eq!((drawn.token, drawn.top[0].0), (2, 1));
}

#[test]
fn a_forced_token_comes_against_every_other_wish_and_its_report_is_the_models_own() {
    let logits = [0.0, 50.0, 1.0, -3.0];
    let sampling = Sampling { logit_bias: vec![(1, 100.0), (3, -100.0)], ..warm(0.7) };
    let free = Sample { logprobs: Some(2), ..sample(&sampling) };
    let suppressed = Cow::Borrowed(&[3_u32][..]);
    let forced = Sample { forced: Some(3), suppressed, ..free.clone() };
    let [free, forced] =
        [free, forced].map(|sample| draw(&mut logits.to_vec(), &[0; 3], 3, &sample));
    assert_eq!((free.token, forced.token), (1, 3));
    assert!((forced.logprob - -53.0).abs() < 1e-4, "{}", forced.logprob);
    assert_eq!(forced.top, free.top);
}

#[test]
fn penalties_tell_the_prompt_from_the_answer() {
    let logits = [2.0, 1.9, -5.0, -5.0];
    // Token 0 stands in the prompt: presence ignores it, repetition does not.
    let presence = Sampling { presence_penalty: 1.0, ..Sampling::greedy() };
    assert_eq!(token(&logits, &[0, 3, 3], &sample(&presence)), 0);
    assert_eq!(token(&logits, &[3, 3, 3, 0], &sample(&presence)), 1);
    let repetition = Sampling { repetition_penalty: 1.2, ..Sampling::greedy() };
    assert_eq!(token(&logits, &[0, 3, 3], &sample(&repetition)), 1);
    // Frequency counts: once is not enough here, three times are.
    let frequency = Sampling { frequency_penalty: 0.04, ..Sampling::greedy() };
    assert_eq!(token(&logits, &[3, 3, 3, 0], &sample(&frequency)), 0);
    assert_eq!(token(&logits, &[3, 3, 3, 0, 0, 0], &sample(&frequency)), 1);
}

#[test]
fn logprobs_are_the_models_own() {
    let logits = [1.0_f32, 2.0, 3.0, 0.0];
    let total: f64 = logits.iter().map(|x| f64::from(*x).exp()).sum();
    let sampling = Sampling { logit_bias: vec![(0, 90.0)], top_k: 1, ..warm(2.0) };
    let sample = Sample { logprobs: Some(2), raw_top: 3, ..sample(&sampling) };
    let drawn = draw(&mut logits.to_vec(), &[0; 3], 3, &sample);
    assert_eq!(drawn.token, 0);
    assert!((f64::from(drawn.logprob) - (1.0 - total.ln())).abs() < 1e-6);
    assert_eq!(drawn.top.iter().map(|(id, _)| *id).collect::<Vec<_>>(), [2, 1]);
    assert!((f64::from(drawn.top[0].1) - (3.0 - total.ln())).abs() < 1e-6);
    assert_eq!(drawn.raw_top, [(2, 3.0), (1, 2.0), (0, 1.0)]);
}

/// Pearson's statistic of 200,000 draws against the distribution the parameters describe.
#[test]
fn draws_follow_the_distribution() {
    const DRAWS: u32 = 200_000;
    let logits: Vec<f32> = (0..24).map(|i| ((i * 7) % 24) as f32 * 0.2).collect();
    let sampling = Sampling { top_k: 20, top_p: 0.95, min_p: 0.03, seed: 11, ..warm(0.9) };
    let sample = sample(&sampling);
    let mut counts = [0_u32; 24];
    for position in 0..DRAWS {
        counts[draw(&mut logits.clone(), &[0; 3], position, &sample).token as usize] += 1;
    }
    let mut ranked: Vec<(f64, usize)> =
        logits.iter().enumerate().map(|(id, x)| ((f64::from(*x) / 0.9).exp(), id)).collect();
    ranked.sort_by(|a, b| b.0.total_cmp(&a.0));
    ranked.truncate(20);
    let max = ranked[0].0;
    ranked.retain(|(w, _)| *w >= 0.03 * max);
    let total: f64 = ranked.iter().map(|(w, _)| w).sum();
    let mut mass = 0.0;
    ranked.retain(|(w, _)| {
        mass += w;
        mass - w < 0.95 * total
    });
    let total: f64 = ranked.iter().map(|(w, _)| w).sum();
    let support: BTreeSet<usize> = ranked.iter().map(|(_, id)| *id).collect();
    let drawn: BTreeSet<usize> = (0..24).filter(|id| counts[*id] > 0).collect();
    assert_eq!(drawn, support);
    let chi: f64 = ranked
        .iter()
        .map(|(w, id)| {
            let expected = f64::from(DRAWS) * w / total;
            (f64::from(counts[*id]) - expected).powi(2) / expected
        })
        .sum();
    // The mean of the statistic is its degrees of freedom, its variance twice that: 5 sigma.
    let freedom = ranked.len() as f64 - 1.0;
    assert!(freedom >= 8.0, "the test wants a wide distribution");
    assert!(chi < freedom + 5.0 * (2.0 * freedom).sqrt(), "chi-square {chi} at {freedom}");
}

/// Golden tokens: a change of the generator, its key or the order of the steps shows up here.
#[test]
fn golden_stream() {
    let logits: Vec<f32> = (0..1000).map(|i| ((i * 37) % 1000) as f32 * 0.01).collect();
    let sampling = Sampling { top_p: 0.9, seed: 0xB47_0123_4567, ..warm(1.0) };
    let stream: Vec<TokenId> = (0..8)
        .map(|position| {
            let sample = Sample { choice: 1, ..sample(&sampling) };
            draw(&mut logits.clone(), &[0; 3], position, &sample).token
        })
        .collect();
    assert_eq!(stream, [486, 538, 215, 243, 782, 269, 486, 998]);
}
