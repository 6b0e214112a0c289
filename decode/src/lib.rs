//! The decode daemon: blocks to tokens.
