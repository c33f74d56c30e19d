//! Taking out of the kernel side's object what only debuggers read.
//!
//! The linker makes BTF from DWARF and leaves the DWARF where it was: ten times as many bytes as the
//! programs with their BTF take, in the daemon and in each of its loads.

use anyhow::Context as _;
use object::{
    build::elf::{Builder, Section, SectionData},
    elf::SHT_STRTAB,
};

/// The sections of DWARF, as its standard names them (DWARF 5, section 7.3.1).
const DWARF: &[u8] = b".debug_";

/// `elf` without DWARF. Programs, maps, relocations, BTF and the lines that BTF knows stay.
///
/// # Errors
///
/// `elf` is not an object that can be read.
pub fn without(elf: &[u8]) -> anyhow::Result<Vec<u8>> {
    let mut builder = Builder::read(elf).context("cannot read the object that was linked")?;
    let dwarf: Vec<_> = builder
        .sections
        .iter()
        .filter(|section| section.name.starts_with(DWARF))
        .map(Section::id)
        .collect();
    for section in &mut builder.sections {
        // What relocates a section goes with it.
        let relocated = section.sh_info_section;
        section.delete = [Some(section.id()), relocated]
            .into_iter()
            .flatten()
            .any(|id| dwarf.contains(&id));
    }
    builder.delete_orphans();
    // LLVM has one table for the names of symbols and of sections; the builder writes two.
    let is_of_names = |section: &Section<'_>| matches!(section.data, SectionData::SectionString);
    if !builder.sections.iter().any(is_of_names) {
        let names = builder.sections.add();
        names.name = b".shstrtab"[..].into();
        names.sh_type = SHT_STRTAB;
        names.sh_addralign = 1;
        names.data = SectionData::SectionString;
    }
    let mut bytes = Vec::new();
    builder
        .write(&mut bytes)
        .context("cannot write the object")?;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use object::{
        Object as _, ObjectSection as _, RelocationFlags, SectionKind, SymbolFlags, SymbolKind,
        SymbolScope, elf,
        write::{Object, Relocation, Symbol, SymbolSection},
    };

    use super::*;

    /// An object with a program, its BTF, and DWARF about it.
    fn linked() -> Vec<u8> {
        let mut object = Object::new(
            object::BinaryFormat::Elf,
            object::Architecture::Bpf,
            object::Endianness::Little,
        );
        let program = object.add_section(vec![], b"sockops".to_vec(), SectionKind::Text);
        object.append_section_data(program, &[0x95, 0, 0, 0, 0, 0, 0, 0], 8);
        let symbol = object.add_symbol(Symbol {
            name: b"sock_ops".to_vec(),
            value: 0,
            size: 8,
            kind: SymbolKind::Text,
            scope: SymbolScope::Linkage,
            weak: false,
            section: SymbolSection::Section(program),
            flags: SymbolFlags::None,
        });
        for name in [".debug_info", ".BTF.ext"] {
            let section = object.add_section(vec![], name.into(), SectionKind::Other);
            object.append_section_data(section, &[0; 64], 8);
            let relocation = Relocation {
                offset: 0,
                symbol,
                addend: 0,
                flags: RelocationFlags::Elf {
                    r_type: elf::R_BPF_64_64,
                },
            };
            object
                .add_relocation(section, relocation)
                .expect("a relocation that BPF knows");
        }
        object.write().expect("an object")
    }

    #[test]
    fn programs_and_btf_stay_and_dwarf_goes_with_its_relocations() {
        let bytes = without(&linked()).expect("an object");
        let file = object::File::parse(&*bytes).expect("an object");
        let names: Vec<_> = file
            .sections()
            .map(|section| section.name().expect("a name").to_owned())
            .collect();
        for kept in ["sockops", ".BTF.ext", ".rel.BTF.ext"] {
            assert!(names.iter().any(|name| name == kept), "{kept} of {names:?}");
        }
        assert!(
            !names.iter().any(|name| name.contains("debug")),
            "{names:?}"
        );
        let relocated = file.section_by_name(".BTF.ext").expect("BTF");
        assert_eq!(relocated.relocations().count(), 1);
    }

    #[test]
    fn what_is_no_object_is_refused() {
        assert!(without(b"\x7fELF").is_err());
    }
}
