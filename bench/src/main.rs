//! Measures the tunnel beside a direct connection and an nginx TLS hop, interleaved in one run.

mod caller;
mod clock;
mod http;
mod load;
mod upstream;

fn main() {}
