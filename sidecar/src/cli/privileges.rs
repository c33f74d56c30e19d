use crate::pod;

/// Refuses to go on without what attaching programs takes; `remedy` says how the command is to be run.
pub(super) fn to_attach(command: &str, remedy: &str) -> anyhow::Result<()> {
    let missing = pod::missing_capabilities();
    anyhow::ensure!(
        missing.is_empty(),
        "`sidecar {command}` lacks {}, which attaching programs takes; {remedy}",
        missing.join(" and ")
    );
    Ok(())
}
