//! What passed where.

use std::fs;

use anyhow::Context as _;
use comfy_table::{Cell, CellAlignment, Table, presets};

use super::machine::Test;
use crate::workspace;

/// Every test on every kernel.
#[derive(Default)]
pub struct Matrix {
    kernels: Vec<(String, Vec<Test>)>,
}

impl Matrix {
    /// What became of the tests on a kernel.
    pub fn add(&mut self, release: &str, tests: Vec<Test>) {
        self.kernels.push((release.to_owned(), tests));
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

    /// Puts the table into the document, in place of the last one.
    pub fn publish(&self) -> anyhow::Result<()> {
        const MARK: &str = "<!-- written by cargo xtask vm: nothing behind this line is kept -->\n";
        let path = workspace::root().join("docs/kernels.md");
        let text =
            fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
        let (before, _) = text
            .split_once(MARK)
            .with_context(|| format!("{} has no mark", path.display()))?;
        let date = jiff::Timestamp::now().strftime("%Y-%m-%d");
        let text = format!(
            "{before}{MARK}\n{date}, `cargo xtask vm --publish`: {}.\n\n{}\n",
            self.tally(),
            self.table()
        );
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
}
