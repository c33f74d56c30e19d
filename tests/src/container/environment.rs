//! The environment of a container, and the references to it in its arguments.

use std::collections::BTreeMap;

use super::manifest::{Container, Source, Variable};

/// What the downward API says of a pod, by the path of the field.
pub type Facts = BTreeMap<String, String>;

/// A container's variables, in order.
#[track_caller]
pub fn variables(container: &Container, facts: &Facts) -> Vec<(String, String)> {
    let mut variables: Vec<(String, String)> = Vec::new();
    for variable in &container.env {
        let value = match variable {
            Variable {
                value: Some(value),
                value_from: None,
                ..
            } => expand(value, &variables),
            Variable {
                value: None,
                value_from: Some(source),
                ..
            } => field(source, facts),
            _ => panic!("this variable has no value, or two: {variable:?}"),
        };
        variables.push((variable.name.clone(), value));
    }
    variables
}

#[track_caller]
fn field(Source { field_ref }: &Source, facts: &Facts) -> String {
    let path = &*field_ref.field_path;
    let value = facts.get(path);
    value
        .unwrap_or_else(|| panic!("nothing is known here of {path}"))
        .clone()
}

/// Puts in the values of `$(NAME)`. A name that is not defined stays as it is, and `$$` is a `$`.
pub fn expand(text: &str, variables: &[(String, String)]) -> String {
    let mut expanded = String::new();
    let mut rest = text;
    while let Some((before, after)) = rest.split_once('$') {
        expanded.push_str(before);
        rest = after;
        if let Some(after) = rest.strip_prefix('$') {
            expanded.push('$');
            rest = after;
            continue;
        }
        let reference = rest.strip_prefix('(').and_then(|name| name.split_once(')'));
        // Of two with one name, the later counts.
        let value = reference.and_then(|(name, after)| {
            let found = variables.iter().rfind(|(known, _)| known == name)?;
            Some((&found.1, after))
        });
        match value {
            Some((value, after)) => {
                expanded.push_str(value);
                rest = after;
            }
            None => expanded.push('$'),
        }
    }
    expanded.push_str(rest);
    expanded
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn references_are_replaced_as_kubernetes_does() {
        let variables = [("A", "1"), ("B", "2"), ("A", "3")];
        let variables = variables.map(|(name, value)| (name.to_owned(), value.to_owned()));
        for (text, expanded) in [
            ("$(A)/$(B)", "3/2"),
            ("$$(A) $(C) $A $", "$(A) $(C) $A $"),
            ("$(A", "$(A"),
            ("none", "none"),
        ] {
            assert_eq!(expand(text, &variables), expanded);
        }
    }
}
