//! `cargo xtask`: the project's own commands.

#[cfg(feature = "gen")]
mod gen_proto;

fn main() {
    #[cfg(feature = "gen")]
    if let Err(error) = gen_proto::run(std::path::Path::new(".")) {
        eprintln!("xtask gen: {error}");
    }
}
