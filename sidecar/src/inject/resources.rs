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
    pub(super) fn value(&self) -> Value {
        let of = |cpu: &Option<String>, memory: &Option<String>| -> Option<Value> {
            let named = [("cpu", cpu), ("memory", memory)];
            let set: Map<_, _> = named
                .into_iter()
                .filter_map(|(name, quantity)| {
                    Some((name.to_owned(), Value::from(quantity.clone()?)))
                })
                .collect();
            (!set.is_empty()).then_some(Value::Object(set))
        };
        let sides = [
            ("limits", of(&self.cpu_limit, &self.memory_limit)),
            ("requests", of(&self.cpu_request, &self.memory_request)),
        ];
        sides
            .into_iter()
            .filter_map(|(side, set)| Some((side.to_owned(), set?)))
            .collect::<Map<_, _>>()
            .into()
    }
}

/// Is it a quantity, such as `500m`, `1.5` or `64Mi`? Of Kubernetes' notations, the exponents of ten
/// are left out.
pub(super) fn is_quantity(text: &str) -> bool {
    const SUFFIXES: [&str; 13] = [
        "", "n", "u", "m", "k", "M", "G", "T", "Ki", "Mi", "Gi", "Ti", "Pi",
    ];
    let digits = text
        .find(|character: char| !character.is_ascii_digit() && character != '.')
        .unwrap_or(text.len());
    let (number, suffix) = text.split_at(digits);
    number.parse::<f64>().is_ok_and(|number| number > 0.0) && SUFFIXES.contains(&suffix)
}
