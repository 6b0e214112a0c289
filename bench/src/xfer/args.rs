//! The command line of `baton xfer-bench`, and what follows from it.

use baton_node::config::ByteSize;
use baton_node::exit::{Exit, Failure};
use baton_transfer::TransportKind;
use baton_transfer::verbs::VerbsOptions;
use clap::{Args, ValueEnum};
use std::net::SocketAddr;
use std::str::FromStr;
use std::time::Duration;

/// The smallest and the largest block; a payload's length has 32 bits.
pub(super) const BLOCK_BYTES: std::ops::RangeInclusive<u64> = 64..=1 << 30;
/// Blocks in one arena: what a peer may be told of in one message.
pub(super) const BLOCKS_MAX: u64 = 1 << 20;

const EXAMPLES: &str = "\
Examples:
  baton xfer-bench
      tcp and shm, 64 KiB and 1 MiB blocks, against memcpy and raw sockets
  baton xfer-bench --transport tcp --block-size 4K..4M --streams 4 --json
  baton xfer-bench --transport shm --threads 2 --placement random --check
  baton xfer-bench --load 2 --block-size 64K
      how much worse the tail becomes when all cores are busy
  baton xfer-bench --serve 10.9.0.2:7700        on one host, and on the other:
  baton xfer-bench --target 10.9.0.2:7700 --transport tcp";

/// `baton xfer-bench`
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub struct XferArgs {
    /// How blocks travel; several with commas
    #[arg(long, value_enum, value_delimiter = ',', default_value = "all")]
    transport: Vec<TransportArg>,
    /// What is done with each block [default: what each transport does without being asked]
    #[arg(long, value_enum, value_delimiter = ',')]
    op: Vec<OpArg>,
    /// Sizes of a block, with commas or as a range of powers of two: 64K,1M or 4K..64M
    #[arg(long, value_name = "SIZES", default_value = "64K,1M")]
    block_size: Sizes,
    /// Blocks in one pull [default: as many as --batch-bytes holds]
    #[arg(long, value_name = "N", conflicts_with = "batch_bytes", value_parser = clap::value_parser!(u32).range(1..=1_048_576))]
    batch: Option<u32>,
    /// Bytes in one pull; one block at least
    #[arg(long, value_name = "SIZE", default_value = "16M")]
    batch_bytes: Size,
    /// Pulls under way at once
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=256))]
    pub(super) threads: u16,
    /// Queue pairs of a verbs connection [default: the transport's own]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=64))]
    pub(super) queue_pairs: Option<u16>,
    /// RDMA device, such as mlx5_0 [default: the first with a usable port]
    #[arg(long, value_name = "NAME")]
    pub(super) device: Option<String>,
    /// Connections of tcp, for the raw sockets too [default: the transport's own]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=64))]
    pub(super) streams: Option<u16>,
    /// Where the blocks of a pull lie, and where they go
    #[arg(long, value_enum, default_value_t = Placement::Sequential)]
    pub(super) placement: Placement,
    /// Bytes on each side through which pulls wander; more than the caches hold
    #[arg(long, value_name = "SIZE", default_value = "128M")]
    working_set: Size,
    /// Compare every byte with what was published, before and after what is timed
    #[arg(long)]
    pub(super) check: bool,
    /// What to measure beside it, as a limit; several with commas
    #[arg(long, value_enum, value_delimiter = ',', default_value = "all")]
    reference: Vec<Reference>,
    /// Measure everything once more while so many threads keep cores busy
    #[arg(long, value_name = "N", default_value_t = 0, value_parser = clap::value_parser!(u16).range(0..=256))]
    pub(super) load: u16,
    /// Rounds in which everything has its turn, one after the other
    #[arg(long, value_name = "N", default_value_t = 5, value_parser = clap::value_parser!(u16).range(1..=1000))]
    pub(super) rounds: u16,
    /// How long one turn takes
    #[arg(long, value_name = "S", default_value_t = 0.5)]
    seconds: f64,
    /// Pulls of one turn, in place of --seconds; of each of the --threads
    #[arg(long, value_name = "N", conflicts_with = "seconds", value_parser = clap::value_parser!(u32).range(1..))]
    iterations: Option<u32>,
    /// One JSON object on the last line of stdout
    #[arg(long)]
    pub(super) json: bool,
    /// Hold the blocks for another host's --target, until interrupted. Whoever reaches the address
    /// may pull, and make this process take --memory: the blocks are made up, and there is no secret
    #[arg(long, value_name = "ADDR", conflicts_with = "target")]
    pub(super) serve: Option<SocketAddr>,
    /// Memory that --serve gives at most
    #[arg(long, value_name = "SIZE", default_value = "1G", requires = "serve")]
    memory: Size,
    /// Pull from a process that runs with --serve [default: one is started on this host]
    #[arg(long, value_name = "ADDR")]
    pub(super) target: Option<SocketAddr>,
    /// Serve one caller, and die with the process of this id, which must be the parent
    #[arg(long, value_name = "PID", hide = true, requires = "serve")]
    pub(super) parent: Option<u32>,
}

/// How blocks travel.
#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
enum TransportArg {
    /// Sockets
    Tcp,
    /// Shared memory
    Shm,
    /// RDMA; both sides need a device
    Verbs,
    /// tcp and shm
    All,
}

/// What is done with a block.
#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
pub(super) enum OpArg {
    /// Read it from the target (tcp, verbs)
    Read,
    /// Have the target write it (verbs)
    Write,
    /// Copy it out of the target's arena (shm)
    Copy,
    /// Pin it in the target's arena, to be used in place (shm)
    Map,
}

impl OpArg {
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::Read => "read",
            Self::Write => "write",
            Self::Copy => "copy",
            Self::Map => "map",
        }
    }
}

/// Where blocks lie.
#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
pub(super) enum Placement {
    /// Side by side
    Sequential,
    /// Anywhere
    Random,
}

impl Placement {
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::Sequential => "sequential",
            Self::Random => "random",
        }
    }
}

/// A limit to compare with.
#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
enum Reference {
    /// One thread's memcpy between arenas, block by block
    Memcpy,
    /// As many plain sockets, without frames
    Tcp,
    /// RDMA over a device that does nothing: what each block costs
    Posting,
    /// Those that fit the transports, and posting
    All,
    /// None
    None,
}

/// How long one turn takes.
#[derive(Clone, Copy, PartialEq, Debug)]
pub(super) enum Turn {
    /// So long.
    Time(Duration),
    /// So many pulls of each lane.
    Pulls(u32),
}

/// A number of bytes, also in the short form of other benchmarks: `64K`, `1M`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Size(u64);

impl FromStr for Size {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let text = text.trim();
        let long = match text.chars().last() {
            Some(unit @ ('K' | 'M' | 'G')) => format!("{}{unit}iB", &text[..text.len() - 1]),
            Some('0'..='9') => format!("{text}B"),
            _ => text.to_owned(),
        };
        long.parse::<ByteSize>()
            .map(|size| Self(size.0))
            .map_err(|_| format!("expected a size such as 64K, 1M or \"16 MiB\", found `{text}`"))
    }
}

/// Sizes of a block, ascending or as given.
#[derive(Clone, PartialEq, Eq, Debug)]
struct Sizes(Vec<u64>);

impl FromStr for Sizes {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let mut sizes = Vec::new();
        for part in text.split(',') {
            if let Some((first, last)) = part.split_once("..") {
                let (Size(first), Size(last)) = (first.parse()?, last.parse()?);
                if first == 0 || first > last {
                    return Err(format!("expected an ascending range, found `{part}`"));
                }
                let powers = std::iter::successors(Some(first), |size| size.checked_mul(2));
                sizes.extend(powers.take_while(|size| *size <= last));
            } else {
                sizes.push(part.parse::<Size>()?.0);
            }
        }
        if let Some(size) = sizes.iter().find(|size| !BLOCK_BYTES.contains(size)) {
            let (least, most) = (BLOCK_BYTES.start(), BLOCK_BYTES.end());
            return Err(format!("expected {least} to {most} bytes, found {size}"));
        }
        Ok(Self(sizes))
    }
}

/// Blocks of one size, and how they are pulled.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Shape {
    /// Bytes of a block.
    pub(super) block_bytes: u64,
    /// Blocks of a pull.
    pub(super) batch: u32,
    /// Blocks on each side: a multiple of `batch` for each lane.
    pub(super) blocks: u32,
}

/// What has its turn in each round.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Contestant {
    /// Blocks over a transport.
    Pull(TransportKind, OpArg),
    /// One thread's memcpy between arenas.
    Memcpy,
    /// Plain sockets.
    RawTcp,
    /// RDMA over a device that does nothing.
    Posting,
}

impl Contestant {
    /// What it is to be compared with.
    pub(super) fn limit(self) -> Option<Self> {
        match self {
            Self::Pull(TransportKind::Tcp, _) => Some(Self::RawTcp),
            Self::Pull(TransportKind::Shm, OpArg::Copy) => Some(Self::Memcpy),
            _ => None,
        }
    }

    /// Whether bytes go from one place to another.
    pub(super) fn moves(self) -> bool {
        !matches!(self, Self::Posting | Self::Pull(_, OpArg::Map))
    }

    /// Whether each of its batches is timed.
    pub(super) fn is_timed(self) -> bool {
        matches!(self, Self::Pull(..) | Self::Memcpy)
    }

    /// Whether it needs a device.
    pub(super) fn is_over_verbs(self) -> bool {
        matches!(self, Self::Pull(TransportKind::Verbs, _))
    }

    pub(super) fn name(self) -> String {
        match self {
            Self::Pull(kind, op) => format!("{kind} {}", op.as_str()),
            Self::Memcpy => "memcpy".to_owned(),
            Self::RawTcp => "raw tcp".to_owned(),
            Self::Posting => "posting".to_owned(),
        }
    }
}

impl XferArgs {
    /// The shapes that were asked for, in order.
    pub(super) fn shapes(&self) -> Result<Vec<Shape>, Failure> {
        self.block_size.0.iter().map(|&size| self.shape(size)).collect()
    }

    fn shape(&self, block_bytes: u64) -> Result<Shape, Failure> {
        let fitting = (self.batch_bytes.0 / block_bytes).max(1);
        let batch = self.batch.map_or(fitting, u64::from);
        let pulls = u64::from(self.threads) * batch;
        let wanted = (self.working_set.0 / block_bytes).max(pulls);
        let blocks = wanted.div_ceil(pulls) * pulls;
        if blocks > BLOCKS_MAX {
            let message = format!(
                "--working-set: {blocks} blocks of {block_bytes} bytes are more than {BLOCKS_MAX}"
            );
            let hint = "lower --working-set, --batch or --threads, or raise --block-size";
            return Err(Failure::new(Exit::Usage, message).with_hint(hint));
        }
        Ok(Shape { block_bytes, batch: batch as u32, blocks: blocks as u32 })
    }

    /// How long one turn takes.
    pub(super) fn turn(&self) -> Result<Turn, Failure> {
        if let Some(pulls) = self.iterations {
            return Ok(Turn::Pulls(pulls));
        }
        if !(0.001..=60.0).contains(&self.seconds) {
            let message = format!("--seconds: expected 0.001 to 60, found {}", self.seconds);
            return Err(Failure::new(Exit::Usage, message));
        }
        Ok(Turn::Time(Duration::from_secs_f64(self.seconds)))
    }

    /// Who has a turn: each transport after its limit.
    pub(super) fn contestants(&self) -> Result<Vec<Contestant>, Failure> {
        let mut pulls = Vec::new();
        for (arg, kind, ops) in [
            (TransportArg::Tcp, TransportKind::Tcp, [OpArg::Read].as_slice()),
            (TransportArg::Shm, TransportKind::Shm, &[OpArg::Copy, OpArg::Map]),
            (TransportArg::Verbs, TransportKind::Verbs, &[OpArg::Read, OpArg::Write]),
        ] {
            let named = self.transport.contains(&arg);
            // A device is not to be expected.
            let meant = arg != TransportArg::Verbs && self.transport.contains(&TransportArg::All);
            if !named && !meant {
                continue;
            }
            let wanted = |op: &&OpArg| self.op.is_empty() || self.op.contains(op);
            let chosen: Vec<_> = ops.iter().filter(wanted).collect();
            if chosen.is_empty() && named {
                let offers: Vec<_> = ops.iter().map(|op| op.as_str()).collect();
                let message = format!("--op: {kind} only has {}", offers.join(", "));
                return Err(Failure::new(Exit::Usage, message));
            }
            pulls.extend(chosen.into_iter().map(|&op| Contestant::Pull(kind, op)));
        }
        let mut all: Vec<Contestant> = Vec::new();
        for pull in pulls {
            let limit = pull.limit().filter(|limit| self.wants(*limit) && !all.contains(limit));
            all.extend(limit);
            all.push(pull);
        }
        // A limit that was named is measured without its transport, too.
        for (references, limit) in [
            ([Reference::Memcpy].as_slice(), Contestant::Memcpy),
            (&[Reference::Tcp], Contestant::RawTcp),
            (&[Reference::Posting, Reference::All], Contestant::Posting),
        ] {
            let named = references.iter().any(|reference| self.reference.contains(reference));
            if named && !all.contains(&limit) {
                all.push(limit);
            }
        }
        if all.is_empty() {
            let message = "--op: no transport that was asked for has it";
            return Err(Failure::new(Exit::Usage, message));
        }
        Ok(all)
    }

    fn wants(&self, limit: Contestant) -> bool {
        let all = self.reference.contains(&Reference::All);
        match limit {
            Contestant::Memcpy => all || self.reference.contains(&Reference::Memcpy),
            Contestant::RawTcp => all || self.reference.contains(&Reference::Tcp),
            Contestant::Pull(..) | Contestant::Posting => false,
        }
    }

    /// How RDMA is used, by both sides.
    pub(super) fn verbs_options(&self) -> VerbsOptions {
        let mut options = VerbsOptions::default();
        options.device.device.clone_from(&self.device);
        options.queue_pairs = self.queue_pairs.map_or(options.queue_pairs, usize::from);
        options
    }

    /// Bytes that `--serve` gives at most.
    pub(super) fn memory(&self) -> u64 {
        self.memory.0
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use clap::Parser;

    #[derive(Debug, Parser)]
    struct Line {
        #[command(flatten)]
        xfer: XferArgs,
    }

    fn parse(line: &str) -> Result<XferArgs, String> {
        let words = std::iter::once("xfer-bench").chain(line.split_ascii_whitespace());
        Line::try_parse_from(words).map(|line| line.xfer).map_err(|error| error.to_string())
    }

    fn refused(line: &str) -> String {
        let args = parse(line).unwrap();
        let outcome = args.shapes().and(args.turn()).and(args.contestants());
        format!("{}", outcome.unwrap_err())
    }

    #[test]
    fn sizes_are_lists_and_ranges_of_powers() {
        let sizes = |text: &str| text.parse::<Sizes>().map(|sizes| sizes.0);
        assert_eq!(sizes("64K,1M"), Ok(vec![65536, 1 << 20]));
        assert_eq!(sizes("4K..32K"), Ok(vec![4096, 8192, 16384, 32768]));
        assert_eq!(sizes("4096,16MiB"), Ok(vec![4096, 16 << 20]));
        assert_eq!(sizes("3K..13K,1G"), Ok(vec![3072, 6144, 12288, 1 << 30]));
        for wrong in ["", "K", "4K..", "8K..4K", "0..4K", "63", "2G", "64 apples", "1M,,2M"] {
            assert!(sizes(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_mistake_is_told_with_its_flag() {
        for (line, flag) in [
            ("--block-size 12Q", "--block-size"),
            ("--batch 0", "--batch"),
            ("--batch 4 --batch-bytes 1M", "--batch-bytes"),
            ("--threads 0", "--threads"),
            ("--transport pigeon", "--transport"),
            ("--serve nowhere", "--serve"),
            ("--serve 127.0.0.1:1 --target 127.0.0.1:2", "--target"),
            ("--seconds 1 --iterations 3", "--iterations"),
        ] {
            let said = parse(line).unwrap_err();
            assert!(said.contains(flag), "{line}: {said}");
        }
        for (line, flag) in [
            ("--seconds 0", "--seconds"),
            ("--seconds NaN", "--seconds"),
            ("--transport tcp --op copy", "--op"),
            ("--block-size 64 --working-set 1G", "--working-set"),
        ] {
            let said = refused(line);
            assert!(said.starts_with(flag), "{line}: {said}");
        }
    }

    #[test]
    fn every_lane_has_whole_pulls_and_the_working_set_is_filled() {
        let args = parse("--block-size 64K,1M,64M --threads 3 --working-set 100M").unwrap();
        let shapes = args.shapes().unwrap();
        assert_eq!(shapes.iter().map(|shape| shape.batch).collect::<Vec<_>>(), [256, 16, 1]);
        for Shape { block_bytes, batch, blocks } in shapes {
            assert_eq!(blocks % (3 * batch), 0);
            assert!(u64::from(blocks) * block_bytes >= 100_000_000);
        }
    }

    #[test]
    fn each_transport_follows_its_limit() {
        let named = |line: &str| {
            let all = parse(line).unwrap().contestants().unwrap();
            all.into_iter().map(Contestant::name).collect::<Vec<_>>().join(", ")
        };
        assert_eq!(named(""), "raw tcp, tcp read, memcpy, shm copy, shm map, posting");
        assert_eq!(named("--transport shm"), "memcpy, shm copy, shm map, posting");
        assert_eq!(named("--transport verbs --reference none"), "verbs read, verbs write");
        assert_eq!(named("--op read --reference none"), "tcp read");
        assert_eq!(named("--transport shm --reference tcp"), "shm copy, shm map, raw tcp");
    }
}
