//! `tunneld certs`: a development CA and a certificate.

use std::path::PathBuf;

use tunnel_certs::dev::{self, DevError, Existing};
use tunnel_cli::exit::Exit;

use super::Output;

const EXAMPLES: &str = "\
Examples:
  tunneld certs --out certs
  tunneld certs --out certs --host tunnel.example.com --host 10.0.0.5

For development and private networks: everyone who connects must be given ca.pem. The CA's key is
thrown away.";

/// The flags.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct Args {
    /// Directory to write to; made if missing
    #[arg(long, value_name = "DIR")]
    out: PathBuf,

    /// Host name or address that callers use; may be repeated [default: this computer]
    #[arg(long, value_name = "NAME", num_args = 1.., value_delimiter = ',')]
    host: Vec<String>,

    /// Replace files that are already there
    #[arg(long)]
    force: bool,
}

pub(super) fn run(args: &Args) -> Result<Output, Exit> {
    let default = || dev::DEFAULT_HOSTS.map(str::to_owned).to_vec();
    let hosts = if args.host.is_empty() { default() } else { args.host.clone() };
    let existing = if args.force { Existing::Overwrite } else { Existing::Keep };
    let files = dev::generate(&args.out, &hosts, existing).map_err(|error| match error {
        DevError::Exists(path) => {
            Exit::usage(format_args!("--out: {} exists; add --force to replace it", path.display()))
        }
        DevError::BadHost(_) | DevError::NoHosts => Exit::usage(format_args!("--host: {error}")),
        error => Exit::usage(format_args!("--out: {error}")),
    })?;
    let (ca, cert, key) = (files.ca.display(), files.cert.display(), files.key.display());
    Ok(Output {
        result: format!("{ca}\n{cert}\n{key}\n"),
        hint: format!(
            "\nfor {}\n\
             server:   tunneld serve --tls-cert {cert} --tls-key {key} …\n\
             desktop:  tunnel connect --ca {ca} …\n\
             callers:  curl --cacert {ca} …   SSL_CERT_FILE={ca}   NODE_EXTRA_CA_CERTS={ca}\n",
            hosts.join(", ")
        ),
    })
}
