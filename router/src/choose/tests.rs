//! What the choice promises, on tables of workers.

use super::*;

const BLOCK: usize = 64;

fn ask(prompt_blocks: usize) -> Ask {
    Ask {
        prompt_tokens: prompt_blocks * BLOCK + 1,
        answer_tokens: 64,
        block_tokens: BLOCK,
        spread: 7,
    }
}

fn worker(id: u32, held: usize) -> Candidate {
    let load = Load { available_blocks: 1000, ..Load::default() };
    Candidate { worker: WorkerId(id), held, load }
}

fn busy(id: u32, held: usize, load: Load) -> Candidate {
    Candidate { worker: WorkerId(id), held, load: Load { available_blocks: 1000, ..load } }
}

#[test]
fn the_worker_that_holds_most_is_chosen_among_equally_loaded_ones() {
    let decode = [worker(1, 0), worker(2, 9), worker(3, 4)];
    let plan = choose(&ask(10), &decode, &[], Threshold::Never).expect("a plan");
    assert_eq!(plan, Plan { decode: WorkerId(2), prefill: vec![] });
}

#[test]
fn a_long_queue_outweighs_a_few_held_blocks() {
    let decode = [worker(1, 0), busy(2, 10, Load { queued: 5, ..Load::default() })];
    assert_eq!(
        choose(&ask(10), &decode, &[], Threshold::Never).expect("a plan").decode,
        WorkerId(1)
    );
}

#[test]
fn prompt_tokens_accepted_earlier_count_like_missing_ones() {
    let decode =
        [busy(1, 2, Load { pending_tokens: 4 * BLOCK as u64, ..Load::default() }), worker(2, 0)];
    assert_eq!(
        choose(&ask(10), &decode, &[], Threshold::Never).expect("a plan").decode,
        WorkerId(2)
    );
}

#[test]
fn a_worker_without_memory_for_the_whole_answer_is_avoided() {
    let mut full = worker(1, 3);
    full.load.available_blocks = 2;
    assert_eq!(
        choose(&ask(10), &[full, worker(2, 0)], &[], Threshold::Never).expect("a plan").decode,
        WorkerId(2)
    );
}

#[test]
fn held_blocks_need_no_further_memory() {
    // Needs 12 blocks at completion, holds 10 of them: 2 are enough.
    let mut full = worker(1, 10);
    full.load.available_blocks = 2;
    assert_eq!(
        choose(&ask(10), &[full, worker(2, 0)], &[], Threshold::Never).expect("a plan").decode,
        WorkerId(1)
    );
}

#[test]
fn prefill_is_asked_from_the_threshold_on() {
    let decode = [worker(1, 6)];
    let prefill = [worker(9, 0)];
    let remote = |threshold| {
        !choose(&ask(10), &decode, &prefill, threshold).expect("a plan").prefill.is_empty()
    };
    assert!(remote(Threshold::At(0)));
    assert!(remote(Threshold::At(4)), "4 are missing");
    assert!(!remote(Threshold::At(5)));
    assert!(!remote(Threshold::Never));
}

#[test]
fn nothing_is_asked_for_when_nothing_is_missing() {
    let plan =
        choose(&ask(10), &[worker(1, 10)], &[worker(9, 0)], Threshold::At(0)).expect("a plan");
    assert_eq!(plan.prefill, vec![]);
}

#[test]
fn the_block_of_the_last_token_is_left_to_decode() {
    let exact = |tokens| Ask { prompt_tokens: tokens, ..ask(0) }.whole_blocks();
    assert_eq!([0, 1, BLOCK, BLOCK + 1, 2 * BLOCK, 2 * BLOCK + 1].map(exact), [0, 0, 0, 1, 1, 2]);
}

#[test]
fn prefill_candidates_come_best_first_and_are_few() {
    let prefill = [
        busy(1, 0, Load { queued: 1, ..Load::default() }),
        worker(2, 0),
        worker(3, 5),
        worker(4, 2),
        busy(5, 10, Load { queued: 20, ..Load::default() }),
    ];
    let plan = choose(&ask(10), &[worker(8, 0)], &prefill, Threshold::At(4)).expect("a plan");
    assert_eq!(plan.prefill, vec![WorkerId(3), WorkerId(4), WorkerId(2)]);
}

#[test]
fn equals_are_chosen_about_equally_often() {
    let decode = [worker(1, 0), worker(2, 0), worker(3, 0)];
    let mut hits = [0; 3];
    for spread in 0..3000 {
        let plan =
            choose(&Ask { spread, ..ask(10) }, &decode, &[], Threshold::Never).expect("a plan");
        hits[plan.decode.0 as usize - 1] += 1;
    }
    assert!(hits.iter().all(|&count| (850..1150).contains(&count)), "{hits:?}");
}

#[test]
fn without_a_decode_worker_there_is_no_plan() {
    assert_eq!(choose(&ask(10), &[], &[worker(9, 0)], Threshold::At(4)), None);
}
