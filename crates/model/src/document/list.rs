//! `kind: List`: several documents in one, as `kubectl get -o yaml` writes them.

use super::tree::{Complaint, Content, Node};
use super::{check_version, header};

/// The `apiVersion` of lists.
const VERSION: &str = "v1";

/// What a list has. What its `metadata` says is about the answer of an API server and not about the items.
const FIELDS: [&str; 4] = ["apiVersion", "kind", "metadata", "items"];

/// The items of a list; of anything else, itself. A list in a list is none of these.
pub(super) fn unfold(node: Node<'_>) -> Result<Vec<Node<'_>>, Vec<Complaint>> {
    if !matches!(header(&node, "kind", "List"), Ok(("List", _))) {
        return Ok(vec![node]);
    }
    let mut complaints = check_version(&node, &[VERSION])?;
    let place = node.place;
    let Content::Mapping(entries) = node.content else { return Ok(Vec::new()) };
    for entry in entries.iter().filter(|entry| !FIELDS.contains(&&*entry.key)) {
        complaints.push(Complaint {
            place: entry.place,
            message: format!("unknown field `{}` in a list", entry.key),
            help: format!("delete it; the fields here are {}", FIELDS.join(", ")),
        });
    }
    let mut items = entries.into_iter().filter(|entry| entry.key == "items");
    let found = match (items.next(), items.next()) {
        (Some(items), None) => match items.value.content {
            Content::Sequence(nodes) => Ok(nodes),
            _ => Err((items.value.place, format!("`items` is {}, not a list", items.value.noun()))),
        },
        (None, _) => Err((place, "`items` is missing".to_owned())),
        (Some(_), Some(again)) => Err((again.place, "`items` is there twice".to_owned())),
    };
    match found {
        Ok(nodes) if complaints.is_empty() => Ok(nodes),
        Ok(_) => Err(complaints),
        Err((place, message)) => {
            complaints.push(Complaint { place, message, help: "write `items: [...]`, once".into() });
            Err(complaints)
        }
    }
}
