//! What passed where.

use std::{fs, path::Path};

use anyhow::Context as _;
use comfy_table::{Cell, CellAlignment, Table, presets};
use serde::{Deserialize, Serialize};

use super::{machine::Test, read};
use crate::{arch::Arch, workspace};

/// Every test on every kernel.
#[derive(Default, Deserialize, Serialize)]
pub struct Matrix {
    /// What was typed for it.
    command: String,
    kernels: Vec<(String, Vec<Test>)>,
}

impl Matrix {
    pub fn new(command: String) -> Self {
        Self {
            command,
            ..Self::default()
        }
    }

    /// The last one, to which what ran again is added.
    pub fn again(path: &Path) -> anyhow::Result<Self> {
        const AGAIN: &str = "`, `cargo xtask vm --again";
        let mut last: Self = serde_json::from_slice(&read(path)?)
            .with_context(|| format!("{} is not of this version", path.display()))?;
        if !last.command.ends_with(AGAIN) {
            last.command.push_str(AGAIN);
        }
        Ok(last)
    }

    /// Keeps it for [`Self::again`].
    pub fn keep(&self, path: &Path) -> anyhow::Result<()> {
        let text = serde_json::to_vec_pretty(self).context("cannot write JSON")?;
        fs::write(path, text).with_context(|| format!("cannot write {}", path.display()))
    }

    /// What became of the tests on a kernel. Those that it has already are replaced.
    pub fn add(&mut self, release: &str, tests: Vec<Test>) {
        let known = self.kernels.iter_mut().find(|(known, _)| known == release);
        let Some((_, known)) = known else {
            self.kernels.push((release.to_owned(), tests));
            return;
        };
        for test in tests {
            match known.iter_mut().find(|known| known.name == test.name) {
                Some(known) => *known = test,
                None => known.push(test),
            }
        }
    }

    /// The names of those that did not pass on a kernel, or did not run.
    pub fn missing(&self, release: &str) -> Vec<String> {
        let known = self.kernels.iter().find(|(known, _)| known == release);
        let Some((_, tests)) = known else {
            return Vec::new();
        };
        let passed = |name: &String| tests.iter().any(|test| test.passed && test.name == *name);
        let names = self.names().into_iter();
        names.filter(|name| !passed(name)).collect()
    }

    /// Whether each test has passed on each kernel.
    pub fn is_green(&self) -> bool {
        let names = self.names();
        let on = |tests: &[Test]| {
            let passed = tests.iter().filter(|test| test.passed).count();
            passed == names.len()
        };
        !names.is_empty() && self.kernels.iter().all(|(_, tests)| on(tests))
    }

    /// How many have passed and not, of all on all.
    pub fn tally(&self) -> String {
        let all = self.names().len() * self.kernels.len();
        let tests = self.kernels.iter().flat_map(|(_, tests)| tests);
        let passed = tests.filter(|test| test.passed).count();
        format!("{passed} passed, {} failed", all - passed)
    }

    /// A row for each test, with the seconds that it took on each kernel.
    pub fn table(&self) -> Table {
        let mut table = Table::new();
        table.load_style(presets::ASCII_MARKDOWN);
        let releases = self.kernels.iter().map(|(release, _)| release.clone());
        table.set_header(["test".to_owned()].into_iter().chain(releases));
        for name in self.names() {
            let cells = self.kernels.iter().map(|(_, tests)| {
                let test = tests.iter().find(|test| test.name == name);
                let outcome = match test {
                    Some(Test {
                        passed: true,
                        seconds,
                        ..
                    }) => format!("{seconds:.1} s"),
                    Some(_) => "**failed**".to_owned(),
                    None => "**did not run**".to_owned(),
                };
                Cell::new(outcome).set_alignment(CellAlignment::Right)
            });
            table.add_row([Cell::new(&name)].into_iter().chain(cells));
        }
        table
    }

    /// Puts the table of a processor into the document, in place of its last one.
    pub fn publish(&self, arch: Arch) -> anyhow::Result<()> {
        let path = workspace::root().join("docs/kernels.md");
        let text =
            fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
        let date = jiff::Timestamp::now().strftime("%Y-%m-%d");
        let table = format!(
            "{date}, `{}`: {}.\n\n{}\n",
            self.command,
            self.tally(),
            self.table()
        );
        let text = replaced(&text, arch, &table)
            .with_context(|| format!("{} has no marks for {arch}", path.display()))?;
        fs::write(&path, text).with_context(|| format!("cannot write {}", path.display()))
    }

    /// Of every test that ran anywhere, in the order of the first kernel that has it.
    fn names(&self) -> Vec<String> {
        let mut names: Vec<String> = Vec::new();
        for test in self.kernels.iter().flat_map(|(_, tests)| tests) {
            if !names.contains(&test.name) {
                names.push(test.name.clone());
            }
        }
        names
    }
}

/// The text with this between the marks of a processor.
fn replaced(text: &str, arch: Arch, table: &str) -> Option<String> {
    const END: &str = "<!-- end -->";
    let mark =
        format!("<!-- {arch}, written by cargo xtask vm: nothing from here on is kept -->\n");
    let (before, rest) = text.split_once(&mark)?;
    let (_, after) = rest.split_once(END)?;
    Some(format!("{before}{mark}\n{table}\n{END}{after}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn test(name: &str, passed: bool) -> Test {
        Test {
            name: name.to_owned(),
            passed,
            seconds: 1.0,
        }
    }

    #[test]
    fn what_did_not_run_on_one_kernel_is_as_red_as_what_failed() {
        let mut matrix = Matrix::default();
        assert!(!matrix.is_green());
        matrix.add(
            "5.10",
            vec![test("mesh::one", true), test("mesh::two", true)],
        );
        assert!(matrix.is_green());
        matrix.add("6.1", vec![test("mesh::one", true)]);
        assert!(!matrix.is_green());
        assert_eq!(matrix.tally(), "3 passed, 1 failed");
        let table = matrix.table().to_string();
        assert!(table.contains("did not run"), "{table}");
    }

    #[test]
    fn what_ran_again_takes_the_place_of_what_failed() {
        let mut matrix = Matrix::default();
        matrix.add(
            "5.10",
            vec![test("mesh::one", true), test("mesh::two", false)],
        );
        matrix.add("6.1", vec![test("mesh::one", true)]);
        assert_eq!(matrix.missing("5.10"), ["mesh::two"]);
        assert_eq!(matrix.missing("6.1"), ["mesh::two"]);
        assert!(matrix.missing("7.0").is_empty());
        matrix.add("5.10", vec![test("mesh::two", true)]);
        assert!(!matrix.is_green());
        matrix.add("6.1", vec![test("mesh::two", true)]);
        assert!(matrix.is_green());
        assert_eq!(matrix.tally(), "4 passed, 0 failed");
    }

    #[test]
    fn what_is_around_a_table_stays() {
        let text = "one\n\
             <!-- amd64, written by cargo xtask vm: nothing from here on is kept -->\nold\n<!-- end -->\n\
             two\n\
             <!-- arm64, written by cargo xtask vm: nothing from here on is kept -->\nold\n<!-- end -->\n";
        let text = replaced(text, Arch::Amd64, "new\n").expect("there are marks");
        let text = replaced(&text, Arch::Arm64, "newer\n").expect("there are marks");
        assert_eq!(
            text,
            "one\n\
             <!-- amd64, written by cargo xtask vm: nothing from here on is kept -->\n\nnew\n\n<!-- end -->\n\
             two\n\
             <!-- arm64, written by cargo xtask vm: nothing from here on is kept -->\n\nnewer\n\n<!-- end -->\n"
        );
    }
}
