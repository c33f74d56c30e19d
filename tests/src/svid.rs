//! Certificates made by `sidecar ca`, for the tests that need particular ones.

use std::{
    fs::{self, Permissions},
    os::unix::fs::{PermissionsExt as _, chown},
    path::{Path, PathBuf},
};

use crate::{Pod, sidecar};

/// A certificate authority in a directory.
#[derive(Debug)]
pub struct Ca<'a> {
    /// Where the commands run.
    pod: &'a Pod,
    /// Where the authority keeps its key.
    directory: PathBuf,
}

/// A certificate with its key, and the bundle to verify others by.
#[derive(Clone, Debug)]
pub struct Svid {
    /// PEM: the certificate, and those between it and a root.
    pub certificate: PathBuf,
    /// PEM: the private key.
    pub key: PathBuf,
    /// PEM: the roots to trust.
    pub bundle: PathBuf,
}

impl<'a> Ca<'a> {
    /// Makes the root of a trust domain. It is named after the domain in the pod's directory.
    #[track_caller]
    pub fn new(pod: &'a Pod, trust_domain: &str) -> Self {
        let directory = pod.sandbox().directory().join(format!("ca-{trust_domain}"));
        let root = pod
            .program(sidecar::binary())
            .args(["ca", "root", "--dir"])
            .arg(&directory);
        root.args(["--trust-domain", trust_domain]).succeed();
        Self { pod, directory }
    }

    /// Writes a list, over what is there, by which these certificates are revoked and no others.
    #[track_caller]
    pub fn revoke(&self, certificates: &[&Path], list: &Path) {
        let revoke = self.pod.program(sidecar::binary()).args(["ca", "revoke"]);
        revoke
            .arg("--dir")
            .arg(&self.directory)
            .arg("--out")
            .arg(list)
            .args(certificates)
            .succeed();
    }

    /// Issues a certificate that is valid from now on for `lifetime`, such as `24h`.
    #[track_caller]
    pub fn issue(&self, id: &str, lifetime: &str) -> Svid {
        let name = id.rsplit('/').next().expect("rsplit is never empty");
        let out = self.directory.join(name);
        let issue = self
            .pod
            .program(sidecar::binary())
            .args(["ca", "issue", "--id", id, "--dir"]);
        issue
            .arg(&self.directory)
            .args(["--lifetime", lifetime, "--out"])
            .arg(&out)
            .succeed();
        Svid {
            certificate: out.join("svid.pem"),
            key: out.join("svid_key.pem"),
            bundle: out.join("svid_bundle.pem"),
        }
    }
}

impl Svid {
    /// The flags that have a sidecar use it.
    pub fn flags(&self) -> [&str; 6] {
        let [certificate, key, bundle] = [&self.certificate, &self.key, &self.bundle]
            .map(|path| path.to_str().expect("the names are ASCII"));
        [
            "--certificate",
            certificate,
            "--key",
            key,
            "--trust-bundle",
            bundle,
        ]
    }

    /// Makes the files another user's, and lets everybody pass on the way to them.
    pub fn give_to(&self, user: u32) {
        for path in [&self.certificate, &self.key, &self.bundle] {
            chown(path, Some(user), Some(user)).expect("root may give files away");
            for directory in path.ancestors().skip(1).take(2) {
                fs::set_permissions(directory, Permissions::from_mode(0o755))
                    .expect("root may open directories");
            }
        }
    }

    /// Trusts what another's holder trusts, too.
    pub fn trust(&self, other: &Self) {
        let bundles = [&self.bundle, &other.bundle].map(|path| fs::read(path).expect("a bundle"));
        fs::write(&self.bundle, bundles.concat()).expect("writing a bundle");
    }

    /// Puts these files in the place of `other`'s, each in one step, the bundle first.
    pub fn replace(&self, other: &Self) {
        for (new, old) in [
            (&self.bundle, &other.bundle),
            (&self.key, &other.key),
            (&self.certificate, &other.certificate),
        ] {
            let whole = old.with_extension("new");
            fs::copy(new, &whole).expect("copying a file");
            fs::rename(whole, old).expect("replacing a file");
        }
    }
}
