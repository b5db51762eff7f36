//! One virtual server in `MetaBase.xml`: its properties over those that it inherits, each with its line.
//!
//! A property is an attribute of its element, or a `Custom` child of that name. What one means is known elsewhere.

use roxmltree::Node;

use super::super::note::SourcePlace;

/// One virtual server.
pub(super) struct VirtualServer<'a, 'input> {
    pub(super) name: String,
    pub(super) node: Node<'a, 'input>,
    pub(super) service: Option<Node<'a, 'input>>,
}

impl<'a> VirtualServer<'a, '_> {
    /// A property of the server, else of the service: an attribute, or a `Custom` of that name.
    pub(super) fn property(&self, name: &str) -> Option<(&'a str, SourcePlace)> {
        [Some(self.node), self.service]
            .into_iter()
            .flatten()
            .find_map(|node| of_node(node, name))
    }

    pub(super) fn text(&self, name: &str) -> Option<&'a str> {
        let (text, _) = self.property(name)?;
        Some(text.trim()).filter(|text| !text.is_empty())
    }

    pub(super) fn place(&self, name: &str) -> Option<SourcePlace> {
        self.property(name).map(|(_, place)| place)
    }

    pub(super) fn number(&self, name: &str) -> Option<u64> {
        self.text(name)?.parse().ok()
    }

    pub(super) fn is_true(&self, name: &str) -> bool {
        self.text(name)
            .is_some_and(|text| text.eq_ignore_ascii_case("true") || text == "1")
    }
}

pub(super) fn of_node<'a>(node: Node<'a, '_>, name: &str) -> Option<(&'a str, SourcePlace)> {
    let at = |position: usize| SourcePlace {
        file: None,
        line: node.document().text_pos_at(position).row as usize,
    };
    let attribute = node
        .attributes()
        .find(|attribute| attribute.name().eq_ignore_ascii_case(name));
    if let Some(attribute) = attribute {
        return Some((
            node.attribute(attribute.name())?,
            at(attribute.range().start),
        ));
    }
    let custom = node.children().find(|child| {
        child.tag_name().name() == "Custom"
            && child
                .attribute("Name")
                .is_some_and(|n| n.eq_ignore_ascii_case(name))
    })?;
    Some((custom.attribute("Value")?, at(custom.range().start)))
}
