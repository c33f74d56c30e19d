//! YAML as text: where things stand in it, what it says, and how it is changed in place.
//!
//! JSON is YAML in one of its two styles, and edited in that style.

mod edit;
mod node;
mod value;
mod write;

pub(super) use self::{
    edit::{Edit, Mapping, add, apply, remove},
    node::{Kind, Node, documents},
    value::{Meaning, meaning},
};
