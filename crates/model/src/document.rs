//! From the text a person wrote to documents, and back.
//!
//! Text becomes a tree with places (`tree`), the tree becomes a plain type by way of serde (`decode`), and
//! the tree's outline stays beside the document (`Positions`), so that whoever finds a contradiction
//! later can still point at the line. Three rooms because serde alone would stop at the first mistake and
//! forget where it was.

mod claim;
mod decode;
mod hints;
mod list;
mod positions;
mod suggest;
mod tree;

use std::borrow::Cow;
use std::sync::Arc;

use serde::{Serialize, Serializer};

use crate::policy::NETWORK_POLICY_VERSION;
use crate::{Diagnostic, Endpoint, Network, NetworkPolicy, Tenant};
pub use claim::claim;
pub use positions::Positions;
use tree::{Complaint, Content, Node, Place, Reader};

/// The `apiVersion` of every document of our own kinds.
pub const API_VERSION: &str = "fief/v1alpha1";

/// The kinds [`parse`] knows.
pub const KINDS: &[&str] = &["Tenant", "Network", "Endpoint", "NetworkPolicy"];

/// The most text one [`parse`] takes, all sources together.
pub const MAX_BYTES: usize = 32 << 20;

/// Complaints beyond this number help nobody, and a hostile text could ask for millions.
pub(crate) const MAX_DIAGNOSTICS: usize = 20_000;

/// A text to read documents from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Source {
    /// What to call it in a complaint: a file name, or `-`.
    pub name: String,
    /// YAML, any number of documents.
    pub text: String,
}

/// One document of any kind.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Document {
    /// `kind: Tenant`.
    Tenant(Tenant),
    /// `kind: Network`.
    Network(Network),
    /// `kind: Endpoint`.
    Endpoint(Endpoint),
    /// `kind: NetworkPolicy`, of Kubernetes.
    NetworkPolicy(NetworkPolicy),
}

/// A document and where it was written.
#[derive(Debug, Clone)]
pub struct Located {
    /// The document.
    pub document: Document,
    /// The name of its source.
    pub source: Arc<str>,
    /// The places of its fields.
    pub positions: Positions,
}

/// Reads every document of every source.
///
/// One mistake refuses them all, but each document's mistakes are reported, even after a document that is not
/// YAML. A source without any document is a mistake: most often it is a file that somebody truncated.
/// An empty *list* of sources is not; it says nothing.
pub fn parse(sources: &[Source]) -> Result<Vec<Located>, Vec<Diagnostic>> {
    let mut outcome = Outcome { located: Vec::new(), diagnostics: Vec::new() };
    let total: usize = sources.iter().map(|source| source.text.len()).sum();
    if total > MAX_BYTES {
        let largest = sources.iter().max_by_key(|source| source.text.len());
        let name = largest.map_or("-", |source| &source.name);
        outcome.refuse(name, too_large(total));
        return outcome.finish();
    }
    let mut allowance = tree::MAX_NODES;
    for source in sources {
        outcome.read(source, &mut allowance);
        if outcome.overflowing() {
            break;
        }
    }
    outcome.finish()
}

impl Document {
    /// The kind, as written.
    pub fn kind(&self) -> &'static str {
        match self {
            Document::Tenant(_) => "Tenant",
            Document::Network(_) => "Network",
            Document::Endpoint(_) => "Endpoint",
            Document::NetworkPolicy(_) => "NetworkPolicy",
        }
    }

    /// `metadata.name`; of what belongs to a tenant `TENANT/NAME`, of a policy `TENANT/NAMESPACE/NAME`. Unique in its
    /// kind.
    pub fn name(&self) -> Cow<'_, str> {
        match self {
            Document::Tenant(tenant) => Cow::Borrowed(&tenant.metadata.name),
            Document::Network(network) => Cow::Owned(network.metadata.key()),
            Document::Endpoint(endpoint) => Cow::Owned(endpoint.metadata.key()),
            Document::NetworkPolicy(policy) => Cow::Owned(policy.key()),
        }
    }

    /// The tenant that it is or belongs to; empty for a policy that names none.
    pub fn tenant(&self) -> &str {
        match self {
            Document::Tenant(tenant) => &tenant.metadata.name,
            Document::Network(network) => &network.metadata.tenant,
            Document::Endpoint(endpoint) => &endpoint.metadata.tenant,
            Document::NetworkPolicy(policy) => policy.tenant().unwrap_or_default(),
        }
    }

    /// The document as YAML that [`parse`] reads back to the same document.
    pub fn to_yaml(&self) -> String {
        // Structs, lists, texts and numbers only: the writer has no case it could refuse.
        serde_saphyr::to_string(self).expect("a document is writable as YAML")
    }
}

impl Serialize for Document {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        #[derive(Serialize)]
        #[serde(rename_all = "camelCase")]
        struct Written<M, Spec> {
            api_version: &'static str,
            kind: &'static str,
            metadata: M,
            spec: Spec,
        }
        let (api_version, kind) = (API_VERSION, self.kind());
        match self {
            Document::Tenant(Tenant { metadata, spec }) => {
                Written { api_version, kind, metadata, spec }.serialize(serializer)
            }
            Document::Network(Network { metadata, spec }) => {
                Written { api_version, kind, metadata, spec }.serialize(serializer)
            }
            Document::Endpoint(Endpoint { metadata, spec }) => {
                Written { api_version, kind, metadata, spec }.serialize(serializer)
            }
            Document::NetworkPolicy(NetworkPolicy { metadata, spec, .. }) => {
                Written { api_version: NETWORK_POLICY_VERSION, kind, metadata, spec }.serialize(serializer)
            }
        }
    }
}

/// What has been read so far, and what was wrong with it.
struct Outcome {
    located: Vec<Located>,
    diagnostics: Vec<Diagnostic>,
}

impl Outcome {
    fn read(&mut self, source: &Source, allowance: &mut usize) {
        let name: Arc<str> = source.name.as_str().into();
        let mut empty = true;
        for read in Reader::new(&source.text, allowance) {
            match read.map_err(|complaint| vec![complaint]).and_then(list::unfold) {
                Ok(nodes) => nodes.iter().for_each(|node| {
                    empty = false;
                    self.take(&name, node);
                }),
                Err(complaints) => {
                    empty = false;
                    complaints.into_iter().for_each(|each| self.refuse(&name, each));
                }
            }
            if self.overflowing() {
                return;
            }
        }
        if empty {
            self.refuse(&name, nothing_to_apply());
        }
    }

    fn take(&mut self, source: &Arc<str>, node: &Node<'_>) {
        match document(node) {
            // One mistake refuses everything, so after it nothing more needs keeping.
            Ok(_) if !self.diagnostics.is_empty() => {}
            Ok(document) => {
                let positions = Positions::of(node);
                self.located.push(Located { document, source: source.clone(), positions });
            }
            Err(complaints) => complaints.into_iter().for_each(|each| self.refuse(source, each)),
        }
    }

    fn refuse(&mut self, source: &str, complaint: Complaint) {
        if self.overflowing() {
            return;
        }
        self.diagnostics.push(Diagnostic {
            source: source.into(),
            line: complaint.place.line,
            column: complaint.place.column,
            message: complaint.message,
            help: Some(complaint.help),
        });
    }

    fn overflowing(&self) -> bool {
        self.diagnostics.len() >= MAX_DIAGNOSTICS
    }

    fn finish(self) -> Result<Vec<Located>, Vec<Diagnostic>> {
        if self.diagnostics.is_empty() { Ok(self.located) } else { Err(self.diagnostics) }
    }
}

/// The one place that knows which kind is which type.
fn document(node: &Node<'_>) -> Result<Document, Vec<Complaint>> {
    let kind = header(node, "kind", "Tenant");
    let versions: &[&str] = match kind {
        Ok(("NetworkPolicy", _)) => &[NETWORK_POLICY_VERSION],
        Ok((known, _)) if KINDS.contains(&known) => &[API_VERSION],
        // What is wrong with the kind is to be said, and not that its version is another kind's.
        _ => &[API_VERSION, NETWORK_POLICY_VERSION],
    };
    let complaints = check_version(node, versions)?;
    let decoded = match kind {
        Ok(("Tenant", _)) => decode::decode(node, &[hints::TENANT]).map(Document::Tenant),
        Ok(("Network", _)) => decode::decode(node, &[hints::NETWORK]).map(Document::Network),
        Ok(("Endpoint", _)) => decode::decode(node, &[hints::ENDPOINT]).map(Document::Endpoint),
        Ok(("NetworkPolicy", _)) => decode::decode(node, hints::NETWORK_POLICY).map(Document::NetworkPolicy),
        Ok((other, place)) => Err(vec![unknown_kind(other, place, KINDS)]),
        Err(complaint) => Err(vec![complaint]),
    };
    together(decoded, complaints)
}

/// What is wrong with the version, which is no reason to stop reading; an error if this is no document at all.
fn check_version(node: &Node<'_>, versions: &[&str]) -> Result<Vec<Complaint>, Vec<Complaint>> {
    let version = versions.first().copied().unwrap_or(API_VERSION);
    if !matches!(node.content, Content::Mapping(_)) {
        return Err(vec![Complaint {
            place: node.place,
            message: format!("a document is {}, not a mapping", node.noun()),
            help: format!("begin it with `apiVersion: {version}` and `kind: Tenant`"),
        }]);
    }
    Ok(match header(node, "apiVersion", version) {
        Ok((written, _)) if versions.contains(&written) => Vec::new(),
        Ok((other, place)) => vec![Complaint {
            place,
            message: format!("unknown apiVersion `{other}`"),
            help: format!("write `apiVersion: {version}`"),
        }],
        Err(complaint) => vec![complaint],
    })
}

fn together<D>(
    decoded: Result<D, Vec<Complaint>>,
    mut complaints: Vec<Complaint>,
) -> Result<D, Vec<Complaint>> {
    match decoded {
        Ok(document) if complaints.is_empty() => Ok(document),
        Ok(_) => Err(complaints),
        Err(more) => {
            complaints.extend(more);
            Err(complaints)
        }
    }
}

/// The text of one of the two keys that say what a document is.
fn header<'n>(node: &'n Node<'_>, key: &str, example: &str) -> Result<(&'n str, Place), Complaint> {
    let help = format!("write `{key}: {example}`");
    let Some(value) = node.field(key) else {
        return Err(Complaint { place: node.place, message: format!("`{key}` is missing"), help });
    };
    match &value.content {
        Content::Scalar { text, .. } if !text.is_empty() => Ok((text, value.place)),
        _ => Err(Complaint {
            place: value.place,
            message: format!("`{key}` is {}, not a text", value.noun()),
            help,
        }),
    }
}

fn unknown_kind(kind: &str, place: Place, kinds: &[&str]) -> Complaint {
    let known = kinds.join(", ");
    let help = match suggest::nearest(kind, kinds.iter().copied()) {
        Some(near) => format!("did you mean `{near}`? known kinds: {known}"),
        None => format!("known kinds: {known}"),
    };
    Complaint { place, message: format!("unknown kind `{kind}`"), help }
}

fn too_large(total: usize) -> Complaint {
    Complaint {
        place: Place::NONE,
        message: format!("{total} bytes of documents are more than {} MiB", MAX_BYTES >> 20),
        help: "apply them in several parts".into(),
    }
}

fn nothing_to_apply() -> Complaint {
    Complaint {
        place: Place::NONE,
        message: "nothing to apply: no document in here".into(),
        help: format!("write a document that begins `apiVersion: {API_VERSION}`, or leave this source out"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn source(text: &str) -> [Source; 1] {
        [Source { name: "t.yaml".into(), text: text.into() }]
    }

    #[test]
    fn a_document_knows_its_kind_its_name_and_its_lines() {
        let text = "# a tenant\napiVersion: fief/v1alpha1\nkind: Tenant\nmetadata: { name: blue }\n\
                    spec:\n  interfaces:\n    - { name: eth0, addresses: [192.0.2.1/24, 192.0.2.2/24] }\n";
        let [one] = &parse(&source(text)).unwrap()[..] else { panic!("one document") };
        assert_eq!((one.document.kind(), &*one.document.name()), ("Tenant", "blue"));
        assert_eq!(one.positions.at("spec.interfaces[0].addresses[1]"), (7, 47));
        assert_eq!(one.positions.at("spec.interfaces[0].manage"), (7, 7), "the nearest ancestor");
        assert_eq!(one.positions.at("nowhere"), (2, 1), "the document itself");
    }

    #[test]
    fn every_broken_document_is_reported_and_empty_ones_are_passed_over() {
        let good = "apiVersion: fief/v1alpha1\nkind: Tenant\nmetadata: { name: a }\n";
        let text = format!("---\n---\n# nothing\n---\n{good}---\na: [b\n---\n{good}zzz: 1\n---\nkind: X\n");
        let diagnostics = parse(&source(&text)).unwrap_err();
        let lines: Vec<u32> = diagnostics.iter().map(|d| d.line).collect();
        assert_eq!(lines, [9, 14, 16, 16], "{diagnostics:#?}");
        assert!(diagnostics.iter().all(|d| d.help.is_some()));

        let text = format!("---\n---\n{good}...\n---\n");
        assert_eq!(parse(&source(&text)).unwrap().len(), 1);
    }

    #[test]
    fn a_byte_order_mark_and_foreign_line_ends_are_no_mistake() {
        let text = "\u{feff}apiVersion: fief/v1alpha1\r\nkind: Tenant\r\nmetadata: { name: a }\r\n";
        assert_eq!(parse(&source(text)).unwrap()[0].positions.at("metadata.name"), (3, 19));
    }
}
