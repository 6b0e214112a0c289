//! Fuzzes the decoder of bodies of chat.
#![no_main]

#[path = "../decoders.rs"]
mod decoders;

libfuzzer_sys::fuzz_target!(|body: &[u8]| decoders::check(baton_router::Decoder::Chat, body));
