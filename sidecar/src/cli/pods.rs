use super::{
    endpoint,
    output::{Output, json, print},
    table::{Column, TICK, Table, room},
};
use crate::admin::PodSnapshot;

/// Options of `sidecar pods`.
#[derive(clap::Args, Debug)]
pub struct Pods {
    #[command(flatten)]
    endpoint: endpoint::Args,

    /// How to show it
    #[arg(short, long, value_name = "FORMAT", default_value = "text")]
    output: Output,

    /// Show every column and identity whole, however narrow the terminal is
    #[arg(long)]
    wide: bool,
}

impl Pods {
    /// Prints the pods of a node that ask to be captured.
    pub fn run(self) -> anyhow::Result<()> {
        let (runtime, endpoint) = self.endpoint.enter()?;
        let pods: Vec<PodSnapshot> = runtime.block_on(endpoint.get("/pods"))?;
        let text = match self.output {
            Output::Json => json(&pods)?,
            Output::Text => text(&pods, room().filter(|_| !self.wide)),
        };
        // Whether anybody reads on does not matter: there is no more.
        let _ = print(&text, self.output)?;
        Ok(())
    }
}

fn text(pods: &[PodSnapshot], width: Option<usize>) -> String {
    if pods.is_empty() {
        return "no pod of this node asks to be captured\n".into();
    }
    let columns = [
        Column::Left("NAMESPACE"),
        Column::Left("POD"),
        Column::Left("STATE"),
        Column::Identity("IDENTITY"),
        Column::Right("OPEN"),
        Column::Left("WORKLOAD"),
        Column::Rare("WHY"),
    ];
    let mut table = Table::new(columns, width).spare(["WORKLOAD", "OPEN"]);
    for pod in pods {
        table.row([
            pod.namespace.clone(),
            pod.name.clone(),
            pod.state.clone(),
            pod.identity
                .as_ref()
                .map(|identity| format!("{TICK} {identity}"))
                .unwrap_or_default(),
            pod.open.map(|open| open.to_string()).unwrap_or_default(),
            pod.workload.clone(),
            pod.why.clone().unwrap_or_default(),
        ]);
    }
    table.to_string()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::golden;

    fn pods() -> Vec<PodSnapshot> {
        let pod = |name: &str, state: &str, why: Option<&str>| PodSnapshot {
            namespace: "shop".into(),
            name: name.into(),
            workload: "deployment/web".into(),
            service_account: "web".into(),
            addresses: vec!["198.18.0.1".parse().expect("an address")],
            state: state.into(),
            why: why.map(Into::into),
            identity: None,
            open: None,
        };
        vec![
            PodSnapshot {
                identity: Some("spiffe://cluster.local/ns/shop/sa/web".into()),
                open: Some(12),
                ..pod("web-6f7d9-2xk8p", "captured", None)
            },
            PodSnapshot {
                open: Some(0),
                ..pod("web-6f7d9-9dk2f", "captured", None)
            },
            pod("web-6f7d9-zzz9q", "waiting", Some("it has no process yet")),
            pod(
                "node-shell",
                "skipped",
                Some("it shares the network namespace of the node"),
            ),
        ]
    }

    #[test]
    fn pods_are_one_line_each() {
        golden::assert("pods-wide.txt", &text(&pods(), None));
        golden::assert_narrow("pods.txt", &text(&pods(), Some(80)));
        golden::assert_narrow("pods-captured.txt", &text(&pods()[..2], Some(80)));
    }

    #[test]
    fn that_there_is_none_is_said() {
        assert_eq!(text(&[], None), "no pod of this node asks to be captured\n");
    }
}
