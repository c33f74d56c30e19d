//! Where the workload's identity comes from: an X.509-SVID, its private key and the trust bundles
//! that peers are judged by.

mod account;
mod accounts;
mod authority;
mod bundle;
mod ca;
mod certificate;
mod error;
mod files;
mod origin;
mod revocation;
mod source;
mod svid;
#[cfg(test)]
pub(crate) mod testing;
mod trust;
mod trust_files;

use std::time::Duration;

pub use self::account::Account;
pub use self::accounts::Accounts;
pub(crate) use self::bundle::End;
pub use self::bundle::TrustBundle;
pub use self::ca::Ca;
pub(crate) use self::certificate::{Leaf, not_after_of, shown_id};
pub use self::error::{Error, Flaw, SvidError};
pub use self::files::Files;
pub use self::origin::Origin;
pub use self::revocation::Revocations;
pub(crate) use self::source::Backoff;
pub use self::source::{Identity, Source, WorkloadApiFault};
pub use self::svid::Svid;
pub use self::trust::Trust;
pub use self::trust_files::{TrustContent, TrustFile, TrustFiles, TrustNews};

/// How long a root made by [`Origin::DevCa`] lasts.
pub const ROOT_LIFETIME: Duration = Duration::from_hours(365 * 24);

/// How long an SVID that [`Origin::DevCa`] issues lasts.
pub const SVID_LIFETIME: Duration = Duration::from_hours(24);

/// Runs what waits for files on a thread where that stops nobody else.
async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    match tokio::task::spawn_blocking(work).await {
        Ok(done) => done,
        Err(error) => match error.try_into_panic() {
            Ok(panic) => std::panic::resume_unwind(panic),
            // Tasks like this are cancelled when the runtime ends, and we with them.
            Err(_) => std::future::pending().await,
        },
    }
}
