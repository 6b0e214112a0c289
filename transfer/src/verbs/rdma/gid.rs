//! Which of a port's addresses to use.
//!
//! An Ethernet port has one GID per address of its interface and protocol version, in an order
//! that depends on when the addresses were given. So the choice is made by what an entry is, not
//! where it stands.

use std::fmt;
use std::net::Ipv6Addr;

/// A global identifier: 16 bytes that are, on Ethernet, an IPv6 or mapped IPv4 address.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Gid(pub [u8; 16]);

impl Gid {
    /// Whether it is `::ffff:a.b.c.d`.
    fn is_ipv4(self) -> bool {
        self.address().to_ipv4_mapped().is_some()
    }

    fn is_link_local(self) -> bool {
        self.address().is_unicast_link_local()
    }

    fn address(self) -> Ipv6Addr {
        Ipv6Addr::from(self.0)
    }
}

impl fmt::Display for Gid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.address().fmt(f)
    }
}

impl fmt::Debug for Gid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Gid({self})")
    }
}

/// What kind of address an entry is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum GidKind {
    InfiniBand,
    RoceV1,
    RoceV2,
    Unknown,
}

impl GidKind {
    fn name(self) -> &'static str {
        match self {
            Self::InfiniBand => "InfiniBand",
            Self::RoceV1 => "RoCE v1",
            Self::RoceV2 => "RoCE v2",
            Self::Unknown => "of an unknown kind",
        }
    }
}

/// What a port speaks.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum LinkLayer {
    /// InfiniBand: ports have a local identifier (LID).
    InfiniBand,
    /// Ethernet: RoCE.
    Ethernet,
}

/// One line of a port's table.
#[derive(Clone, Debug)]
pub(super) struct GidEntry {
    pub(super) index: u32,
    pub(super) kind: GidKind,
    pub(super) gid: Gid,
    /// Whether its network interface is up; `None` where it has none.
    pub(super) interface_up: Option<bool>,
}

/// Why no GID of a port can be used.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum GidProblem {
    /// None is a RoCE v2 address of an interface that is up.
    #[error(
        "none of its {entries} GIDs is RoCE v2 on an interface that is up: give the interface an IP address, and compare `rdma link show` and /sys/class/infiniband/*/ports/*/gid_attrs/types"
    )]
    NoneUsable {
        /// Entries looked at.
        entries: usize,
    },
    /// The index that was configured has no entry.
    #[error("GID index {index} is empty; in use are {}", list(.found))]
    Empty {
        /// The index.
        index: u8,
        /// Those that have an entry.
        found: Vec<u32>,
    },
    /// The index that was configured has an entry of another kind.
    #[error(
        "GID index {index} is {kind}, needed is {needed}: leave the index out to have one chosen"
    )]
    Kind {
        /// The index.
        index: u8,
        /// What it is.
        kind: &'static str,
        /// What it has to be.
        needed: &'static str,
    },
    /// The interface of the entry that was configured is down.
    #[error("GID index {index}: its network interface is down")]
    InterfaceDown {
        /// The index.
        index: u8,
    },
}

fn list(indices: &[u32]) -> String {
    match indices {
        [] => "none".to_owned(),
        some => some.iter().map(u32::to_string).collect::<Vec<_>>().join(", "),
    }
}

/// The index and GID to use.
///
/// On Ethernet: RoCE v2 with the interface up; a mapped IPv4 address before a routable IPv6
/// address before a link-local one; then the lowest index. On InfiniBand: index 0.
pub(super) fn choose(
    entries: &[GidEntry],
    link: LinkLayer,
    wanted: Option<u8>,
) -> Result<(u8, Gid), GidProblem> {
    let needed = match link {
        LinkLayer::InfiniBand => GidKind::InfiniBand,
        LinkLayer::Ethernet => GidKind::RoceV2,
    };
    if let Some(index) = wanted {
        let found = || entries.iter().map(|entry| entry.index).collect();
        let entry = entries
            .iter()
            .find(|entry| entry.index == u32::from(index))
            .ok_or_else(|| GidProblem::Empty { index, found: found() })?;
        if entry.kind != needed {
            let (kind, needed) = (entry.kind.name(), needed.name());
            return Err(GidProblem::Kind { index, kind, needed });
        }
        if entry.interface_up == Some(false) {
            return Err(GidProblem::InterfaceDown { index });
        }
        return Ok((index, entry.gid));
    }
    let usable = |entry: &&GidEntry| entry.kind == needed && entry.interface_up != Some(false);
    let rank = |gid: Gid| match (link, gid.is_ipv4(), gid.is_link_local()) {
        (LinkLayer::InfiniBand, ..) | (_, true, _) => 0,
        (_, false, false) => 1,
        (_, false, true) => 2,
    };
    entries
        .iter()
        .filter(usable)
        .filter_map(|entry| Some((u8::try_from(entry.index).ok()?, entry.gid)))
        .min_by_key(|&(index, gid)| (rank(gid), index))
        .ok_or(GidProblem::NoneUsable { entries: entries.len() })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn entry(index: u32, kind: GidKind, address: &str, interface_up: Option<bool>) -> GidEntry {
        let gid = Gid(address.parse::<Ipv6Addr>().unwrap().octets());
        GidEntry { index, kind, gid, interface_up }
    }

    /// What mlx5 shows for an interface with an IPv4 and an IPv6 address.
    fn table() -> Vec<GidEntry> {
        let up = Some(true);
        vec![
            entry(0, GidKind::RoceV1, "fe80::a", up),
            entry(1, GidKind::RoceV2, "fe80::a", up),
            entry(2, GidKind::RoceV1, "2001:db8::1", up),
            entry(3, GidKind::RoceV2, "2001:db8::1", up),
            entry(4, GidKind::RoceV1, "::ffff:10.0.0.1", up),
            entry(5, GidKind::RoceV2, "::ffff:10.0.0.1", up),
            entry(7, GidKind::RoceV2, "::ffff:10.0.0.2", up),
        ]
    }

    fn chosen(entries: &[GidEntry]) -> Option<u8> {
        choose(entries, LinkLayer::Ethernet, None).ok().map(|(index, _)| index)
    }

    #[test]
    fn a_mapped_ipv4_address_of_roce_v2_is_preferred() {
        let (index, gid) = choose(&table(), LinkLayer::Ethernet, None).unwrap();
        assert_eq!((index, gid.to_string().as_str()), (5, "::ffff:10.0.0.1"));
        let mut reversed = table();
        reversed.reverse();
        assert_eq!(chosen(&reversed), Some(5));
    }

    #[test]
    fn without_ipv4_a_routable_address_goes_before_a_link_local_one() {
        assert_eq!(chosen(&table()[..4]), Some(3));
        assert_eq!(chosen(&table()[..2]), Some(1));
    }

    #[test]
    fn interfaces_that_are_down_are_passed_over() {
        let mut entries = table();
        entries[5].interface_up = Some(false);
        assert_eq!(chosen(&entries), Some(7));
        for entry in &mut entries {
            entry.interface_up = Some(false);
        }
        let none = choose(&entries, LinkLayer::Ethernet, None);
        assert_eq!(none, Err(GidProblem::NoneUsable { entries: 7 }));
    }

    #[test]
    fn roce_v1_alone_is_not_enough() {
        assert_eq!(chosen(&table()[..1]), None);
        assert_eq!(chosen(&[]), None);
    }

    #[test]
    fn a_given_index_is_taken_or_refused_with_the_reason() {
        let pick = |index| choose(&table(), LinkLayer::Ethernet, Some(index));
        assert_eq!(pick(3).unwrap().0, 3);
        let wrong = GidProblem::Kind { index: 4, kind: "RoCE v1", needed: "RoCE v2" };
        assert_eq!(pick(4), Err(wrong));
        let found = vec![0, 1, 2, 3, 4, 5, 7];
        let empty = pick(6).unwrap_err();
        assert_eq!(empty, GidProblem::Empty { index: 6, found });
        assert!(empty.to_string().ends_with("in use are 0, 1, 2, 3, 4, 5, 7"), "{empty}");
        let mut down = table();
        down[5].interface_up = Some(false);
        let refused = choose(&down, LinkLayer::Ethernet, Some(5));
        assert_eq!(refused, Err(GidProblem::InterfaceDown { index: 5 }));
    }

    #[test]
    fn infiniband_takes_the_first_entry() {
        let entries = [
            entry(0, GidKind::InfiniBand, "fe80::1", None),
            entry(1, GidKind::InfiniBand, "fec0::1", None),
        ];
        assert_eq!(choose(&entries, LinkLayer::InfiniBand, None).unwrap().0, 0);
        assert_eq!(choose(&entries, LinkLayer::InfiniBand, Some(1)).unwrap().0, 1);
        let ethernet = choose(&table(), LinkLayer::InfiniBand, None);
        assert_eq!(ethernet, Err(GidProblem::NoneUsable { entries: 7 }));
    }
}
