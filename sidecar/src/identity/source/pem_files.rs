use std::sync::Arc;

use super::{Identity, Source};
use crate::changes::{Changes, Tree};
use crate::identity::{Error, Files, Svid, blocking};

/// PEM files that something else issues and renews.
///
/// They are read when they may have changed. Files that do not belong together yet, or of which one
/// is half-written, are an error, and are read again with the next change.
pub(crate) struct PemFiles {
    files: Files,
    /// Watched for all that is in it, if somebody does.
    tree: Option<Arc<Tree>>,
    /// Tells when to read them; `None` before they were read for the first time.
    changes: Option<Changes>,
    /// What they held when they were last read; `None` when that was nothing of use.
    held: Option<Svid>,
}

impl PemFiles {
    pub(crate) const fn new(files: Files) -> Self {
        Self {
            files,
            tree: None,
            changes: None,
            held: None,
        }
    }

    /// Files in a tree that is watched as a whole.
    pub(crate) const fn in_tree(files: Files, tree: Arc<Tree>) -> Self {
        Self {
            files,
            tree: Some(tree),
            changes: None,
            held: None,
        }
    }

    fn changes(&self) -> Changes {
        match &self.tree {
            Some(tree) => tree.changes_of(self.files.paths()),
            None => Changes::of(self.files.paths()),
        }
    }
}

impl Source for PemFiles {
    async fn next(&mut self) -> Result<Identity, Error> {
        loop {
            match &mut self.changes {
                Some(changes) => changes.next().await,
                None => self.changes = Some(self.changes()),
            }
            let files = self.files.clone();
            let read = blocking(move || files.load()).await;
            let same = matches!((&read, &self.held), (Ok(new), Some(held)) if new.is(held));
            if same {
                continue;
            }
            self.held = read.as_ref().ok().cloned();
            return Ok(read?.into());
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::symlink;
    use std::path::Path;
    use std::time::Duration;

    use tokio::time::timeout;

    use super::*;
    use crate::identity::Ca;
    use crate::identity::testing::{ca, id};

    fn issue(ca: &Ca, dir: &Path) -> Svid {
        let svid = ca
            .issue(&id("web"), Duration::from_hours(1))
            .expect("identity");
        Files::in_dir(dir).save(&svid).expect("save");
        svid
    }

    async fn next(source: &mut PemFiles) -> Result<Svid, Error> {
        timeout(Duration::from_mins(1), source.next())
            .await
            .expect("something new")
            .map(|identity| identity.svid)
    }

    #[tokio::test(start_paused = true)]
    async fn files_that_have_not_changed_are_no_new_identity() {
        let (_dir, ca) = ca("example.org");
        let dir = tempfile::tempdir().expect("temporary directory");
        let first = issue(&ca, dir.path());
        let mut source = PemFiles::new(Files::in_dir(dir.path()));
        assert!(next(&mut source).await.expect("identity").is(&first));
        let hour = timeout(Duration::from_hours(1), source.next());
        assert!(hour.await.is_err());
        let second = issue(&ca, dir.path());
        assert!(next(&mut source).await.expect("identity").is(&second));
    }

    #[tokio::test(start_paused = true)]
    async fn a_file_that_is_half_written_is_read_again_when_it_is_whole() {
        let (_dir, ca) = ca("example.org");
        let dir = tempfile::tempdir().expect("temporary directory");
        issue(&ca, dir.path());
        let files = Files::in_dir(dir.path());
        let mut source = PemFiles::new(files.clone());
        next(&mut source).await.expect("identity");

        let renewed = issue(&ca, dir.path());
        let whole = fs::read(&files.certificate).expect("read");
        fs::write(&files.certificate, &whole[..whole.len() / 2]).expect("write");
        let error = next(&mut source).await.expect_err("half a certificate");
        assert!(error.to_string().contains("the END line"), "{error}");
        fs::write(&files.certificate, whole).expect("write");
        assert!(next(&mut source).await.expect("identity").is(&renewed));
    }

    #[tokio::test(start_paused = true)]
    async fn a_new_certificate_without_its_key_waits_for_it() {
        let (_dir, ca) = ca("example.org");
        let dir = tempfile::tempdir().expect("temporary directory");
        let elsewhere = tempfile::tempdir().expect("temporary directory");
        issue(&ca, dir.path());
        let files = Files::in_dir(dir.path());
        let mut source = PemFiles::new(files.clone());
        next(&mut source).await.expect("identity");

        let renewed = issue(&ca, elsewhere.path());
        let new = Files::in_dir(elsewhere.path());
        fs::copy(new.certificate, files.certificate).expect("copy");
        let error = next(&mut source).await.expect_err("the old key");
        assert!(matches!(error, Error::KeyMismatch { .. }), "{error}");
        fs::copy(new.key, files.key).expect("copy");
        assert!(next(&mut source).await.expect("identity").is(&renewed));
    }

    #[tokio::test(start_paused = true)]
    async fn a_swapped_data_link_is_one_change_of_all_files() {
        let (_dir, ca) = ca("example.org");
        let dir = tempfile::tempdir().expect("temporary directory");
        let [first, second] = ["..1", "..2"].map(|version| {
            let version = dir.path().join(version);
            fs::create_dir(&version).expect("a writable directory");
            issue(&ca, &version)
        });
        symlink("..1", dir.path().join("..data")).expect("a link");
        for name in ["svid.pem", "svid_key.pem", "svid_bundle.pem"] {
            symlink(format!("..data/{name}"), dir.path().join(name)).expect("a link");
        }
        let mut source = PemFiles::new(Files::in_dir(dir.path()));
        assert!(next(&mut source).await.expect("identity").is(&first));
        symlink("..2", dir.path().join("..data_tmp")).expect("a link");
        fs::rename(dir.path().join("..data_tmp"), dir.path().join("..data")).expect("a swap");
        assert!(next(&mut source).await.expect("identity").is(&second));
    }

    #[tokio::test(start_paused = true)]
    async fn a_trust_bundle_that_changes_alone_is_taken() {
        let (_dir, old) = ca("example.org");
        let (_dir, new) = ca("example.org");
        let dir = tempfile::tempdir().expect("temporary directory");
        issue(&old, dir.path());
        let files = Files::in_dir(dir.path());
        let mut source = PemFiles::new(files.clone());
        next(&mut source).await.expect("identity");

        let elsewhere = tempfile::tempdir().expect("temporary directory");
        issue(&new, elsewhere.path());
        let mut both = fs::read(&files.trust_bundle).expect("read");
        both.extend(fs::read(Files::in_dir(elsewhere.path()).trust_bundle).expect("read"));
        fs::write(&files.trust_bundle, both).expect("write");
        let svid = next(&mut source).await.expect("identity");
        assert_eq!(svid.bundle().authorities().len(), 2);
    }

    #[tokio::test(start_paused = true)]
    async fn files_that_are_not_there_yet_are_waited_for() {
        let (_dir, ca) = ca("example.org");
        let dir = tempfile::tempdir().expect("temporary directory");
        let late = dir.path().join("late");
        let mut source = PemFiles::new(Files::in_dir(&late));
        let error = next(&mut source).await.expect_err("nothing is there");
        assert!(matches!(error, Error::Read { .. }), "{error}");
        fs::create_dir(&late).expect("a writable directory");
        let svid = issue(&ca, &late);
        let read = next(&mut source).await.expect("identity");
        assert!(read.is(&svid));
    }
}
