//! What prefill and decode share: the engine loop, block events, fetch, seal and publish.
