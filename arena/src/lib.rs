//! Memory that others may see: arenas of equal slots in a memfd, and their records.
//!
//! An [`Arena`] is one shared mapping: a header, one 64-byte record per slot, then the slots. Who
//! may touch a slot is checked at run time by [`ReadGuard`] and [`WriteGuard`]; who *should* is
//! decided elsewhere. [`PeerArena`] is another process's arena, mapped read-only; nothing in it is
//! trusted, and no reference into it is ever handed out. Who wants to use a slot of it in place says so
//! on a [`PeerBoard`], which the owner sees as a [`Board`].
//!
//! ```
//! use baton_arena::{Arena, ArenaOptions, PeerArena};
//!
//! let arena = Arena::create(ArenaOptions { slots: 4, slot_bytes: 256, name: "doc" })?;
//! arena.write(2).f32s_mut()[0] = 1.5;
//!
//! let peer = PeerArena::open(arena.fd(), arena.shape())?;
//! let mut seen = [0; 4];
//! peer.copy_out(2, 0, &mut seen)?;
//! assert_eq!(f32::from_le_bytes(seen), 1.5);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod board;
mod copy;
mod error;
mod foreign;
mod guard;
mod layout;
mod mapping;
mod memfd;
mod memory;
mod own;
mod peer;
mod protocol;

pub use board::{Board, PeerBoard};
pub use copy::crc32c;
pub use error::{ArenaError, PeerArenaError};
pub use guard::{ReadGuard, WriteGuard, WritePart};
pub use layout::{HEADER_BYTES, Layout, RECORD_BYTES, Shape};
pub use own::{Arena, ArenaOptions};
pub use peer::PeerArena;
