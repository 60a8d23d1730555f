//! Where each field of a document was written.

use super::tree::{Content, Node, Place};

/// The outline of a document's text: which field stands where.
#[derive(Debug, Clone)]
pub struct Positions {
    /// The root first; the children of a node lie side by side, so that the hundred-thousandth item of a list
    /// is found as fast as the first.
    spots: Vec<Spot>,
}

#[derive(Debug, Clone)]
struct Spot {
    /// The field's name; items of a list have none.
    key: Option<Box<str>>,
    place: Place,
    first: u32,
    count: u32,
}

impl Positions {
    /// Line and column, counted from 1, of a path such as `spec.interfaces[0].addresses[1]`.
    ///
    /// A key with dots in it goes in brackets and quotes: `metadata.labels["example.com/tier"]`. A field that
    /// was not written has the place of the nearest thing around it that was.
    pub fn at(&self, path: &str) -> (u32, u32) {
        let mut spot = &self.spots[0];
        for step in Steps(path) {
            let children = &self.spots[spot.first as usize..][..spot.count as usize];
            let found = match step {
                Step::Item(index) => children.get(index).filter(|child| child.key.is_none()),
                Step::Field(name) => children.iter().find(|child| child.key.as_deref() == Some(name)),
            };
            match found {
                Some(child) => spot = child,
                None => break,
            }
        }
        (spot.place.line, spot.place.column)
    }

    pub(super) fn of(root: &Node<'_>) -> Positions {
        let mut spots = vec![Spot::new(None, root.place)];
        outline(root, 0, &mut spots);
        spots.shrink_to_fit();
        Positions { spots }
    }
}

fn outline(node: &Node<'_>, own: usize, spots: &mut Vec<Spot>) {
    let first = spots.len();
    match &node.content {
        Content::Scalar { .. } => return,
        Content::Sequence(nodes) => spots.extend(nodes.iter().map(|node| Spot::new(None, node.place))),
        Content::Mapping(entries) => {
            spots.extend(entries.iter().map(|entry| Spot::new(Some(&entry.key), entry.value.place)));
        }
    }
    spots[own].first = first as u32;
    spots[own].count = (spots.len() - first) as u32;
    match &node.content {
        Content::Scalar { .. } => {}
        Content::Sequence(nodes) => {
            nodes.iter().enumerate().for_each(|(index, node)| outline(node, first + index, spots));
        }
        Content::Mapping(entries) => {
            entries.iter().enumerate().for_each(|(index, entry)| outline(&entry.value, first + index, spots));
        }
    }
}

impl Spot {
    fn new(key: Option<&str>, place: Place) -> Spot {
        Spot { key: key.map(Into::into), place, first: 0, count: 0 }
    }
}

enum Step<'p> {
    Field(&'p str),
    Item(usize),
}

struct Steps<'p>(&'p str);

impl<'p> Iterator for Steps<'p> {
    type Item = Step<'p>;

    fn next(&mut self) -> Option<Step<'p>> {
        self.0 = self.0.strip_prefix('.').unwrap_or(self.0);
        if let Some(rest) = self.0.strip_prefix("[\"") {
            let (name, rest) = rest.split_once("\"]")?;
            self.0 = rest;
            return Some(Step::Field(name));
        }
        if let Some(rest) = self.0.strip_prefix('[') {
            let (index, rest) = rest.split_once(']')?;
            self.0 = rest;
            return index.parse().ok().map(Step::Item);
        }
        if self.0.is_empty() {
            return None;
        }
        let (name, rest) = self.0.split_at(self.0.find(['.', '[']).unwrap_or(self.0.len()));
        self.0 = rest;
        Some(Step::Field(name))
    }
}

#[cfg(test)]
mod tests {
    use super::super::tree::{MAX_NODES, Reader};
    use super::*;

    #[test]
    fn paths_lead_to_places() {
        let text = "a:\n  b:\n    - c\n    - d: [1, 22]\n  \"e.f/g\": h\nempty:\n";
        let mut allowance = MAX_NODES;
        let root = Reader::new(text, &mut allowance).next().unwrap().unwrap();
        let positions = Positions::of(&root);
        for (path, place) in [
            ("", (1, 1)),
            ("a.b[0]", (3, 7)),
            ("a.b[1].d[1]", (4, 14)),
            ("a.b[1].d[2]", (4, 10)),
            ("a.b[x]", (3, 5)),
            ("a[\"e.f/g\"]", (5, 12)),
            ("empty", (6, 1)),
            ("a.b[7].d", (3, 5)),
        ] {
            assert_eq!(positions.at(path), place, "{path}");
        }
    }
}
