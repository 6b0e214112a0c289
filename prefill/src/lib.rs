//! The prefill daemon: prompt to sealed blocks.
