//! The registry of who uses which bits: `registry.yaml`, and files of the same form.

use std::collections::BTreeMap;
use std::path::Path;

use serde::{Deserialize, Serialize};

/// What we know ourselves; a test reads it with each build's tests.
const OWN: &str = include_str!("../registry.yaml");

/// Which of the marks a use is about; one says nothing about another.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Mark {
    /// `skb->mark`.
    Packet,
    /// The mark of a tracked connection.
    Connection,
    /// SO_MARK.
    Socket,
    /// The mark of an IPsec policy or state.
    Ipsec,
}

/// All 32 bits, or some: written in hexadecimal.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Bits(pub u32);

/// A value under a mask, as in `0x0f00/0x0f00`; without a mask all bits count.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Masked {
    /// What the bits are.
    pub value: u32,
    /// The bits that count.
    pub mask: u32,
}

/// Adjacent bits that are put together, as in `7:0 31:16`; the first are the highest of the number.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Field(Vec<(u32, u32)>);

/// One way in which a software uses a mark.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Use {
    /// Which mark.
    pub mark: Mark,
    /// The bits it sets or matches.
    pub mask: Bits,
    /// What it sets them to; any value where neither this nor `range` is given.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub values: Vec<Bits>,
    /// The first and the last value.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub range: Option<[Bits; 2]>,
    /// What for.
    pub purpose: String,
}

/// How to read a whole mark.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Layout {
    /// Which mark.
    pub mark: Mark,
    /// Where it holds; everywhere if it is not given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub when: Option<Masked>,
    /// What such a mark says.
    pub title: String,
    /// The numbers in it.
    pub fields: BTreeMap<String, Field>,
}

/// One software.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Software {
    /// Its short name, for the command line.
    pub name: String,
    /// Its name for people.
    pub title: String,
    /// Where that is written.
    #[serde(default)]
    pub sources: Vec<String>,
    /// What it calls its things on a host, as in `chain KUBE-*`; a star stands for any end.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub signs: Vec<String>,
    /// What it uses.
    pub uses: Vec<Use>,
    /// How its marks are read.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub layouts: Vec<Layout>,
}

/// Everybody we know.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Registry {
    /// By the order of the files.
    pub software: Vec<Software>,
}

impl Registry {
    /// What comes with fief.
    ///
    /// # Panics
    /// Never: a test reads the same text.
    pub fn own() -> Registry {
        Registry::parse(OWN).expect("registry.yaml is read by a test")
    }

    /// Reads a file of this form and checks what the form cannot say.
    ///
    /// # Errors
    /// What is wrong, with the line where the text itself is.
    pub fn parse(text: &str) -> Result<Registry, String> {
        let registry: Registry = serde_saphyr::from_str(text).map_err(|e| e.to_string())?;
        for (i, software) in registry.software.iter().enumerate() {
            let at = |what: String| Err(format!("{}: {what}", software.name));
            if registry.software[..i].iter().any(|other| other.name == software.name) {
                return at("listed twice".into());
            }
            for u in &software.uses {
                let all = u.values.iter().chain(u.range.iter().flatten());
                if let Some(value) = all.copied().find(|value| value.0 & !u.mask.0 != 0) {
                    return at(format!("the value {value} has bits outside of its mask {}", u.mask));
                }
                if u.mask.0 == 0 {
                    return at("a use of no bits".into());
                }
            }
        }
        Ok(registry)
    }

    /// What comes with fief, and behind it the `*.yaml` and `*.yml` of a directory, by name. A directory that is not there
    /// adds nothing.
    ///
    /// # Errors
    /// The file and what is wrong with it.
    pub fn with(directory: &Path) -> Result<Registry, String> {
        let mut registry = Registry::own();
        let Ok(entries) = std::fs::read_dir(directory) else { return Ok(registry) };
        let mut files: Vec<_> = entries.flatten().map(|entry| entry.path()).collect();
        files.retain(|file| file.extension().is_some_and(|e| e == "yaml" || e == "yml"));
        files.sort();
        for file in files {
            let text = std::fs::read_to_string(&file).map_err(|e| format!("read {}: {e}", file.display()))?;
            registry.extend(Registry::parse(&text).map_err(|e| format!("{}: {e}", file.display()))?);
        }
        Ok(registry)
    }

    /// Adds what another file says; an item of the same name takes the place of ours.
    pub fn extend(&mut self, other: Registry) {
        for software in other.software {
            match self.software.iter_mut().find(|known| known.name == software.name) {
                Some(known) => *known = software,
                None => self.software.push(software),
            }
        }
    }

    /// A software by its short name.
    pub fn named(&self, name: &str) -> Option<&Software> {
        self.software.iter().find(|software| software.name == name)
    }
}

impl Software {
    /// All bits of a mark that it uses.
    pub fn mask(&self, mark: Mark) -> u32 {
        self.uses.iter().filter(|u| u.mark == mark).fold(0, |mask, u| mask | u.mask.0)
    }
}

impl Software {
    /// Is this one of its things?
    pub fn signed(&self, name: &str) -> bool {
        self.signs.iter().any(|sign| match sign.strip_suffix('*') {
            Some(begin) => name.starts_with(begin),
            None => name == sign,
        })
    }
}

impl Use {
    /// Can a mark with this value have come from this use?
    pub fn fits(&self, value: u32) -> bool {
        let own = value & self.mask.0;
        match self.range {
            Some([first, last]) => (first.0..=last.0).contains(&own),
            None if self.values.is_empty() => own != 0,
            None => self.values.iter().any(|known| known.0 == own),
        }
    }
}

impl Layout {
    /// Does this reading hold for a value?
    pub fn holds(&self, value: u32) -> bool {
        self.when.is_none_or(|when| value & when.mask == when.value)
    }
}

impl Field {
    /// The number in a mark.
    pub fn of(&self, value: u32) -> u32 {
        self.0.iter().fold(0, |number, (high, low)| {
            let width = high - low + 1;
            let part = (u64::from(value) >> low) & ((1 << width) - 1);
            ((u64::from(number) << width) | part) as u32
        })
    }

    /// Its bits.
    pub fn mask(&self) -> u32 {
        self.0.iter().fold(0, |mask, (high, low)| mask | (u32::MAX >> (31 - high)) & (u32::MAX << low))
    }

    /// How many bits it has.
    pub fn width(&self) -> u32 {
        self.0.iter().map(|(high, low)| high - low + 1).sum()
    }
}

/// Reads a number as people write marks: hexadecimal with 0x, else decimal.
///
/// # Errors
/// What was written, and how to write it.
pub fn number(text: &str) -> Result<u32, String> {
    let read = match text.strip_prefix("0x").or_else(|| text.strip_prefix("0X")) {
        Some(digits) => u32::from_str_radix(digits, 16),
        None => text.parse(),
    };
    read.map_err(|_| {
        format!("`{text}` is not a mark; write for example 0x40000, or a decimal number below 2^32")
    })
}

impl std::str::FromStr for Bits {
    type Err = String;
    fn from_str(text: &str) -> Result<Bits, String> {
        number(text).map(Bits)
    }
}

impl std::fmt::Display for Bits {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:#x}", self.0)
    }
}

impl std::str::FromStr for Masked {
    type Err = String;
    fn from_str(text: &str) -> Result<Masked, String> {
        let (value, mask) = text.split_once('/').unwrap_or((text, "0xffffffff"));
        let masked = Masked { value: number(value)?, mask: number(mask)? };
        match masked.value & !masked.mask {
            0 => Ok(masked),
            _ => Err(format!("`{text}`: the value has bits outside of its mask")),
        }
    }
}

impl std::fmt::Display for Masked {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:#x}/{:#x}", self.value, self.mask)
    }
}

impl std::str::FromStr for Field {
    type Err = String;
    fn from_str(text: &str) -> Result<Field, String> {
        let part = |part: &str| {
            let (high, low) = part.split_once(':').unwrap_or((part, part));
            let (high, low): (u32, u32) = (high.parse().ok()?, low.parse().ok()?);
            (high < 32 && low <= high).then_some((high, low))
        };
        let parts: Option<Vec<(u32, u32)>> = text.split_whitespace().map(part).collect();
        let field = parts.filter(|parts| !parts.is_empty()).map(Field);
        field
            .filter(|field| field.width() <= 32)
            .ok_or_else(|| format!("`{text}` are no bits; write for example 31:16, or 7:0 31:16"))
    }
}

impl std::fmt::Display for Field {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let parts: Vec<String> = self.0.iter().map(|(high, low)| format!("{high}:{low}")).collect();
        write!(f, "{}", parts.join(" "))
    }
}

macro_rules! as_text {
    ($($name:ident),*) => {$(
        impl TryFrom<String> for $name {
            type Error = String;
            fn try_from(text: String) -> Result<$name, String> {
                text.parse()
            }
        }

        impl From<$name> for String {
            fn from(it: $name) -> String {
                it.to_string()
            }
        }
    )*};
}
as_text!(Bits, Masked, Field);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn our_own_file_is_right() {
        let registry = Registry::parse(OWN).unwrap();
        assert_eq!(registry.named("cilium").unwrap().mask(Mark::Packet), 0xffff_1fff);
        assert_eq!(registry.named("kubernetes").unwrap().mask(Mark::Packet), 0xc000);
        let union = registry.software.iter().fold(0, |mask, s| mask | s.mask(Mark::Packet));
        assert_eq!(union, u32::MAX, "the registry's union is the whole mark");
        assert!(registry.software.iter().all(|software| !software.sources.is_empty()));
    }

    #[test]
    fn nonsense_is_refused_with_the_name() {
        let file = |uses: &str| format!("software:\n  - {{ name: own, title: Own, uses: [{uses}] }}\n");
        for (text, says) in [
            (file("{ mark: packet, mask: \"0xf0\", values: [\"0x1\"], purpose: x }"), "own: the value 0x1"),
            (file("{ mark: packet, mask: \"0x0\", purpose: x }"), "own: a use of no bits"),
            (file("{ mark: paket, mask: \"0x1\", purpose: x }"), "paket"),
            (file("{ mark: packet, mask: forty, purpose: x }"), "forty"),
            (file("{ mark: packet, mask: \"0x1\", porpose: x }"), "porpose"),
        ] {
            let error = Registry::parse(&text).unwrap_err();
            assert!(error.contains(says), "{text}: {error}");
        }
    }

    #[test]
    fn a_file_of_ones_own_adds_and_replaces() {
        let mut registry = Registry::own();
        let count = registry.software.len();
        let own = "software:\n  - name: calico\n    title: Calico here\n    uses: [{ mark: packet, mask: \"0xff000000\", purpose: x }]\n  \
                   - name: mine\n    title: Mine\n    uses: [{ mark: socket, mask: \"0x1\", purpose: x }]\n";
        registry.extend(Registry::parse(own).unwrap());
        assert_eq!(registry.software.len(), count + 1);
        assert_eq!(registry.named("calico").unwrap().mask(Mark::Packet), 0xff00_0000);
        assert_eq!(registry.named("mine").unwrap().mask(Mark::Packet), 0);
    }
}
