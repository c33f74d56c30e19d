//! What passed where.

use std::fs;

use anyhow::Context as _;
use comfy_table::{Cell, CellAlignment, Table, presets};

use super::machine::Test;
use crate::{arch::Arch, workspace};

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

    /// Puts the table of a processor into the document, in place of its last one.
    pub fn publish(&self, arch: Arch, command: &str) -> anyhow::Result<()> {
        let path = workspace::root().join("docs/kernels.md");
        let text =
            fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
        let date = jiff::Timestamp::now().strftime("%Y-%m-%d");
        let table = format!(
            "{date}, `{command}`: {}.\n\n{}\n",
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
