//! What the cluster says has moved: its transfer counters.

use crate::client::{Client, ClientError};

/// Blocks and bytes that decode workers have pulled.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(super) struct Moved {
    pub(super) blocks: u64,
    pub(super) bytes: u64,
}

impl Moved {
    /// Asks the router, whose metrics include every worker's.
    pub(super) async fn read(client: &Client) -> Result<Self, ClientError> {
        Ok(Self::parse(&client.get_text("/metrics").await?))
    }

    fn parse(text: &str) -> Self {
        Self {
            blocks: sum(text, "baton_transfer_blocks_total"),
            bytes: sum(text, "baton_transfer_bytes_total"),
        }
    }

    /// What has moved since an earlier reading.
    pub(super) fn since(self, earlier: Self) -> Self {
        Self {
            blocks: self.blocks.saturating_sub(earlier.blocks),
            bytes: self.bytes.saturating_sub(earlier.bytes),
        }
    }
}

/// The sum of a counter's samples at the pulling side; the serving side counts the same blocks.
fn sum(text: &str, name: &str) -> u64 {
    let samples = text.lines().filter_map(|line| {
        let labels_and_value = line.strip_prefix(name)?.strip_prefix('{')?;
        let (labels, value) = labels_and_value.rsplit_once("} ")?;
        let pulled = labels.split(',').any(|label| label == r#"op="pull""#);
        let value = value.split_ascii_whitespace().next()?.parse::<f64>().ok()?;
        pulled.then_some(value as u64)
    });
    samples.sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = r#"# TYPE baton_transfer_blocks counter
baton_transfer_blocks_total{transport="shm",op="pull",worker="decode-0"} 30
baton_transfer_blocks_total{transport="tcp",op="pull",worker="decode-1"} 2
baton_transfer_blocks_total{transport="shm",op="serve",worker="prefill-0"} 30
baton_transfer_blocks_total_of_another_kind{op="pull"} 1000
baton_transfer_bytes_total{transport="shm",op="pull",worker="decode-0"} 4096.0 1700000000
"#;

    #[test]
    fn pulls_of_all_workers_and_transports_are_added_and_nothing_else() {
        assert_eq!(Moved::parse(TEXT), Moved { blocks: 32, bytes: 4096 });
        assert_eq!(Moved::parse(""), Moved::default());
    }

    #[test]
    fn a_counter_that_began_anew_does_not_go_below_zero() {
        let now = Moved { blocks: 1, bytes: 5000 };
        let earlier = Moved { blocks: 9, bytes: 4000 };
        assert_eq!(now.since(earlier), Moved { blocks: 0, bytes: 1000 });
    }
}
