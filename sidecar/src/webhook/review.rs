use std::fmt;

use base64::{Engine as _, engine::general_purpose::STANDARD};
use serde::Deserialize;
use serde_json::{Value, json};
use thiserror::Error;

use crate::inject::{Addition, Decision, Options, Reason, Unasked, decide, has_sidecar};

/// The version of reviews that is spoken.
const VERSION: &str = "admission.k8s.io/v1";
/// The most JSON values of a review. Some bytes of text can be hundreds in memory, and a pod has not a
/// tenth as many.
const MOST: usize = 100_000;
/// The longest warning that the API server passes on whole, in bytes.
const WARNING: usize = 256;

/// What is no review.
#[derive(Debug, Error)]
pub enum ReviewError {
    /// Something else, or half of one.
    #[error("it is no AdmissionReview: {0}")]
    Json(#[from] serde_json::Error),
    /// Another kind of object, or another version.
    #[error("it is {kind} of {version}, and not an AdmissionReview of {VERSION}")]
    Kind {
        /// What it says it is.
        kind: String,
        /// Of which API.
        version: String,
    },
    /// More of them than a pod has, which take more memory than there is.
    #[error("it has more than {MOST} JSON values, and no AdmissionReview of a pod has as many")]
    Crowded,
    /// Somebody's answer.
    #[error("it is an AdmissionReview without a request")]
    NoRequest,
}

/// What the API server asks.
#[derive(Debug)]
pub struct Review {
    request: Request,
}

/// As it comes. Nothing that is added to it later is refused.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Envelope {
    #[serde(default)]
    api_version: String,
    #[serde(default)]
    kind: String,
    request: Option<Request>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Request {
    uid: String,
    kind: Kind,
    #[serde(default)]
    namespace: String,
    #[serde(default)]
    operation: String,
    #[serde(default)]
    sub_resource: String,
    #[serde(default)]
    object: Value,
}

#[derive(Debug, Deserialize)]
struct Kind {
    #[serde(default)]
    group: String,
    kind: String,
}

/// What became of a pod.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Verdict {
    /// It gets a sidecar.
    Injected,
    /// It has one.
    Unchanged,
    /// It gets none.
    Skipped,
    /// It is no pod, or none that is being made.
    Ignored,
    /// It is not let in: what it says of its sidecar cannot be used.
    Denied,
}

impl Verdict {
    pub(super) const ALL: [Self; 5] = [
        Self::Injected,
        Self::Unchanged,
        Self::Skipped,
        Self::Ignored,
        Self::Denied,
    ];

    pub(super) fn word(self) -> &'static str {
        match self {
            Self::Injected => "injected",
            Self::Unchanged => "unchanged",
            Self::Skipped => "skipped",
            Self::Ignored => "ignored",
            Self::Denied => "denied",
        }
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.word())
    }
}

/// What the API server is told.
#[derive(Clone, Debug)]
pub struct Answer {
    /// What became of it.
    pub verdict: Verdict,
    /// Why, to whoever made the pod, if there is something to say.
    pub message: String,
    /// Operations of a JSON patch (RFC 6902).
    pub patch: Vec<Value>,
}

impl Review {
    /// Understands what was posted.
    pub fn parse(body: &[u8]) -> Result<Self, ReviewError> {
        if values(body) > MOST {
            return Err(ReviewError::Crowded);
        }
        let envelope: Envelope = serde_json::from_slice(body)?;
        if envelope.kind != "AdmissionReview" || envelope.api_version != VERSION {
            return Err(ReviewError::Kind {
                kind: envelope.kind,
                version: envelope.api_version,
            });
        }
        let request = envelope.request.ok_or(ReviewError::NoRequest)?;
        Ok(Self { request })
    }

    /// What it is about: `pod namespace/name`.
    pub fn name(&self) -> String {
        let metadata = &self.request.object["metadata"];
        let word = |key: &str| metadata[key].as_str().filter(|word| !word.is_empty());
        format!(
            "{} {}/{}",
            self.request.kind.kind.to_lowercase(),
            self.request.namespace,
            word("name")
                .or_else(|| word("generateName"))
                .unwrap_or("(without a name)")
        )
    }

    /// Decides. What is not understood is let in as it is.
    pub fn answer(&self, options: &Options, unasked: Unasked) -> Answer {
        let request = &self.request;
        let answer = |verdict, message: String| Answer {
            verdict,
            message,
            patch: Vec::new(),
        };
        let is_pod = (request.kind.group.as_str(), request.kind.kind.as_str()) == ("", "Pod");
        if !is_pod || request.operation != "CREATE" || !request.sub_resource.is_empty() {
            let message = format!(
                "sidecar: asked about {} of {}, and adds to pods alone, when they are created",
                request.operation, request.kind.kind
            );
            return answer(Verdict::Ignored, message);
        }
        match decide(&request.object, options, unasked) {
            Err(error) => answer(Verdict::Denied, error.to_string()),
            // It is as whoever made the pod wants it.
            Ok(Decision::Skip(Reason::Disabled | Reason::NotAsked | Reason::Node)) => {
                answer(Verdict::Skipped, String::new())
            }
            Ok(Decision::Skip(reason)) => answer(
                Verdict::Skipped,
                format!("sidecar: the pod gets no sidecar: {reason}"),
            ),
            // Whoever added it may have had other options.
            Ok(Decision::Inject(_)) if has_sidecar(&request.object["spec"]) => {
                answer(Verdict::Unchanged, String::new())
            }
            Ok(Decision::Inject(addition)) => Answer {
                verdict: Verdict::Injected,
                message: String::new(),
                patch: patch(&request.object["spec"], &addition),
            },
        }
    }
}

impl Answer {
    /// As the API server understands it.
    pub fn value(&self, review: &Review) -> Value {
        let mut response = json!({
            "uid": review.request.uid,
            "allowed": self.verdict != Verdict::Denied,
        });
        if self.verdict == Verdict::Denied {
            let message = format!("sidecar: {}", self.message);
            response["status"] = json!({"code": 422, "message": message, "reason": "Invalid"});
        } else if !self.message.is_empty() {
            let mut warning = self.message.clone();
            warning.truncate(warning.floor_char_boundary(WARNING));
            response["warnings"] = json!([warning]);
        }
        if !self.patch.is_empty() {
            response["patchType"] = json!("JSONPatch");
            response["patch"] = STANDARD
                .encode(Value::from(self.patch.clone()).to_string())
                .into();
        }
        json!({"apiVersion": VERSION, "kind": "AdmissionReview", "response": response})
    }
}

/// How many values this JSON has, or a few more: each but the first comes behind one of these marks.
fn values(json: &[u8]) -> usize {
    let (mut is_text, mut is_escaped, mut marks) = (false, false, 1);
    for byte in json {
        match byte {
            _ if is_escaped => is_escaped = false,
            b'\\' if is_text => is_escaped = true,
            b'"' => is_text = !is_text,
            b'[' | b'{' | b',' if !is_text => marks += 1,
            _ => {}
        }
    }
    marks
}

/// Puts each list's additions before what is there, touching nothing of it.
fn patch(spec: &Value, addition: &Addition) -> Vec<Value> {
    let lists = [
        ("initContainers", &addition.init_containers),
        ("volumes", &addition.volumes),
    ];
    let mut operations = Vec::new();
    for (list, items) in lists {
        let path = format!("/spec/{list}");
        if spec[list].is_array() {
            let first = items.iter().rev();
            let add = |item| json!({"op": "add", "path": format!("{path}/0"), "value": item});
            operations.extend(first.map(add));
        } else {
            operations.push(json!({"op": "add", "path": path, "value": items}));
        }
    }
    operations
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request() -> Value {
        json!({
            "uid": "1", "operation": "CREATE", "namespace": "shop",
            "kind": {"group": "", "version": "v1", "kind": "Pod"},
            "object": {
                "metadata": {"generateName": "web-", "labels": {"sidecar.mesh/inject": "enabled"}},
                "spec": {"containers": [{"name": "app"}]},
            },
        })
    }

    fn review(request: &Value) -> Review {
        let review = json!({"apiVersion": VERSION, "kind": "AdmissionReview", "request": request});
        Review::parse(review.to_string().as_bytes()).expect("a review")
    }

    /// What is answered to a request, and as what.
    fn answered(request: &Value) -> (Verdict, Value) {
        let review = review(request);
        let answer = review.answer(&Options::default(), Unasked::Skip);
        (answer.verdict, answer.value(&review)["response"].clone())
    }

    #[test]
    fn only_pods_that_are_made_are_added_to() {
        assert_eq!(answered(&request()).0, Verdict::Injected);
        for (pointer, value) in [
            ("/kind/group", "metrics.k8s.io"),
            ("/kind/kind", "PodTemplate"),
            ("/operation", "UPDATE"),
            ("/operation", ""),
            ("/subResource", "ephemeralcontainers"),
        ] {
            let mut other = request();
            other["subResource"] = "".into();
            *other.pointer_mut(pointer).expect("a field") = value.into();
            let (verdict, response) = answered(&other);
            assert_eq!(verdict, Verdict::Ignored, "{pointer}: {value}");
            assert_eq!(response["allowed"], true, "{pointer}: {value}");
            assert!(response["patch"].is_null(), "{pointer}: {value}");
            let warning = response["warnings"][0].as_str().expect("a warning");
            assert!(warning.contains("adds to pods alone"), "{warning}");
        }
    }

    #[test]
    fn what_is_denied_is_invalid_and_whose_sentence_it_is_is_said() {
        let mut wrong = request();
        wrong["object"]["metadata"]["annotations"] = json!({"sidecar.mesh/inbound": "tight"});
        let (verdict, response) = answered(&wrong);
        assert_eq!(verdict, Verdict::Denied);
        assert_eq!(response["allowed"], false);
        assert_eq!(response["status"]["reason"], "Invalid");
        let message = response["status"]["message"].as_str().expect("a message");
        assert!(message.starts_with("sidecar: "), "{message}");
        assert!(response["warnings"].is_null(), "{response}");
    }

    #[test]
    fn a_warning_is_no_longer_than_the_api_server_passes_on() {
        let mut other = request();
        other["kind"]["kind"] = "\u{e4}".repeat(WARNING).into();
        let (_, response) = answered(&other);
        let warning = response["warnings"][0].as_str().expect("a warning");
        assert!(
            (WARNING - 1..=WARNING).contains(&warning.len()),
            "{warning}"
        );
    }

    #[test]
    fn what_a_pod_has_stays_behind_what_is_added_in_order() {
        let mut pod = request();
        pod["object"]["spec"]["initContainers"] = json!([{"name": "first"}]);
        pod["object"]["spec"]["volumes"] = json!(null);
        let review = review(&pod);
        let answer = review.answer(&Options::default(), Unasked::Skip);
        let told = answer.patch.iter().map(|operation| {
            let value = &operation["value"];
            assert_eq!(operation["op"], "add");
            let path = operation["path"].as_str().expect("a path");
            (path, value["name"].as_str().unwrap_or("all"))
        });
        let expected = [
            ("/spec/initContainers/0", "sidecar"),
            ("/spec/initContainers/0", "sidecar-init"),
            ("/spec/volumes", "all"),
        ];
        assert_eq!(told.collect::<Vec<_>>(), expected);
    }

    #[test]
    fn a_pod_whose_app_shares_a_volume_with_its_sidecar_is_let_in_as_it_is() {
        let mut pod = request();
        let template = &pod["object"];
        let decision = decide(template, &Options::default(), Unasked::Skip);
        let Ok(Decision::Inject(addition)) = decision else {
            panic!("{decision:?}");
        };
        pod["object"]["spec"] = addition.apply(&template["spec"]);
        pod["object"]["spec"]["containers"][0]["volumeMounts"] =
            json!([{"name": "sidecar-identity", "mountPath": "/identity"}]);
        let (verdict, response) = answered(&pod);
        assert_eq!(verdict, Verdict::Unchanged, "{response}");
        assert_eq!(response["allowed"], true);
    }

    #[test]
    fn a_pod_is_named_as_whoever_made_it_knows_it() {
        let named = |name: &str, generate: &str| {
            let mut pod = request();
            pod["object"]["metadata"] = json!({"name": name, "generateName": generate});
            review(&pod).name()
        };
        assert_eq!(named("web-1", "web-"), "pod shop/web-1");
        assert_eq!(named("", "web-"), "pod shop/web-");
        assert_eq!(named("", ""), "pod shop/(without a name)");
    }

    #[test]
    fn another_kind_of_the_same_api_is_no_review() {
        let other = json!({"apiVersion": VERSION, "kind": "Status", "request": request()});
        let refused = Review::parse(other.to_string().as_bytes()).expect_err("a status");
        assert!(
            refused.to_string().contains("it is Status of "),
            "{refused}"
        );
    }

    #[test]
    fn a_review_of_more_values_than_a_pod_has_is_refused() {
        let many = |text: &str| {
            let list = vec![text; MOST / 2].join(",");
            Review::parse(format!("[[{list}]]").as_bytes())
        };
        // Each of those would be an allocation or more.
        for text in ["{\"\":0}", "[0]", "0,0,0"] {
            assert!(matches!(many(text), Err(ReviewError::Crowded)), "{text}");
        }
        // Marks in text are text.
        for text in ["\",,,[[{{\"", "\",\\\",,\\\\\""] {
            assert!(matches!(many(text), Err(ReviewError::Json(_))), "{text}");
        }
    }
}
