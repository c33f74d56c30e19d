//! Pods as a container runtime makes them, from the manifests that a cluster would be given.
//!
//! A [`Node`] runs a manifest's containers in the order and with the privileges that Kubernetes would,
//! by podman and runc. What a manifest asks for and this cannot do is refused, so that no test runs
//! with more, or with less, than the manifest says.
//!
//! Two things differ from a cluster's node. Each node has a BPF file system of its own, which it shows
//! where a manifest mounts the host's, so that tests share no pins. And an app's image,
//! [`Node::APP_IMAGE`], is the machine's own file system, to which nothing is written.

mod engine;
mod environment;
mod image;
mod manifest;
mod node;
mod options;
mod pod;
mod probe;
mod volume;

pub use manifest::Manifest;
pub use node::Node;
pub use pod::ContainerPod;
