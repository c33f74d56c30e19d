//! A sidecar for pods that are described, not running: `sidecar inject` and the webhook.
//!
//! What is added follows from the pod template and the [`Options`] alone, in one function
//! ([`decide`]), whoever asks. [`manifests`] adds it to texts, of which every other byte stays.

mod addition;
mod container;
mod identity;
mod manifest;
mod options;
mod probes;
mod resources;
mod template;
#[cfg(test)]
mod tests;
mod text;
mod yaml;

pub use self::{
    addition::{Addition, has_sidecar},
    identity::IdentitySource,
    options::{ANNOTATIONS, Options, OptionsError},
    resources::Resources,
    template::{Decision, Reason, TemplateError, Unasked, decide},
    text::{Change, Fate, Outcome, TextError, manifests},
};
