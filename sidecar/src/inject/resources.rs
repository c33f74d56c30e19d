use serde_json::{Map, Value};

/// What each of our containers asks of the node, and may take: quantities of Kubernetes.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Resources {
    /// CPU that is kept free for it.
    pub cpu_request: Option<String>,
    /// CPU that it is throttled at.
    pub cpu_limit: Option<String>,
    /// Memory that is kept free for it.
    pub memory_request: Option<String>,
    /// Memory at which it is killed.
    pub memory_limit: Option<String>,
}

impl Default for Resources {
    /// Idle, it takes about 10 MB. Of CPU it takes what the traffic costs, and a limit would show as
    /// latency.
    fn default() -> Self {
        Self {
            cpu_request: Some("10m".to_owned()),
            cpu_limit: None,
            memory_request: Some("32Mi".to_owned()),
            memory_limit: Some("256Mi".to_owned()),
        }
    }
}

impl Resources {
    /// The annotation of a request that is more than its limit, both chosen, and the two.
    pub(super) fn contradiction(&self) -> Option<(&'static str, &str, &str)> {
        let [cpu, memory] = self.fitting();
        [("cpu-request", cpu), ("memory-request", memory)]
            .into_iter()
            .find_map(|(key, (request, limit))| {
                let (request, limit) = request.zip(limit)?;
                is_too_much((request, limit)).then_some((key, request, limit))
            })
    }

    pub(super) fn value(&self) -> Value {
        let [(cpu_request, cpu_limit), (memory_request, memory_limit)] = self.fitting();
        let sides = [
            ("limits", side(cpu_limit, memory_limit)),
            ("requests", side(cpu_request, memory_request)),
        ];
        sides
            .into_iter()
            .filter_map(|(side, set)| Some((side.to_owned(), set?)))
            .collect::<Map<_, _>>()
            .into()
    }

    /// Those of CPU and of memory, as they are written.
    fn fitting(&self) -> [Pair<'_>; 2] {
        let default = Self::default();
        [
            fit(
                (&self.cpu_request, &default.cpu_request),
                (&self.cpu_limit, &default.cpu_limit),
            ),
            fit(
                (&self.memory_request, &default.memory_request),
                (&self.memory_limit, &default.memory_limit),
            ),
        ]
    }
}

/// A request and a limit.
type Pair<'a> = (Option<&'a str>, Option<&'a str>);

/// Request and limit of one resource, each given with its default. Kubernetes refuses pods that ask
/// for more than they may take: where only one of the two is chosen, the other's default gives way.
fn fit<'a>(
    (request, default_request): (&'a Option<String>, &Option<String>),
    (limit, default_limit): (&'a Option<String>, &Option<String>),
) -> Pair<'a> {
    let (wanted, allowed) = (request.as_deref(), limit.as_deref());
    if !wanted.zip(allowed).is_some_and(is_too_much) {
        (wanted, allowed)
    } else if request == default_request {
        (allowed, allowed)
    } else if limit == default_limit {
        (wanted, wanted)
    } else {
        (wanted, allowed)
    }
}

/// Is a request above its limit? Equal ones may be written in different units, of which not every one is
/// exact.
fn is_too_much((request, limit): (&str, &str)) -> bool {
    const EQUAL: f64 = 1.0 + 1e-9;
    amount(request)
        .zip(amount(limit))
        .is_some_and(|(request, limit)| request > limit * EQUAL)
}

fn side(cpu: Option<&str>, memory: Option<&str>) -> Option<Value> {
    let named = [("cpu", cpu), ("memory", memory)];
    let set: Map<_, _> = named
        .into_iter()
        .filter_map(|(name, quantity)| Some((name.to_owned(), quantity?.into())))
        .collect();
    (!set.is_empty()).then_some(Value::Object(set))
}

/// Is it a quantity, such as `500m`, `1.5` or `64Mi`? Of Kubernetes' notations, the exponents of ten
/// are left out.
pub(super) fn is_quantity(text: &str) -> bool {
    amount(text).is_some_and(|amount| amount > 0.0)
}

/// How much a quantity is.
fn amount(text: &str) -> Option<f64> {
    const UNITS: [(&str, f64); 13] = [
        ("", 1.0),
        ("n", 1e-9),
        ("u", 1e-6),
        ("m", 1e-3),
        ("k", 1e3),
        ("M", 1e6),
        ("G", 1e9),
        ("T", 1e12),
        ("Ki", 1024.0),
        ("Mi", 1_048_576.0),
        ("Gi", 1_073_741_824.0),
        ("Ti", 1_099_511_627_776.0),
        ("Pi", 1_125_899_906_842_624.0),
    ];
    let digits = text
        .find(|character: char| !character.is_ascii_digit() && character != '.')
        .unwrap_or(text.len());
    let (number, suffix) = text.split_at(digits);
    let (_, unit) = UNITS.iter().find(|(unit, _)| *unit == suffix)?;
    Some(number.parse::<f64>().ok()? * unit)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[expect(clippy::unnecessary_wraps, reason = "it is what the fields are")]
    fn text(text: &str) -> Option<String> {
        Some(text.to_owned())
    }

    #[test]
    fn where_one_of_the_two_is_chosen_the_others_default_gives_way() {
        let small = Resources {
            cpu_limit: text("5m"),
            memory_limit: text("16Mi"),
            ..Resources::default()
        };
        let both = json!({ "cpu": "5m", "memory": "16Mi" });
        assert_eq!(small.value(), json!({ "limits": both, "requests": both }));
        let large = Resources {
            cpu_request: text("2"),
            memory_request: text("0.5Gi"),
            ..Resources::default()
        };
        assert_eq!(
            large.value(),
            json!({
                "limits": { "memory": "0.5Gi" },
                "requests": { "cpu": "2", "memory": "0.5Gi" },
            })
        );
    }

    #[test]
    fn what_fits_is_left_as_it_is() {
        let chosen = Resources {
            cpu_request: text("0.1"),
            cpu_limit: text("100m"),
            memory_request: text("250M"),
            memory_limit: None,
        };
        assert_eq!(
            chosen.value(),
            json!({
                "limits": { "cpu": "100m" },
                "requests": { "cpu": "0.1", "memory": "250M" },
            })
        );
    }

    #[test]
    fn what_contradicts_itself_is_found() {
        let wrong = Resources {
            memory_request: text("64Mi"),
            memory_limit: text("48Mi"),
            ..Resources::default()
        };
        assert_eq!(
            wrong.contradiction(),
            Some(("memory-request", "64Mi", "48Mi"))
        );
        let wrong = Resources {
            cpu_request: text("0.5"),
            cpu_limit: text("400m"),
            ..Resources::default()
        };
        assert_eq!(wrong.contradiction(), Some(("cpu-request", "0.5", "400m")));
        assert_eq!(Resources::default().contradiction(), None);
        let equal = Resources {
            cpu_request: text("700m"),
            cpu_limit: text("0.7"),
            ..Resources::default()
        };
        assert_eq!(equal.contradiction(), None);
        let lowered = Resources {
            memory_limit: text("16Mi"),
            ..Resources::default()
        };
        assert_eq!(lowered.contradiction(), None);
    }
}
