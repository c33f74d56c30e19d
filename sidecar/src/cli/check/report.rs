//! All findings, and their two forms.

use std::{io, process::ExitCode};

use serde::Serialize;

use super::Outcome;

/// A claim and what came of looking at it.
pub(super) struct Finding {
    /// The heading it stands under.
    pub(super) category: &'static str,
    /// What should be true.
    pub(super) claim: &'static str,
    /// Whether it is.
    pub(super) outcome: Outcome,
}

/// All findings, in the order of the checks.
pub(super) struct Report(Vec<Finding>);

impl Report {
    pub(super) fn new(findings: impl IntoIterator<Item = Finding>) -> Self {
        Self(findings.into_iter().collect())
    }

    /// Failure if a claim failed.
    pub(super) fn exit_code(&self) -> ExitCode {
        match self.count('×') {
            0 => ExitCode::SUCCESS,
            _ => ExitCode::FAILURE,
        }
    }

    /// Lines for people: claims under headings, and what is wrong below its claim.
    pub(super) fn write_text(&self, out: &mut impl io::Write) -> io::Result<()> {
        for findings in self.0.chunk_by(|a, b| a.category == b.category) {
            let Some(first) = findings.first() else {
                continue;
            };
            writeln!(
                out,
                "{}\n{}",
                first.category,
                "-".repeat(first.category.len())
            )?;
            for finding in findings {
                finding.write_text(out)?;
            }
            writeln!(out)?;
        }
        writeln!(out, "{}", self.verdict())
    }

    /// One JSON object.
    pub(super) fn write_json(&self, out: &mut impl io::Write) -> io::Result<()> {
        let report = JsonReport {
            success: self.count('×') == 0,
            checks: self.0.iter().map(JsonFinding::from).collect(),
        };
        serde_json::to_writer_pretty(&mut *out, &report)?;
        writeln!(out)
    }

    /// The last line.
    fn verdict(&self) -> String {
        match (self.count('×'), self.count('‼')) {
            (0, 0) => "√ nothing stands in the way".to_owned(),
            (0, warnings) => format!("√ nothing stands in the way; ‼ marks {}", claims(warnings)),
            (failures, _) => format!("× the sidecar cannot run: × marks {}", claims(failures)),
        }
    }

    fn count(&self, sign: char) -> usize {
        let findings = self.0.iter();
        findings
            .filter(|finding| finding.outcome.sign() == sign)
            .count()
    }
}

impl Finding {
    fn write_text(&self, out: &mut impl io::Write) -> io::Result<()> {
        write!(out, "{} {}", self.outcome.sign(), self.claim)?;
        match &self.outcome {
            Outcome::Pass { found: None } => writeln!(out),
            Outcome::Pass { found: Some(found) } => writeln!(out, " ({found})"),
            Outcome::Skip { reason } => writeln!(out, "\n    not checked: {reason}"),
            Outcome::Fail { reason, hint } | Outcome::Warn { reason, hint } => {
                writeln!(out, "\n    {reason}\n    hint: {hint}")
            }
        }
    }
}

/// "1 claim", "2 claims".
fn claims(count: usize) -> String {
    match count {
        1 => "1 claim".to_owned(),
        _ => format!("{count} claims"),
    }
}

#[derive(Serialize)]
struct JsonReport<'a> {
    /// Did no claim fail?
    success: bool,
    checks: Vec<JsonFinding<'a>>,
}

/// A finding; fields that the outcome does not have are left out.
#[derive(Serialize)]
struct JsonFinding<'a> {
    category: &'a str,
    claim: &'a str,
    /// `fail`, `pass`, `skip` or `warn`.
    result: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    found: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    hint: Option<&'a str>,
}

impl<'a> From<&'a Finding> for JsonFinding<'a> {
    fn from(finding: &'a Finding) -> Self {
        let (result, found, reason, hint) = match &finding.outcome {
            Outcome::Fail { reason, hint } => ("fail", None, Some(&**reason), Some(&**hint)),
            Outcome::Pass { found } => ("pass", found.as_deref(), None, None),
            Outcome::Skip { reason } => ("skip", None, Some(*reason), None),
            Outcome::Warn { reason, hint } => ("warn", None, Some(&**reason), Some(&**hint)),
        };
        Self {
            category: finding.category,
            claim: finding.claim,
            result,
            found,
            reason,
            hint,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report(outcomes: &[(&'static str, &'static str, Outcome)]) -> Report {
        Report::new(outcomes.iter().map(|(category, claim, outcome)| Finding {
            category,
            claim,
            outcome: outcome.clone(),
        }))
    }

    fn one_of_each() -> Report {
        report(&[
            ("kernel", "the kernel is new", Outcome::found("6.18.44")),
            ("kernel", "the kernel is kind", Outcome::PASS),
            (
                "pod",
                "the pod exists",
                Outcome::fail("/pod is missing", "create it"),
            ),
            (
                "pod",
                "the pod is warm",
                Outcome::warn("it is cold", "wait"),
            ),
            (
                "pod",
                "the pod is full",
                Outcome::Skip {
                    reason: "there is no pod",
                },
            ),
        ])
    }

    #[test]
    fn the_text_puts_reason_and_hint_below_the_claim() {
        let mut text = Vec::new();
        one_of_each()
            .write_text(&mut text)
            .expect("memory takes everything");
        assert_eq!(
            String::from_utf8_lossy(&text),
            "\
kernel
------
√ the kernel is new (6.18.44)
√ the kernel is kind

pod
---
× the pod exists
    /pod is missing
    hint: create it
‼ the pod is warm
    it is cold
    hint: wait
– the pod is full
    not checked: there is no pod

× the sidecar cannot run: × marks 1 claim
"
        );
    }

    #[test]
    fn the_json_says_the_same() {
        let mut json = Vec::new();
        one_of_each()
            .write_json(&mut json)
            .expect("memory takes everything");
        let json: serde_json::Value = serde_json::from_slice(&json).expect("JSON");
        assert_eq!(
            json,
            serde_json::json!({
                "success": false,
                "checks": [
                    {"category": "kernel", "claim": "the kernel is new", "result": "pass", "found": "6.18.44"},
                    {"category": "kernel", "claim": "the kernel is kind", "result": "pass"},
                    {"category": "pod", "claim": "the pod exists", "result": "fail",
                     "reason": "/pod is missing", "hint": "create it"},
                    {"category": "pod", "claim": "the pod is warm", "result": "warn",
                     "reason": "it is cold", "hint": "wait"},
                    {"category": "pod", "claim": "the pod is full", "result": "skip",
                     "reason": "there is no pod"},
                ],
            })
        );
    }

    #[test]
    fn only_a_failure_is_an_exit_code() {
        let warned = report(&[("pod", "warm", Outcome::warn("cold", "wait"))]);
        assert_eq!(warned.exit_code(), ExitCode::SUCCESS);
        assert_eq!(
            warned.verdict(),
            "√ nothing stands in the way; ‼ marks 1 claim"
        );
        assert_eq!(one_of_each().exit_code(), ExitCode::FAILURE);
        assert_eq!(report(&[]).verdict(), "√ nothing stands in the way");
    }
}
