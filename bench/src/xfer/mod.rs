//! `baton xfer-bench`: how fast blocks move between two processes, beside what the machine can do.
//!
//! A target process holds blocks whose bytes follow from their number; this one pulls them by the
//! transports that the daemons use. In each round everything has its turn, one after the other, so
//! that whatever else the machine does meets all of them.

mod args;
mod control;
mod fabric;
mod lane;
mod load;
mod raw;
mod report;
mod rig;
mod spawn;
mod store;
mod target;

pub use args::XferArgs;

use crate::signals::interrupted;
use args::{Contestant, Shape, Turn};
use baton_node::exit::{Exit, Failure};
use control::Channel;
use load::Load;
use report::{Report, Row};
use rig::Rig;
use spawn::Target;
use std::net::SocketAddr;
use tokio::net::TcpStream;

/// Measures and prints, or holds blocks for another host.
pub fn main(args: &XferArgs) -> Result<(), Failure> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .map_err(|error| Failure::new(Exit::Unavailable, format!("no runtime: {error}")))?;
    // On this thread, for the kernel kills the target when the thread that started it ends.
    runtime.block_on(async {
        let interrupted = interrupted()?;
        if let Some(listen) = args.serve {
            return tokio::select! {
                result = target::serve(listen, args) => result,
                // That is how it is meant to end.
                _ = interrupted => Ok(()),
            };
        }
        // Mistakes are told before anything is started.
        let plan = Plan::new(args)?;
        let own = if args.target.is_none() {
            Some(Target::spawn(plan.memory(), args).await?)
        } else {
            None
        };
        let address = args.target.or(own.as_ref().map(|target| target.address));
        let report = tokio::select! {
            report = measure(args, &plan, address.expect("one of the two is there")) => report,
            failure = interrupted => Err(failure),
        };
        if let Some(target) = own {
            target.stop().await;
        }
        let report = report?;
        if args.json {
            println!("{}", report.to_json());
        } else {
            print!("{}", report.to_table());
        }
        Ok(())
    })
}

/// Processor time that this process has used so far, in all its threads.
fn cpu_seconds() -> f64 {
    let used = rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime);
    used.tv_sec as f64 + used.tv_nsec as f64 / 1e9
}

/// What is to be measured.
struct Plan {
    shapes: Vec<Shape>,
    contestants: Vec<Contestant>,
    turn: Turn,
}

impl Plan {
    fn new(args: &XferArgs) -> Result<Self, Failure> {
        Ok(Self { shapes: args.shapes()?, contestants: args.contestants()?, turn: args.turn()? })
    }

    /// What the target has to hold at once.
    fn memory(&self) -> u64 {
        self.shapes.iter().map(|s| s.block_bytes * u64::from(s.blocks)).max().unwrap_or(0)
    }
}

async fn measure(args: &XferArgs, plan: &Plan, address: SocketAddr) -> Result<Report, Failure> {
    let Plan { shapes, contestants, turn } = plan;
    let mut channel = connect(address).await?;
    let mut report = Report::new(args, shapes.len() * contestants.len());
    for &shape in shapes {
        eprintln!("{} blocks of {} bytes: publishing", shape.blocks, shape.block_bytes);
        let mut rig = Rig::new(args, shape, *turn, &mut channel).await?;
        let mut rows = rows(args, contestants, shape);
        for row in &rows {
            // Not counted: connections are made, pages are touched.
            rig.warm_up(row.contestant).await?;
        }
        if args.check {
            report.checked_blocks += rig.check(contestants).await?;
        }
        for round in 1..=args.rounds {
            eprintln!("{} bytes: round {round} of {}", shape.block_bytes, args.rounds);
            for row in &mut rows {
                let load = row.load.then(|| Load::start(args.load)).transpose()?;
                let sample = rig.turn(row.contestant, &mut channel).await?;
                drop(load);
                row.add(&sample);
            }
        }
        if args.check {
            report.checked_blocks += rig.check(contestants).await?;
        }
        rig.end().await;
        report.rows.extend(rows);
    }
    Ok(report)
}

/// One row for each contestant; with a load, one more for each whose batches are timed: memcpy among
/// them, which shows what the scheduler alone does to a thread that does not wait for anybody.
fn rows(args: &XferArgs, contestants: &[Contestant], shape: Shape) -> Vec<Row> {
    let quiet = contestants.iter().map(|&contestant| Row::new(contestant, shape, false));
    let busy = contestants
        .iter()
        .filter(|contestant| args.load > 0 && contestant.is_timed())
        .map(|&contestant| Row::new(contestant, shape, true));
    quiet.chain(busy).collect()
}

async fn connect(address: SocketAddr) -> Result<Channel, Failure> {
    let stream = TcpStream::connect(address).await.map_err(|error| {
        Failure::new(Exit::Unavailable, format!("--target {address}: {error}"))
            .with_hint("start `baton xfer-bench --serve ADDR` there")
    })?;
    Ok(Channel::new(stream))
}
