//! Does one thing so many times, for `cargo xtask instructions` to count what that takes: the thing's
//! name and the number are the arguments. Without any it prints the names.

use std::env;

use sidecar::benchmarks::ALL;

fn main() {
    let mut arguments = env::args().skip(1).filter(|argument| argument != "--bench");
    let Some(wanted) = arguments.next() else {
        for (name, _) in ALL {
            println!("{name}");
        }
        return;
    };
    let count = arguments.next().and_then(|count| count.parse().ok());
    let (_, scenario) = ALL
        .into_iter()
        .find(|(name, _)| *name == wanted)
        .expect("one of those that are printed without arguments");
    scenario(count.expect("a number"));
}
