//! The address of the admin endpoint.

use std::net::TcpListener;

use super::{Context, Outcome, network, pins};

pub(super) fn free(context: &Context) -> Outcome {
    network::inside(context, || {
        let Some(config) = context.config() else {
            return Outcome::NO_SETTINGS;
        };
        let address = config.admin;
        if let Err(error) = TcpListener::bind(address) {
            if let Some(pid) = pins::serving(context) {
                return Outcome::warn(
                    format!("process {pid}, which serves the pod already, listens on {address}"),
                    "to run a second one beside it, set another address with --admin",
                );
            }
            return Outcome::fail(
                format!("nothing can listen on {address}: {error}"),
                "stop what listens there, or set another address with --admin",
            );
        }
        if !address.ip().to_canonical().is_loopback() {
            return Outcome::warn(
                format!("{address} can be reached from the network, and asks for no password"),
                "set --admin to a loopback address, unless a network policy guards the port",
            );
        }
        Outcome::found(address.to_string())
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::check::fixture::Fixture;

    fn with_admin(address: impl std::fmt::Display) -> Fixture {
        Fixture::with(&[]).set(&format!("admin: '{address}'"))
    }

    #[test]
    fn an_address_in_use_is_an_obstacle() {
        let taken = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let address = taken.local_addr().expect("a bound socket has an address");
        let Outcome::Fail { reason, .. } = free(&with_admin(address)) else {
            panic!("an address in use passes");
        };
        assert!(reason.contains(&address.to_string()), "{reason}");
    }

    #[test]
    fn an_address_that_the_network_reaches_is_worth_a_word() {
        assert_eq!(
            free(&with_admin("127.0.0.1:0")),
            Outcome::found("127.0.0.1:0")
        );
        assert!(matches!(
            free(&with_admin("0.0.0.0:0")),
            Outcome::Warn { .. }
        ));
    }
}
