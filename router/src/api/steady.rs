//! What a stream allocates once it runs: nothing for a token.

use super::writer::AnswerWriter;
use crate::turn::{Delta, Summary};
use baton_proto::ids::WorkerId;
use std::time::Duration;

/// After so many pieces every buffer that is used again is as large as it gets.
const WARM_UP: u64 = 1000;
/// Pieces that are counted.
const COUNTED: u64 = 1000;
/// What keeps a whole answer grows by doubling.
const GROWTH: u64 = 4;

/// Fails if pieces of a stream cost allocations.
pub(super) fn assert_none_per_piece(writer: &mut dyn AnswerWriter) {
    let mut delta = Delta::default();
    delta.events.say(" \u{2603} \"quoted\"\n");
    let mut out = Vec::new();
    let mut write = |pieces| {
        let mut bytes = 0;
        for _ in 0..pieces {
            out.clear();
            writer.piece(&delta, &summary, false, &mut out);
            bytes += out.len();
        }
        bytes
    };
    write(WARM_UP);
    let mut bytes = 0;
    let counted = allocation_counter::measure(|| bytes = write(COUNTED));
    assert!(bytes > 50 * COUNTED as usize, "only {bytes} bytes were written");
    assert!(counted.count_total <= GROWTH, "{counted:?} for {COUNTED} pieces");
}

fn summary() -> Summary {
    Summary {
        prompt_tokens: 1,
        cached_tokens: 0,
        completion_tokens: 1,
        reasoning_tokens: 0,
        report: None,
        decode_worker: WorkerId(1),
        ttft: None,
        total: Duration::ZERO,
        why: None,
        bought: None,
    }
}
